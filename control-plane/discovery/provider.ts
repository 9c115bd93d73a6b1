// Where backends come from that nobody declared: something that knows which workloads run right now.
import type { Log } from "../../common/log.ts";

/** One MCP server that a provider sees, in one group. */
export interface Workload {
  /** Group it belongs to. */
  readonly group: string;
  /** Name within its group; several of one name and provider are instances of one backend. */
  readonly name: string;
  /** Where it listens, http or https, without fragment. */
  readonly url: string;
  readonly transport: "streamable-http" | "sse";
  /** Whether it may be called now; one that is not stays known, so that its tools do not come and go with every restart. */
  readonly isRunning: boolean;
  /** Labels, for operators; never sent to the server. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** What a provider sees, whole. */
export interface Sighting {
  readonly workloads: readonly Workload[];
  /** Groups that exist, also empty ones; undefined when the provider knows groups only by their workloads. */
  readonly groups?: readonly string[];
  /** What was seen and is no workload, and why: a line each, fit for operators. */
  readonly problems?: readonly string[];
}

export interface Provider {
  /** `toolhive`, `toolhive-files`, `docker`, `kubernetes` or `file`. */
  readonly name: string;
  /**
   * Yields everything that is seen now, at once and whenever it may have changed. Throws ProviderError when nothing can be seen;
   * whoever watches then waits and calls it again; so it does when it wants to see everything once more. Ends with the signal.
   */
  watch(signal: AbortSignal): AsyncIterable<Sighting>;
}

/** Why a provider sees nothing: fit for operators, without secrets. */
export class ProviderError extends Error {
  override name = "ProviderError";
}

export interface ProviderOptions {
  readonly log: Log;
  /** Milliseconds. Default: the monotonic clock. */
  readonly nowMs?: () => number;
}
