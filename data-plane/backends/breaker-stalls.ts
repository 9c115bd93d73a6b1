// Notices when this process itself stood still: stopped, starved of its processor, or busy with something that did not let go.

export interface StallMeter {
  /** A call begins, and until its `end` stalls are noticed. */
  begin(): void;
  end(): void;
  /** Whether the event loop stood still for more than 250 ms at a time, some time after this; of a call that has not ended. */
  stalledSince(ms: number): boolean;
}

export interface StallMeterOptions {
  /** Milliseconds, of a clock that never goes back. */
  readonly nowMs: () => number;
}

const stallMs = 250;
const tickMs = 100;

/** Ticks while calls run, and stops soon after the last. */
export function createStallMeter({ nowMs }: StallMeterOptions): StallMeter {
  let running = 0;
  let timer: NodeJS.Timeout | undefined;
  let tickedMs = 0;
  let stalledMs = Number.NEGATIVE_INFINITY; // when the last stall ended

  /** Whoever asks may be sooner than the tick that is late. */
  function look(): void {
    const now = nowMs();
    if (now - tickedMs > tickMs + stallMs) stalledMs = now;
  }

  function tick(): void {
    look();
    tickedMs = nowMs();
    if (running > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  return {
    begin() {
      if (running++ > 0 || timer) return;
      tickedMs = nowMs();
      timer = setInterval(tick, tickMs).unref();
    },
    end() {
      running--;
    },
    stalledSince(ms) {
      look();
      return stalledMs >= ms;
    },
  };
}

/** Of this process. */
export const ownStalls = createStallMeter({ nowMs: () => performance.now() });
