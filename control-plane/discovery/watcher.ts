// Runs one provider for ever: what it sees is told, what goes wrong is told and tried again, later each time.
import type { Clock } from "../clock.ts";
import { type Provider, ProviderError, type Sighting } from "./provider.ts";

const backoffMs = { first: 1_000, most: 30_000 };

export interface WatcherOptions {
  readonly provider: Provider;
  readonly clock: Clock;
  /** From 0 to below 1. */
  readonly random: () => number;
  /** Throws when that is no sighting; the provider has failed then. */
  readonly onSighting: (sighting: Sighting) => void;
  readonly onFailure: (reason: string) => void;
}

export interface Watcher extends AsyncDisposable {
  /** Asks the provider for everything once more, now. */
  again(): void;
}

export function startWatcher({ provider, clock, random, onSighting, onFailure }: WatcherOptions): Watcher {
  let isStopped = false;
  let round = new AbortController();
  let failures = 0;

  async function run(): Promise<void> {
    while (!isStopped) {
      round = new AbortController();
      const { signal } = round;
      const reason = await follow(signal);
      if (signal.aborted) continue;
      failures += 1;
      onFailure(reason);
      const most = Math.min(backoffMs.most, backoffMs.first * 2 ** (failures - 1));
      await pause(most * (0.5 + random() / 2), signal);
    }
  }

  /** Gives the reason why it ended, one line. */
  async function follow(signal: AbortSignal): Promise<string> {
    let iterator: AsyncIterator<Sighting> | undefined;
    try {
      iterator = provider.watch(signal)[Symbol.asyncIterator]();
      for (;;) {
        const step = await unlessAborted(iterator.next(), signal);
        if (step === undefined) return "";
        if (step.done) return "the provider ended by itself";
        onSighting(step.value);
        failures = 0;
      }
    } catch (error) {
      return reasonOf(error);
    } finally {
      // One that hangs may never return; nobody waits for it.
      iterator?.return?.().catch(() => undefined);
    }
  }

  function pause(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = clock.after(ms, resolve);
    signal.addEventListener("abort", () => resolve(), { once: true });
    return promise.finally(cancel);
  }

  const running = run();
  return {
    again: () => round.abort(),
    async [Symbol.asyncDispose]() {
      isStopped = true;
      round.abort();
      await running;
    },
  };
}

/** Undefined when the signal aborts first, whatever becomes of the promise then. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  promise.catch(() => undefined);
  if (signal.aborted) return undefined;
  const aborted = Promise.withResolvers<undefined>();
  const onAbort = () => aborted.resolve(undefined);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return (error instanceof ProviderError ? text : `unexpected: ${text}`).replaceAll(/\s+/g, " ").slice(0, 300);
}
