// What became of the calls to one backend: plain numbers that a call adds to and that are read when somebody asks.

/** Upper bounds of the buckets of durations, seconds; those of OpenTelemetry's `http.server.request.duration`, and what a person may take. */
export const durationBounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 600] as const;

export interface CallMeter {
  /** `outcome`: `success`, or the code of the failure. */
  note(outcome: string, tookMs: number): void;
  read(): CallCounts;
}

/** All of them only grow. */
export interface CallCounts {
  readonly outcomes: ReadonlyMap<string, number>;
  /** By bound, each without those before it; the last is for what took longer than all bounds. */
  readonly durations: readonly number[];
  readonly seconds: number;
}

export function createCallMeter(): CallMeter {
  const outcomes = new Map<string, number>();
  const durations = new Array<number>(durationBounds.length + 1).fill(0);
  let milliseconds = 0;
  return {
    note(outcome, tookMs) {
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      milliseconds += tookMs;
      const seconds = tookMs / 1_000;
      let bucket = 0;
      while (bucket < durationBounds.length && seconds > (durationBounds[bucket] as number)) bucket++;
      durations[bucket] = (durations[bucket] ?? 0) + 1;
    },
    read: () => ({ outcomes, durations, seconds: milliseconds / 1_000 }),
  };
}

/** Of several places of one backend. */
export function sumOf(all: readonly CallCounts[]): CallCounts {
  const outcomes = new Map<string, number>();
  for (const one of all) for (const [name, count] of one.outcomes) outcomes.set(name, (outcomes.get(name) ?? 0) + count);
  return {
    outcomes,
    durations: Array.from({ length: durationBounds.length + 1 }, (_, i) =>
      all.reduce((sum, { durations }) => sum + (durations[i] ?? 0), 0),
    ),
    seconds: all.reduce((sum, { seconds }) => sum + seconds, 0),
  };
}
