// Admission of calls: places for those that the gateway has in hand, under a limit that adapts, in fair shares. A call that only waits for
// its backend, or for a person behind it, costs memory and no processor: it gives its place back after a moment, and is bounded per
// backend from then on. The moment is counted in looks rather than time, which also passes while this process is late.
import { type AdaptiveLimit, type AdaptiveLimitOptions, createAdaptiveLimit, fullyBusy } from "./adaptive-limit.ts";
import { createShares, type Shares, type SharesOptions, type Tally } from "./shares.ts";
import { createWaitingLine, type WaitingLine, type WaitingLineOptions } from "./waiting-line.ts";

/** Stands for a call in hand, until it is left. */
export interface Place {
  readonly tally: Tally;
  readonly weight: number;
  looks: number;
}

/** `caller_over_share`: others want something too. `gateway_full`: nothing is left for anybody. */
export type CallRefusal = "caller_over_share" | "gateway_full";

export interface Gate {
  /** A place at once, or why there is none, or soon one of both. A batch weighs as much as it has requests. */
  enter(key: string, weight?: number): Place | CallRefusal | Promise<Place | CallRefusal>;
  /** What `enter` would say without waiting; nothing is taken. */
  refusalOf(key: string): CallRefusal | undefined;
  /** The work has ended. Safe to call again. */
  leave(place: Place): void;
  /** Looks after everything that takes time; to be called every `lookMs` while `isBusy`. */
  look(): void;
  readonly isBusy: boolean;
  readonly inFlight: number;
  readonly limit: number;
  readonly waiting: number;
  /** Calls that have given their places back and have not ended. */
  readonly away: number;
  /** Weight of the calls in flight of whoever has most. */
  readonly mostOfOne: number;
}

export interface GateOptions {
  readonly nowMs: () => number;
  /** The part of the time since the last call in which the event loop was not idle. */
  readonly utilization: () => number;
  /** Called when there is something to look after again. */
  readonly onBusy?: () => void;
  readonly limit?: AdaptiveLimitOptions;
  readonly shares?: SharesOptions;
  readonly line?: WaitingLineOptions;
}

export const lookMs = 20;
// A call that was seen so often waits for somebody else.
const looksMax = 4;
// By the clock, since looks are late too.
const adaptMs = 90;

export function createGate(options: GateOptions): Gate {
  const { nowMs, utilization, onBusy } = options;
  const limit: AdaptiveLimit = createAdaptiveLimit(options.limit);
  const shares: Shares = createShares(options.shares);
  const line: WaitingLine = createWaitingLine(options.line);
  const held = new Set<Place>();
  let away = 0;
  let inFlight = 0;
  let used = 0; // the most since the limit was last adapted
  let isBusy = false;
  let lookedMs = 0;
  let adaptedMs = 0;
  let looks = 0; // since then
  let lateMs = 0; // the sum
  let busy = 0;

  function take(tally: Tally, weight: number): Place {
    const place = { tally, weight, looks: 0 };
    tally.inFlight += weight;
    inFlight += weight;
    if (inFlight > used) used = inFlight;
    held.add(place);
    return place;
  }

  function giveBack({ tally, weight }: Place): void {
    tally.inFlight -= weight;
    inFlight -= weight;
  }

  function letIn(): void {
    while (line.length > 0) {
      const waiter = line.next(roomFor(), nowMs());
      if (!waiter) return;
      waiter.settle(true);
    }
  }

  /** What is too heavy for the limit is let in when nothing else is there. */
  function roomFor(): number {
    return inFlight === 0 ? Number.POSITIVE_INFINITY : limit.value - inFlight;
  }

  function wake(now: number): void {
    isBusy = true;
    lookedMs = now;
    onBusy?.();
  }

  function judge(tally: Tally, weight: number): "in" | "wait" | "caller_over_share" {
    const isContended = inFlight >= limit.value / 2 || busy >= fullyBusy;
    if (isContended && shares.isOver(tally, weight, limit.value)) return "caller_over_share";
    return weight <= roomFor() && (line.length === 0 || tally.inFlight === 0 || line.isOverloaded) ? "in" : "wait";
  }

  /** Of a full gateway: who has more than others do is told so. */
  function full(tally: Tally): CallRefusal {
    return shares.isAboveEqual(tally, limit.value) && shares.active > 1 ? "caller_over_share" : "gateway_full";
  }

  return {
    enter(key, weight = 1) {
      const now = nowMs();
      if (!isBusy) wake(now);
      line.sweep(now);
      const tally = shares.of(key, now);
      const verdict = judge(tally, weight);
      if (verdict === "in") return take(tally, weight);
      if (verdict !== "wait") return verdict;
      const entering = Promise.withResolvers<Place | CallRefusal>();
      const settle = (isIn: boolean) => {
        tally.waiting -= weight;
        entering.resolve(isIn ? take(tally, weight) : full(tally));
      };
      if (!line.join({ tally, weight, sinceMs: now, settle })) return full(tally);
      tally.waiting += weight;
      return entering.promise;
    },
    refusalOf(key) {
      const tally = shares.of(key, nowMs());
      const verdict = judge(tally, 1);
      if (verdict === "wait") return line.isOverloaded ? full(tally) : undefined;
      return verdict === "in" ? undefined : verdict;
    },
    leave(place) {
      if (held.delete(place)) {
        giveBack(place);
        if (line.length > 0) letIn();
      } else if (place.looks >= looksMax) {
        place.looks = -1;
        away--;
      }
    },
    look() {
      const now = nowMs();
      lateMs += Math.max(0, now - lookedMs - lookMs);
      lookedMs = now;
      for (const place of held) {
        if (++place.looks < looksMax) continue;
        held.delete(place);
        away++;
        giveBack(place);
      }
      looks++;
      if (now - adaptedMs >= adaptMs) {
        busy = utilization();
        limit.adapt({ lateMs: lateMs / looks, busy, used });
        used = inFlight;
        adaptedMs = now;
        looks = 0;
        lateMs = 0;
        shares.sweep(now);
      }
      letIn();
      line.sweep(now);
      isBusy = inFlight > 0 || line.length > 0 || shares.active > 0;
    },
    get isBusy() {
      return isBusy;
    },
    get inFlight() {
      return inFlight;
    },
    get limit() {
      return limit.value;
    },
    get waiting() {
      return line.length;
    },
    get away() {
      return away;
    },
    get mostOfOne() {
      return shares.mostOfOne;
    },
  };
}
