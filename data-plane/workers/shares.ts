// What is said of a whole proxy, and what of it each of its workers gets.
import { totalmem } from "node:os";
import type { ServingOptions } from "../serving.ts";

// What the process that leads them needs for itself.
const leaderBytes = 96 * 1024 * 1024;
const bytesMin = 64 * 1024 * 1024;

/** Limits that are not set stay those of each process. `containerBytes`: what this process and its children may have; 0: unknown. */
export function shareOf(
  { connectionsMax, overload }: Pick<ServingOptions, "connectionsMax" | "overload">,
  workers: number,
  containerBytes = process.constrainedMemory(),
): Pick<ServingOptions, "connectionsMax" | "overload"> {
  const part = (whole: number | undefined) => (whole === undefined ? undefined : Math.ceil(whole / workers));
  const contained = containerBytes > 0 && containerBytes <= totalmem() ? containerBytes : undefined;
  const memory = overload?.memoryBytesMax ?? contained;
  return {
    connectionsMax: part(connectionsMax),
    overload: {
      ...overload,
      inFlightMax: part(overload?.inFlightMax),
      streamsMax: part(overload?.streamsMax),
      streamQueueBytesMax: part(overload?.streamQueueBytesMax),
      memoryBytesMax: memory === undefined ? undefined : Math.max(bytesMin, Math.floor((memory - leaderBytes) / workers)),
    },
  };
}
