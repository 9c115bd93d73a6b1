// What is wrong with single objects: said once, and again when it was mended and broke anew.
import type { Log } from "../../common/log.ts";

export interface Complaint {
  /** Object it is about. */
  readonly about: string;
  /** Fit for operators, without secrets. */
  readonly reason: string;
}

/** As a line of `Sighting.problems`. */
export function problemLine({ about, reason }: Complaint): string {
  return `${about} is left out: ${reason}`;
}

/** Gives a function that takes all complaints there are now, and logs those that were not there before. */
export function createComplaints(log: Log, message: string): (complaints: readonly Complaint[]) => void {
  let known = new Set<string>();
  return (complaints) => {
    const now = new Set<string>();
    for (const { about, reason } of complaints) {
      const key = `${about}\0${reason}`;
      now.add(key);
      if (!known.has(key)) log.warn({ workload: about, reason }, message);
    }
    known = now;
  };
}
