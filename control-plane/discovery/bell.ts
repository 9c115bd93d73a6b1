// Something may have changed: rung by many, heard by one.

export interface Bell {
  ring(): void;
  /** Resolves with true once it has been rung since the last time; with false after `ms`, or with the signal. */
  heard(ms: number, signal: AbortSignal): Promise<boolean>;
}

export function createBell(): Bell {
  let isRung = false;
  let wake: (() => void) | undefined;
  return {
    ring() {
      isRung = true;
      wake?.();
    },
    async heard(ms, signal) {
      if (!isRung && !signal.aborted) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, Math.max(0, ms));
          signal.addEventListener("abort", wakeUp, { once: true });
          wake = wakeUp;
          function wakeUp(): void {
            clearTimeout(timer);
            signal.removeEventListener("abort", wakeUp);
            resolve();
          }
        });
        wake = undefined;
      }
      const was = isRung;
      isRung = false;
      return was;
    },
  };
}
