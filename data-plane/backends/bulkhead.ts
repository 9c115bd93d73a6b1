// Bounds the calls that run at one time, so that a backend that hangs holds so many and no more.
import { BackendError } from "./errors.ts";

export interface Bulkhead {
  /**
   * Runs the work in a slot of its own, or throws BackendError("shed") at once when all are taken. The slot is free again when the work
   * has ended and so has everything that it gave to `keep`: a call that nobody waits for any longer may still run.
   */
  run<T>(work: (keep: Keep) => Promise<T>): Promise<T>;
  /** Slots that are not free. */
  readonly taken: number;
  /** Settles when all slots are free. */
  idle(): Promise<void>;
}

/** Gives back what it is given. */
export type Keep = <T>(work: Promise<T>) => Promise<T>;

/** All slots are free at first. */
export function createBulkhead(slots: number): Bulkhead {
  let taken = 0;
  let idle: PromiseWithResolvers<void> | undefined;

  function leave(): void {
    if (--taken > 0) return;
    idle?.resolve();
    idle = undefined;
  }

  return {
    get taken() {
      return taken;
    },
    run(work) {
      if (taken >= slots) return Promise.reject(new BackendError("shed", "not_executed", `${slots} calls are in flight already`));
      taken++;
      let held = 0;
      const done = (): void => {
        if (--held === 0) leave();
      };
      const keep: Keep = (part) => {
        held++;
        part.then(done, done);
        return part;
      };
      return keep(work(keep));
    },
    idle() {
      if (taken === 0) return Promise.resolve();
      idle ??= Promise.withResolvers();
      return idle.promise;
    },
  };
}
