// Where the gRPC server listens, and how it ends.
import { isIPv4 } from "node:net";
import { logVerbosity, type Server, ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import { ControlPlaneError } from "../errors.ts";

// Calls that are under way get this long; open streams were told to go before.
const shutDownMs = 2_000;

/** Resolves with `host:port` as bound. Throws ControlPlaneError for an address that is taken, malformed or not this machine's own. */
export async function listen(server: Server, wanted: string): Promise<string> {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^[\]:\s]+):(\d{1,5})$/.exec(wanted);
  const [, host = "", port = ""] = match ?? [];
  if (match === null || Number(port) > 65535) {
    throw new ControlPlaneError(
      "address_invalid",
      `"${wanted}" is not an address to listen on; wanted host:port, as 127.0.0.1:7400`,
    );
  }
  if (!isLoopback(host)) {
    const message = `refusing to listen on ${wanted}: the admin API is not encrypted, so it may only listen on this machine (127.0.0.1, [::1])`;
    throw new ControlPlaneError("address_not_loopback", message);
  }
  // What goes wrong reaches us as errors; grpc-js would write them to standard error a second time.
  if (process.env.GRPC_VERBOSITY === undefined) setLogVerbosity(logVerbosity.NONE);
  const bound = Promise.withResolvers<number>();
  server.bindAsync(wanted, ServerCredentials.createInsecure(), (error, at) => (error ? bound.reject(error) : bound.resolve(at)));
  try {
    return `${host}:${await bound.promise}`;
  } catch (error) {
    throw bindError(wanted, error);
  }
}

/** Lets calls end, then cuts them. grpc-js by itself waits for open streams for ever. */
export async function shutDown(server: Server): Promise<void> {
  const ended = Promise.withResolvers<void>();
  const timer = setTimeout(() => {
    server.forceShutdown();
    ended.resolve();
  }, shutDownMs);
  server.tryShutdown(() => ended.resolve());
  await ended.promise;
  clearTimeout(timer);
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || (isIPv4(host) && host.startsWith("127."));
}

function bindError(wanted: string, error: unknown): ControlPlaneError {
  const text = error instanceof Error ? error.message : String(error);
  if (text.includes("EADDRINUSE")) {
    return new ControlPlaneError("address_in_use", `${wanted} is taken by another process`, { cause: error });
  }
  return new ControlPlaneError("address_invalid", `can't listen on ${wanted}: ${text}`, { cause: error });
}
