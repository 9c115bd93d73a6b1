// What a breaker goes by: what the end of a call says of a backend, when that is too much, how long it is left alone, and how many
// calls are let through again.
import { BackendError, refusedWith } from "./errors.ts";
import { createWindowCount, windowSeconds } from "./window-count.ts";

/** "neutral" says nothing of the backend's health, either way. */
export type Outcome = "success" | "failure" | "neutral";

/**
 * What a call that failed says of its backend. Refused credentials and requests, forgotten sessions, questions that nobody answered,
 * calls that their client gave up or that we shed: none of that says that it is not well, and none that it is.
 */
export function outcomeOf(error: unknown): Exclude<Outcome, "success"> {
  if (!(error instanceof BackendError) || asksForLess(error)) return "neutral";
  const { code } = error;
  return code === "unavailable" || code === "timeout" || code === "bad_answer" ? "failure" : "neutral";
}

/** What an answer says of its backend. Servers give a tool's own errors HTTP 500, which therefore says nothing. */
export function faultOf(answer: unknown): BackendError | undefined {
  const httpStatus = (answer as { readonly httpStatus?: number } | undefined)?.httpStatus;
  if (httpStatus === 429) return refusedWith(httpStatus);
  if (httpStatus === undefined || httpStatus < 502 || httpStatus > 504) return undefined;
  return new BackendError("unavailable", "unknown", `answered HTTP ${httpStatus}`);
}

/** Whether it said that it has too much to do (HTTP 429). */
export function asksForLess(error: unknown): boolean {
  return error instanceof BackendError && (error.asksForLess || asksForLess(error.cause));
}

/** Whether it was the connection that failed, rather than what came over it. */
export function isConnectionFault(error: unknown): boolean {
  return error instanceof BackendError && error.code === "unavailable" && error.cause !== undefined;
}

export const windowMs = windowSeconds * 1_000;
/** Calls in the window without which no share of them says anything. */
export const volumeMin = 20;
export const failingShare = 0.5;
const slowShare = 0.8;
/** A call is slow that took more than this part of its deadline. */
export const slowAfter = 0.8;

const firstPauseMs = 1_000;
const jitter = 0.5;

/**
 * How long a backend is left alone that was found failing for the `times`th time in a row: 1 s, doubling, and up to half as much again
 * by chance, so that proxies that saw it fail together do not come back together. Never longer than `mostMs`.
 */
export function pauseMs(times: number, mostMs: number, random: () => number): number {
  return Math.min(firstPauseMs * 2 ** (times - 1), mostMs / (1 + jitter)) * (1 + jitter * random());
}

export const rampMs = 5_000;
export const successesToClose = 3;

/** How many calls a half-open breaker lets through at a time: 1, then twice as many with every success, at most once a second. */
export function widthAt(successes: number, sinceFirstMs: number): number {
  return successes === 0 ? 1 : 2 ** Math.min(successes, 1 + Math.floor(sinceFirstMs / 1_000));
}

/** A call that is let through to a half-open breaker and has not settled so long after its deadline never will. */
export const overdueMs = 250;

/** Calls of the last 10 s, and how many of them were slow. */
export interface Tally {
  add(nowMs: number, isSlow: boolean): void;
  readonly isMostlySlow: boolean;
  clear(): void;
}

export function createTally(): Tally {
  const calls = createWindowCount();
  const slow = createWindowCount();
  return {
    add(nowMs, isSlow) {
      calls.add(nowMs, 1);
      slow.add(nowMs, isSlow ? 1 : 0);
    },
    get isMostlySlow() {
      return calls.total >= volumeMin && slow.total >= calls.total * slowShare;
    },
    clear() {
      calls.clear();
      slow.clear();
    },
  };
}
