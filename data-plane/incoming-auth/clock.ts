// Time, as an argument: one clock for what tokens say, one for how long we have known something.

export interface Clock {
  /** Milliseconds since 1970. May jump. */
  nowMs(): number;
  /** Milliseconds since some start. Never goes back. */
  elapsedMs(): number;
}

export const systemClock: Clock = { nowMs: () => Date.now(), elapsedMs: () => performance.now() };
