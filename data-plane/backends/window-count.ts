// How much there was of something in the last 10 s. Counts by the second, so that what it costs does not depend on how many there are.

/** Seconds that are looked back on, the one that has begun among them. */
export const windowSeconds = 10;

/** Times are milliseconds of a clock that never goes back. */
export interface WindowCount {
  add(nowMs: number, howMany: number): void;
  /** As of the last `add`. */
  readonly total: number;
  clear(): void;
}

export function createWindowCount(): WindowCount {
  const slots = new Float64Array(windowSeconds);
  let total = 0;
  let current = 0; // the second that is counted now

  function forget(seconds: number, now: number): void {
    for (let second = now - seconds + 1; second <= now; second++) {
      const slot = second % windowSeconds;
      total -= slots[slot] as number;
      slots[slot] = 0;
    }
    current = now;
  }

  return {
    add(nowMs, howMany) {
      const now = Math.floor(nowMs / 1_000);
      if (now > current) forget(Math.min(now - current, windowSeconds), now);
      const slot = current % windowSeconds;
      slots[slot] = (slots[slot] as number) + howMany;
      total += howMany;
    },
    get total() {
      return total;
    },
    clear() {
      slots.fill(0);
      total = 0;
    },
  };
}
