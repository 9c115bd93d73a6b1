// What ends a call: its deadline, its client, its session. One timer and one signal for all of them.
import { BackendError } from "./errors.ts";

/**
 * As much of an AbortSignal as calls need. Real ones fit, but cost more than all else that is kept for a call, and outlive it for some
 * garbage collections; so limits have signals of their own, and `abortSignalOf` is for what takes nothing else.
 */
export interface CallSignal extends Pick<AbortSignal, "aborted" | "reason" | "throwIfAborted"> {
  addEventListener(type: "abort", listener: () => void, options: { readonly once: true }): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

export interface Limit {
  readonly signal: CallSignal;
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
  return new OwnLimit();
}

/** However much comes of a call, it ends so long after it began, milliseconds. */
const hardMs = 30 * 60_000;

/** Limit and signal in one, without a closure: there is one for each call. */
class OwnLimit implements Limit, CallSignal {
  aborted = false;
  reason: unknown = undefined;
  #listeners: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #lastMs: number | undefined;
  #lastReason: Error | undefined;
  #hardAtMs = 0; // of the monotonic clock

  get signal(): CallSignal {
    return this;
  }

  abort(reason: Error): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    const listeners = this.#listeners;
    this.#listeners = [];
    for (const listener of listeners) listener();
  }

  arm(ms: number, reason?: Error): void {
    if (this.#hardAtMs === 0) this.#hardAtMs = performance.now() + Math.max(ms, hardMs);
    this.#lastMs = ms;
    this.#lastReason = reason;
    this.#start(ms);
  }

  extend(): void {
    if (this.#lastMs !== undefined) this.#start(Math.min(this.#lastMs, this.#hardAtMs - performance.now()));
  }

  disarm(): void {
    clearTimeout(this.#timer);
    this.#lastMs = undefined; // what comes after the end extends nothing
  }

  #start(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(expire, ms, this, ms);
  }

  expire(ms: number): void {
    this.abort(this.#lastReason ?? timeout(ms));
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  addEventListener(_type: "abort", listener: () => void): void {
    if (!this.aborted) this.#listeners.push(listener);
  }

  removeEventListener(_type: "abort", listener: () => void): void {
    const at = this.#listeners.indexOf(listener);
    if (at >= 0) this.#listeners.splice(at, 1);
  }
}

const expire = (limit: OwnLimit, ms: number): void => limit.expire(ms);

function timeout(ms: number): BackendError {
  return new BackendError("timeout", "unknown", `no answer within ${ms / 1000} s`);
}

/** The same as a real one. */
export function abortSignalOf(signal: CallSignal): AbortSignal {
  if (signal instanceof AbortSignal) return signal;
  const controller = new AbortController();
  const abort = (): void => controller.abort(signal.reason);
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  return controller.signal;
}

/**
 * Runs work until the limit's signal fires; then it is not waited for any longer. Disarms the limit at the end of the work, and calls
 * `onEnd`.
 */
export function withLimit<T>(limit: Limit, work: (signal: CallSignal) => Promise<T>, onEnd?: () => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const { signal } = limit;
    const abort = (): void => reject(signal.reason);
    const over = (): void => {
      limit.disarm();
      signal.removeEventListener("abort", abort);
      onEnd?.();
    };
    if (signal.aborted) {
      over();
      return abort();
    }
    signal.addEventListener("abort", abort, { once: true });
    work(signal).then(
      (value) => {
        over();
        resolve(value);
      },
      (error) => {
        over();
        reject(error);
      },
    );
  });
}

/** Runs work for at most `ms`. */
export function withDeadline<T>(ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const limit = createLimit();
  limit.arm(ms);
  return withLimit(limit, (signal) => work(abortSignalOf(signal)));
}

/** Waits for a promise no longer than until the signal fires. */
export function untilAborted<T>(promise: Promise<T>, signal: CallSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
