// How many retries one backend is given: few enough that they never become a load of their own when it is in trouble.
import { createWindowCount, windowSeconds } from "./window-count.ts";

export interface RetryBudget {
  /** A call is made; retries do not count. */
  called(nowMs: number): void;
  /** Whether a retry may be made now. */
  allows(nowMs: number): boolean;
  /** A retry is made. */
  retried(nowMs: number): void;
}

const callsPerRetry = 5; // 20 %
const perSecond = 5;

/**
 * Of the last 10 s: a fifth of the calls, and 5 for each second so that the few calls of a quiet backend can be retried too.
 * Times are of a clock that never goes back.
 */
export function createRetryBudget(): RetryBudget {
  const calls = createWindowCount();
  const retries = createWindowCount();
  return {
    called: (nowMs) => calls.add(nowMs, 1),
    allows(nowMs) {
      calls.add(nowMs, 0); // what has left the window no longer counts
      retries.add(nowMs, 0);
      return retries.total + 1 <= calls.total / callsPerRetry + windowSeconds * perSecond;
    },
    retried: (nowMs) => retries.add(nowMs, 1),
  };
}
