// Bounds the calls that run at one time, so that a backend that hangs holds so many and no more.
import { BackendError } from "./errors.ts";

export interface Bulkhead {
  /** Takes a slot, to be left once; throws BackendError("shed") at once when all are taken. */
  enter(): Slot;
  /** Slots that are not free. */
  readonly taken: number;
  /** Settles when all slots are free. */
  idle(): Promise<void>;
}

/** The slot of one call. It is free again when everybody has left it: a call that nobody waits for any longer may still run. */
export interface Slot {
  /** Stays in it too, until another `leave`. */
  hold(): void;
  leave(): void;
}

/** All slots are free at first. */
export function createBulkhead(slots: number): Bulkhead {
  let taken = 0;
  let idle: PromiseWithResolvers<void> | undefined;

  function free(): void {
    if (--taken > 0) return;
    idle?.resolve();
    idle = undefined;
  }

  return {
    get taken() {
      return taken;
    },
    enter() {
      if (taken >= slots) throw new BackendError("shed", "not_executed", `${slots} calls are in flight already`);
      taken++;
      let holders = 1;
      return {
        hold() {
          holders++;
        },
        leave() {
          if (--holders === 0) free();
        },
      };
    },
    idle() {
      if (taken === 0) return Promise.resolve();
      idle ??= Promise.withResolvers();
      return idle.promise;
    },
  };
}
