// How soon something may be done again that others ask for: at once when they are quiet, less and less often when they are not.

export interface Pace {
  /** Milliseconds until it may be done; 0 when now. Called when it is asked for. */
  waitMs(nowMs: number): number;
  /** It was done. */
  done(nowMs: number): void;
}

/**
 * At most once per gap, which is `firstMs` at first, doubles up to `mostMs` each time it is asked for within the gap, and is
 * `firstMs` again once nobody asked for a whole gap.
 */
export function createPace({ firstMs, mostMs }: { readonly firstMs: number; readonly mostMs: number }): Pace {
  let gapMs = firstMs;
  let doneMs = Number.NEGATIVE_INFINITY;
  let isPressed = false;
  return {
    waitMs(nowMs) {
      const wait = Math.max(0, doneMs + gapMs - nowMs);
      isPressed = wait > 0;
      return wait;
    },
    done(nowMs) {
      gapMs = isPressed ? Math.min(gapMs * 2, mostMs) : firstMs;
      isPressed = false;
      doneMs = nowMs;
    },
  };
}
