// What `serve` and `proxy` share: the options of a listening proxy, and its start.
import {
  type DataPlane,
  type DataPlaneOptions,
  IdentityError,
  KeyRingError,
  RedisAddressError,
  startDataPlane,
} from "../../data-plane/index.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";

export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  readonly publicUrl?: string;
  /** Durations are in milliseconds. */
  readonly sessionTtl: number;
  readonly sessionMaxAge: number;
  readonly sessionsPerCaller: number;
  readonly sessionBinding: "identity" | "token";
  readonly onSessionMismatch: "terminate" | "reject";
  readonly redis?: string;
  readonly redisPrefix?: string;
  readonly drainTimeout: number;
  readonly drainDelay?: number;
  readonly allowedHost: readonly string[];
  readonly allowedOrigin: readonly string[];
  readonly connectionsPerAddress?: number;
  readonly bodyLimit: number;
  readonly maxInFlight: number;
  readonly maxStreams: number;
  readonly maxConnections: number;
  /** Bytes. */
  readonly memoryLimit?: number;
  readonly legacySse: boolean;
}

/** Starts a proxy; throws ExitError when it can't listen, or its secrets are not good. */
export async function startProxy(
  chosen: ListenOptions,
  options: Pick<
    DataPlaneOptions,
    | "controlPlanes"
    | "link"
    | "workers"
    | "id"
    | "advertise"
    | "stateDirectory"
    | "bootstrapSnapshot"
    | "log"
    | "allowStdio"
    | "onLive"
    | "onRefused"
  >,
): Promise<DataPlane> {
  const { host, port } = chosen;
  // Nobody waits for it, so nobody is hurt but whoever it was for; all others need the process.
  process.on("unhandledRejection", (error) => options.log.error({ err: error }, "something failed that nobody waited for"));
  try {
    return await startDataPlane({
      ...options,
      host,
      port,
      publicUrl: chosen.publicUrl,
      allowedHosts: chosen.allowedHost,
      allowedOrigins: chosen.allowedOrigin,
      ...(chosen.connectionsPerAddress === undefined ? {} : { connectionsPerAddress: chosen.connectionsPerAddress }),
      bodyBytesMax: chosen.bodyLimit,
      legacySse: chosen.legacySse,
      connectionsMax: chosen.maxConnections,
      overload: { inFlightMax: chosen.maxInFlight, streamsMax: chosen.maxStreams, memoryBytesMax: chosen.memoryLimit },
      session: {
        idleMs: chosen.sessionTtl,
        absoluteMs: chosen.sessionMaxAge,
        perCallerMax: chosen.sessionsPerCaller,
        binding: chosen.sessionBinding,
        onMismatch: chosen.onSessionMismatch,
        ...(chosen.redis === undefined ? {} : { redis: chosen.redis, redisPrefix: chosen.redisPrefix ?? "vmcp:" }),
      },
      drain: { callsMs: chosen.drainTimeout, delayMs: chosen.drainDelay ?? 0 },
    });
  } catch (error) {
    if (error instanceof KeyRingError || error instanceof RedisAddressError || error instanceof IdentityError)
      throw new ExitError(exitCodes.badInput, error.message);
    throw new ExitError(exitCodes.failure, listenProblem(error as NodeJS.ErrnoException, host, port));
  }
}

function listenProblem(error: NodeJS.ErrnoException, host: string, port: number): string {
  if (error.code === "EADDRINUSE") return `port ${port} on ${host} is taken; stop what uses it, or choose another with --port`;
  if (error.code === "EACCES") return `port ${port} on ${host} needs more rights; choose one above 1023 with --port`;
  if (error.code === "EADDRNOTAVAIL" || error.code === "ENOTFOUND")
    return `${host} is not an address of this machine; see --host`;
  return `can't listen on ${host}:${port}: ${error.message}`;
}
