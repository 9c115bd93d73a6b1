// Waiting for something another process does: polled, because nothing tells us, and never longer than its deadline.
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Gives the first value of `probe` that is neither undefined nor false; a probe that throws counts as "not yet".
 * Throws with `what` and the last failure once `ms` (default 10,000) have passed.
 */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  ms = 10_000,
): Promise<T> {
  const deadline = performance.now() + ms;
  let failure: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
      failure = undefined;
    } catch (error) {
      failure = error;
    }
    if (performance.now() > deadline) {
      throw new Error(`not within ${ms} ms: ${what}${failure instanceof Error ? ` (${failure.message})` : ""}`, {
        cause: failure,
      });
    }
    await sleep(10);
  }
}
