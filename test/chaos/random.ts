// Random choices that can be made again: the same seed, the same choices.

export interface Random {
  readonly seed: number;
  /** 0 ≤ n < bound. */
  below(bound: number): number;
  chance(part: number): boolean;
}

/** Mulberry32, which is good enough for choosing. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { seed, below: (bound) => Math.floor(next() * bound), chance: (part) => next() < part };
}
