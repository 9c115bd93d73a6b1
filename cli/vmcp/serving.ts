// What `serve` and `proxy` share: the options of a listening proxy, and its start.
import { type DataPlane, type DataPlaneOptions, startDataPlane } from "../../data-plane/index.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";

export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  /** Milliseconds. */
  readonly sessionTtl: number;
  readonly allowedHost: readonly string[];
  readonly allowedOrigin: readonly string[];
  readonly bodyLimit: number;
  readonly legacySse: boolean;
}

/** Starts a proxy; throws ExitError when it can't listen. */
export async function startProxy(
  { host, port, sessionTtl, allowedHost, allowedOrigin, bodyLimit, legacySse }: ListenOptions,
  options: Pick<DataPlaneOptions, "controlPlanes" | "id" | "advertise" | "log" | "allowStdio" | "onLive" | "onRefused">,
): Promise<DataPlane> {
  // Nobody waits for it, so nobody is hurt but whoever it was for; all others need the process.
  process.on("unhandledRejection", (error) => options.log.error({ err: error }, "something failed that nobody waited for"));
  try {
    return await startDataPlane({
      ...options,
      host,
      port,
      sessionIdleMs: sessionTtl,
      allowedHosts: allowedHost,
      allowedOrigins: allowedOrigin,
      bodyBytesMax: bodyLimit,
      legacySse,
    });
  } catch (error) {
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
