// Lets a few in at a time; the others wait in line.

/** Runs work as soon as fewer than `max` are running, first come first served. */
export function createTurnstile(max: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting = new Set<() => void>(); // in the order they came; taking the first of many is cheap
  let running = 0;
  return async (work) => {
    if (running >= max) await new Promise<void>((resolve) => void waiting.add(resolve));
    else running++;
    try {
      return await work();
    } finally {
      const next = waiting.values().next().value;
      if (next) {
        waiting.delete(next);
        next(); // it has this one's place
      } else running--;
    }
  };
}
