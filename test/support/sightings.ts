// Reads what a provider of workloads sees, in the background, as a supervisor would.
import type { Provider, Sighting, Workload } from "../../control-plane/discovery/provider.ts";
import { eventually } from "./eventually.ts";

export interface Watching extends AsyncDisposable {
  /** Oldest first. */
  readonly sightings: readonly Sighting[];
  /** `group/name → url`, with ` (down)` after what may not be called, of the last sighting; sorted. Undefined before the first. */
  seen(): readonly string[] | undefined;
  /** Waits until that is so. */
  sees(wanted: readonly string[], ms?: number): Promise<void>;
  /** Waits until the provider throws, and gives what. */
  failure(ms?: number): Promise<Error>;
  /** Aborts the signal and waits for the end. */
  stop(): Promise<void>;
}

/** Disposing stops it, and throws when the end is anything but silent. */
export function watch(provider: Provider): Watching {
  const controller = new AbortController();
  const sightings: Sighting[] = [];
  let failure: Error | undefined;
  const reading = (async () => {
    try {
      for await (const sighting of provider.watch(controller.signal)) sightings.push(sighting);
      if (!controller.signal.aborted) failure = new Error("ended without the signal");
    } catch (error) {
      failure = error as Error;
      if (controller.signal.aborted) throw new Error("threw because of the signal", { cause: error });
    }
  })();
  reading.catch(() => {}); // whoever stops it hears of it
  const watching: Watching = {
    sightings,
    seen: () => sightings.at(-1)?.workloads.map(line).sort(),
    async sees(wanted, ms) {
      const sorted = [...wanted].sort();
      await eventually(
        `the provider sees ${JSON.stringify(sorted)}`,
        () => {
          const seen = JSON.stringify(watching.seen());
          if (seen !== JSON.stringify(sorted)) throw new Error(failure ? `it threw: ${failure.message}` : `it sees ${seen}`);
          return true;
        },
        ms,
      );
    },
    failure: (ms) => eventually("the provider throws", () => failure, ms),
    async stop() {
      controller.abort();
      await reading;
    },
    [Symbol.asyncDispose]: () => watching.stop(),
  };
  return watching;
}

function line({ group, name, url, isRunning }: Workload): string {
  return `${group}/${name} → ${url}${isRunning ? "" : " (down)"}`;
}
