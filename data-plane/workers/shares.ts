// What is said of a whole proxy, and what of it each of its workers gets.
import { totalmem } from "node:os";
import type { ServingOptions } from "../serving.ts";
import type { WorkerOptions } from "./protocol.ts";

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

interface Whole extends ServingOptions {
  readonly workers: number;
  readonly allowStdio?: boolean;
}

/** Of one worker. `port`: where all of them listen. */
export function optionsOf(options: Whole, one: Pick<WorkerOptions, "worker" | "port" | "secret">): WorkerOptions {
  const { host, advertise, session, workers, allowStdio = false } = options;
  // Without Redis only the other workers have to reach one of them.
  const own = session?.redis === undefined ? { host: "127.0.0.1" } : { host, ...(advertise !== undefined && { advertise }) };
  return { ...copiedTo(options), ...shareOf(options, workers), host, own: { ...own, port: 0 }, allowStdio, ...one };
}

/** What of the options every worker follows; what else is there concerns this process, or can't be copied to another. */
function copiedTo(options: ServingOptions): Omit<WorkerOptions, "host" | "port" | "worker" | "secret" | "allowStdio"> {
  const { advertise, publicUrl, bodyBytesMax, allowedHosts, allowedOrigins } = options;
  const { legacySse, connectionsPerAddress, session, drain } = options;
  const all = {
    advertise,
    publicUrl,
    bodyBytesMax,
    allowedHosts,
    allowedOrigins,
    legacySse,
    connectionsPerAddress,
    session,
    drain,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}
