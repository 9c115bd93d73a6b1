// What ends a call: its deadline, its client, its session. One timer and one signal for all of them.
import { BackendError } from "./errors.ts";

export interface Limit {
  readonly signal: AbortSignal;
  /** Ends the call now. */
  abort(reason: Error): void;
  /** Puts the deadline `ms` from now, instead of where it was; `reason` is why the call ends then, by default a timeout. */
  arm(ms: number, reason?: Error): void;
  /** Something came of it: the deadline is as far away again as it was set last, but at most half an hour after the first. */
  extend(): void;
  /** The call is over: no timer is left. */
  disarm(): void;
}

/** A limit without a deadline yet. */
export function createLimit(): Limit {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  let last: { readonly ms: number; readonly reason: Error | undefined } | undefined;
  let hardAtMs: number | undefined; // of the monotonic clock

  function start(ms: number, reason: Error | undefined): void {
    clearTimeout(timer);
    timer = setTimeout(() => controller.abort(reason ?? timeout(ms)), ms);
  }

  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    arm(ms, reason) {
      last = { ms, reason };
      hardAtMs ??= performance.now() + Math.max(ms, hardMs);
      start(ms, reason);
    },
    extend() {
      if (!last || hardAtMs === undefined) return;
      start(Math.min(last.ms, hardAtMs - performance.now()), last.reason);
    },
    disarm() {
      clearTimeout(timer);
      last = undefined; // what comes after the end extends nothing
    },
  };
}

/** However much comes of a call, it ends so long after it began, milliseconds. */
const hardMs = 30 * 60_000;

function timeout(ms: number): BackendError {
  return new BackendError("timeout", "unknown", `no answer within ${ms / 1000} s`);
}

/** Runs work until the limit's signal fires; then it is not waited for any longer. Disarms the limit at the end. */
export function withLimit<T>(limit: Limit, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const { signal } = limit;
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    work(signal)
      .then(resolve, reject)
      .finally(() => {
        limit.disarm();
        signal.removeEventListener("abort", abort);
      });
  });
}

/** Runs work for at most `ms`. */
export function withDeadline<T>(ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const limit = createLimit();
  limit.arm(ms);
  return withLimit(limit, work);
}

/** Waits for a promise no longer than until the signal fires. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
