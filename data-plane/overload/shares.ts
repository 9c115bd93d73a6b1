// Who has how much of the gateway, and who has too much of it. Everybody may have all of it while nobody else wants any.

/** One identity's part. */
export interface Tally {
  /** Weight of its calls in flight. */
  inFlight: number;
  /** Weight of those that wait. */
  waiting: number;
  /** When it last came, milliseconds of the monotonic clock. */
  lastMs: number;
}

export interface Shares {
  /** Of this identity, which comes now. */
  of(key: string, nowMs: number): Tally;
  /** Whether it would have more than its share with so much more. Everybody may have one call, and all of it who comes alone. */
  isOver(tally: Tally, weight: number, limit: number): boolean;
  /** Whether it has more than it would if all had the same. */
  isAboveEqual(tally: Tally, limit: number): boolean;
  /** Forgets who has not come for a while. */
  sweep(nowMs: number): void;
  /** Identities that came a moment ago, or are being served. */
  readonly active: number;
  /** What the one with most has. */
  readonly mostOfOne: number;
}

export interface SharesOptions {
  /** Part of the limit that one may have when others come too. Default `sharePart`. */
  readonly most?: number;
  /** Identities that are told apart; those beyond it are one. Default 10,000. */
  readonly tallied?: number;
}

export const sharePart = 0.3;
const activeMs = 2_000;

export function createShares({ most = sharePart, tallied = 10_000 }: SharesOptions = {}): Shares {
  const tallies = new Map<string, Tally>();
  const others: Tally = { inFlight: 0, waiting: 0, lastMs: 0 };
  return {
    of(key, nowMs) {
      let tally = tallies.get(key);
      if (!tally) {
        if (tallies.size >= tallied) return others;
        tally = { inFlight: 0, waiting: 0, lastMs: nowMs };
        tallies.set(key, tally);
      }
      tally.lastMs = nowMs;
      return tally;
    },
    isOver({ inFlight, waiting }, weight, limit) {
      const own = inFlight + waiting;
      return own > 0 && tallies.size > 1 && own + weight > limit * most;
    },
    isAboveEqual: ({ inFlight, waiting }, limit) => inFlight + waiting > limit / Math.max(1, tallies.size),
    sweep(nowMs) {
      for (const [key, tally] of tallies)
        if (tally.inFlight + tally.waiting === 0 && nowMs - tally.lastMs > activeMs) tallies.delete(key);
    },
    get active() {
      return tallies.size;
    },
    get mostOfOne() {
      let most = 0;
      for (const { inFlight } of tallies.values()) most = Math.max(most, inFlight);
      return most;
    },
  };
}
