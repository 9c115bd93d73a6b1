// How many calls may be in the gateway's hands at a time. A gateway in one thread that has too much to do is late and never idle, and the
// more it has in hand, the longer each turn of its loop takes and the later everything is, refusals too. So the limit falls only while
// both is so, by as much as the loop is late. A backend that slows down makes its calls slow and the loop no later; a machine that is
// busy with others makes the loop late and not busy.

export interface AdaptiveLimit {
  readonly value: number;
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
  /** Default 64: what a few clients that ask one after the other have in hand is no overload. */
  readonly least?: number;
  /** In calm times. Default 1024. */
  readonly most?: number;
}

// Of a loop whose turns are short.
const goodLateMs = 4;
// A single bad moment (a collection of garbage) says little.
const leastFactor = 0.4;
/** A loop that is never idle has too much to do. */
export const fullyBusy = 0.95;
// With less the limit goes back to its most.
const calmBusy = 0.9;
const recovery = 0.1; // of what is missing

export function createAdaptiveLimit({ least = 64, most = 1_024 }: AdaptiveLimitOptions = {}): AdaptiveLimit {
  const floor = Math.min(least, most);
  let limit = most;
  return {
    get value() {
      return Math.round(limit);
    },
    adapt({ lateMs, busy, used }) {
      const isOverloaded = busy >= fullyBusy && lateMs > goodLateMs;
      if (isOverloaded) limit = Math.max(floor, limit * Math.max(leastFactor, goodLateMs / lateMs));
      else if (busy < calmBusy) limit += (most - limit) * recovery;
      // A limit that nobody reaches says nothing of what would be well.
      else if (used >= limit / 2) limit = Math.min(most, limit + Math.sqrt(limit) / 4);
    },
  };
}
