// Wakes those who follow something that changes. It carries no data: they read what they missed, so none needs a queue.

export interface ChangeFeed {
  /** Everyone who waits goes on. */
  wake(): void;
  /** Resolves with the next `wake`, or when the signal aborts. Ask before reading, await after, and no change is missed. */
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
