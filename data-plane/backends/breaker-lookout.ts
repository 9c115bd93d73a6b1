// Looks after a backend that is left alone, so that it need not wait out its pause once it is back. A look is none of its calls: it
// can tell that a backend came back, not that its calls work.
import { asksForLess, outcomeOf } from "./breaker-rules.ts";
import { BackendError } from "./errors.ts";
import { withDeadline } from "./limit.ts";

export interface Lookout extends Disposable {
  /**
   * Looks while it is wanted. `isGone`: it was seen to be away, so that finding it there is news. A backend that answers us all the
   * time while its calls fail waits out its pauses.
   */
  start(isGone: boolean): void;
}

export interface LookoutOptions {
  /** Asks the backend something; rejects as calls do. */
  readonly look: (signal: AbortSignal) => Promise<void>;
  readonly isWanted: () => boolean;
  readonly onReturn: () => void;
  /** From 0 up to 1. */
  readonly random: () => number;
  /** Rejects when the signal fires. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<unknown>;
}

// Far enough apart for a server in trouble, close enough that it serves within 2 s of its return.
const everyMs = { least: 1_000, most: 1_500 };
const lookMs = 1_000;

/** Looks at nothing before it is started. */
export function createLookout({ look, isWanted, onReturn, random, sleep }: LookoutOptions): Lookout {
  const stop = new AbortController();
  let isRunning = false;
  let isGone = false;

  const pause = (): Promise<unknown> => sleep(everyMs.least + random() * (everyMs.most - everyMs.least), stop.signal);

  async function watch(): Promise<void> {
    isRunning = true;
    try {
      for (let next = pause(); ; ) {
        await next;
        if (!isWanted()) return;
        next = pause();
        next.catch(() => undefined); // it is waited for after the look
        const isThere = await withDeadline(lookMs, (signal) => look(AbortSignal.any([stop.signal, signal]))).then(
          () => true,
          isThereAfter,
        );
        if (isThere === undefined || stop.signal.aborted) return;
        const isBack = isThere && isGone;
        isGone = !isThere;
        if (isBack && isWanted()) onReturn();
      }
    } catch {
      // Stopped.
    } finally {
      isRunning = false;
    }
  }

  return {
    start(wasSeenGone) {
      isGone ||= wasSeenGone;
      if (isRunning || stop.signal.aborted) return;
      void watch();
    },
    [Symbol.dispose]: () => stop.abort(),
  };
}

/** Who refuses us is there; without a credential to show it was not asked. */
function isThereAfter(error: unknown): boolean | undefined {
  if (error instanceof BackendError && error.code === "no_credential") return undefined;
  return outcomeOf(error) !== "failure" && !asksForLess(error);
}
