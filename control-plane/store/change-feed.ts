// Wakes watchers after a commit. It carries no data: watchers read what they missed from the history, so none needs a queue.

export interface ChangeFeed {
  /** Everyone who waits goes on. */
  wake(): void;
  /** Resolves with the next `wake`, or when the signal aborts. Ask before reading the history, await after. */
  next(signal: AbortSignal): Promise<void>;
}

export function createChangeFeed(): ChangeFeed {
  let pending = Promise.withResolvers<void>();
  return {
    wake() {
      pending.resolve();
      pending = Promise.withResolvers();
    },
    async next(signal) {
      if (signal.aborted) return;
      const aborted = Promise.withResolvers<void>();
      const onAbort = () => aborted.resolve();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        await Promise.race([pending.promise, aborted.promise]);
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
}
