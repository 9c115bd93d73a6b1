// How many calls may be in the gateway's hands at a time. A gateway in one thread that has too much to do is late and never idle, so the
// limit falls only while both is so: how far, the latency of quick calls says, each kind of work against its own best. A backend that
// slows down makes its calls slow and the loop no later; a machine that is busy with others makes it late but not busy. Source of the gradient: Netflix concurrency-limits.

export interface AdaptiveLimit {
  readonly value: number;
  /** A quick call of this kind of work has ended. */
  sample(kind: string, tookMs: number): void;
  /** Takes what was seen since the last time. */
  adapt(seen: LoopSeen): void;
}

export interface LoopSeen {
  /** How late the loop was for a timer. */
  readonly lateMs: number;
  /** The part of the time in which it was not idle. */
  readonly busy: number;
  /** The most that was in flight. */
  readonly used: number;
}

export interface AdaptiveLimitOptions {
  /** Default 32. */
  readonly least?: number;
  /** Default 512. */
  readonly most?: number;
  /** Default 128. */
  readonly first?: number;
}

interface Kind {
  bestMs: number;
  /** Of the time before, so that a best is not believed for ever. */
  olderBestMs: number;
  sumMs: number;
  count: number;
}

const kindsMax = 256;
// Below it a late timer is usual.
const someLateMs = 4;
// A loop that is so late is overloaded, whatever the latencies were compared with.
const tooLateMs = 40;
const tolerance = 2;
const leastGradient = 0.7;
/** A loop that is never idle has too much to do. */
export const fullyBusy = 0.95;
// In calm times a limit that fell goes back to where it began.
const recovery = 0.02;
// Latencies below it are as good as none.
const quickMs = 1;
const adaptsPerBest = 300;

export function createAdaptiveLimit({ least = 32, most = 512, first = 128 }: AdaptiveLimitOptions = {}): AdaptiveLimit {
  const floor = Math.min(least, most);
  const kinds = new Map<string, Kind>();
  const begin = Math.max(floor, Math.min(first, most));
  let limit = begin;
  let adapts = 0;

  /** How much longer calls take than they could: 1 is as good as ever. */
  function slowdown(): number {
    let sum = 0;
    let count = 0;
    for (const kind of kinds.values()) {
      if (kind.count === 0) continue;
      const best = Math.max(Math.min(kind.bestMs, kind.olderBestMs), quickMs);
      sum += kind.sumMs / best;
      count += kind.count;
      kind.sumMs = 0;
      kind.count = 0;
    }
    return count === 0 ? 1 : Math.max(1, sum / count);
  }

  function forgetOldBests(): void {
    for (const [name, kind] of kinds) {
      if (kind.bestMs === Number.POSITIVE_INFINITY) kinds.delete(name); // nobody calls it any more
      kind.olderBestMs = kind.bestMs;
      kind.bestMs = Number.POSITIVE_INFINITY;
    }
  }

  return {
    get value() {
      return Math.round(limit);
    },
    sample(name, tookMs) {
      let kind = kinds.get(name);
      if (!kind) {
        if (kinds.size >= kindsMax) return;
        kind = { bestMs: tookMs, olderBestMs: Number.POSITIVE_INFINITY, sumMs: 0, count: 0 };
        kinds.set(name, kind);
      }
      if (tookMs < kind.bestMs) kind.bestMs = tookMs;
      kind.sumMs += tookMs;
      kind.count++;
    },
    adapt({ lateMs, busy, used }) {
      const slow = slowdown();
      const isOverloaded = busy >= fullyBusy && lateMs > someLateMs;
      if (isOverloaded) {
        const gradient = Math.min(lateMs > tooLateMs ? 0.9 : 1, Math.max(leastGradient, tolerance / slow));
        limit = Math.max(floor, limit * gradient);
      } else if (limit < begin) limit += (begin - limit) * recovery;
      // A limit that nobody reaches says nothing of what would be well.
      if (busy < fullyBusy && used >= limit / 2) limit = Math.min(most, limit + Math.sqrt(limit) / 4);
      if (++adapts % adaptsPerBest === 0) forgetOldBests();
    },
  };
}
