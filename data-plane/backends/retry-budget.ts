// How many retries one backend is given: few enough that they never become a load of their own when it is in trouble.

export interface RetryBudget {
  /** A call is made; retries do not count. */
  called(nowMs: number): void;
  /** Whether a retry may be made now. */
  allows(nowMs: number): boolean;
  /** A retry is made. */
  retried(nowMs: number): void;
}

const slots = 10;
const slotMs = 1_000;
const callsPerRetry = 5; // 20 %
const perSecond = 5;

/**
 * Of the last 10 s: a fifth of the calls, and 5 for each second so that the few calls of a quiet backend can be retried too.
 * Counts by the second, so what it costs does not depend on how many calls there are. Times are of a clock that never goes back.
 */
export function createRetryBudget(): RetryBudget {
  const calls = new Float64Array(slots);
  const retries = new Float64Array(slots);
  let callsInWindow = 0;
  let retriesInWindow = 0;
  let current = 0; // the second that is counted now

  /** Forgets the seconds that have left the window; gives the slot of this one. */
  function slotAt(nowMs: number): number {
    const now = Math.floor(nowMs / slotMs);
    if (now > current) forget(Math.min(now - current, slots), now);
    return current % slots;
  }

  function forget(seconds: number, now: number): void {
    for (let second = now - seconds + 1; second <= now; second++) {
      const slot = second % slots;
      callsInWindow -= calls[slot] as number;
      retriesInWindow -= retries[slot] as number;
      calls[slot] = 0;
      retries[slot] = 0;
    }
    current = now;
  }

  return {
    called(nowMs) {
      const slot = slotAt(nowMs);
      calls[slot] = (calls[slot] as number) + 1;
      callsInWindow++;
    },
    allows(nowMs) {
      slotAt(nowMs);
      return retriesInWindow + 1 <= callsInWindow / callsPerRetry + slots * perSecond;
    },
    retried(nowMs) {
      const slot = slotAt(nowMs);
      retries[slot] = (retries[slot] as number) + 1;
      retriesInWindow++;
    },
  };
}
