// Where the gRPC server listens, with what protection, and how it ends. Without certificates only this machine can reach it.
import { chmodSync, rmSync } from "node:fs";
import { isIPv4, connect as openSocket } from "node:net";
import { experimental, logVerbosity, type Server, ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import type { KeyPairSource } from "../../common/key-pair.ts";
import { ControlPlaneError } from "../errors.ts";
import type { Guard } from "./guard.ts";

// Calls that are under way get this long; open streams were told to go before.
const shutDownMs = 2_000;

export interface Protection {
  readonly guard: Guard;
  /** Undefined: plain text, to this machine. */
  readonly tls: { readonly keyPair: KeyPairSource /** Of clients, PEM. */; readonly authority: string } | undefined;
}

/** Where a listener is reached, and whether only from this machine and in plain text. */
export interface Listener {
  readonly address: string;
  readonly isLocal: boolean;
}

/**
 * Takes `host:port`, or `unix:/path`, which never needs certificates. Gives what was bound. Throws ControlPlaneError for an address that
 * is taken, malformed, not this machine's own, or would be reachable without protection.
 */
export async function listen(server: Server, wanted: string, { guard, tls }: Protection): Promise<Listener> {
  const { host, isUnix } = parse(wanted);
  const isLocal = isUnix || tls === undefined;
  if (isLocal && !isUnix && !isLoopback(host)) {
    const message =
      `refusing to listen on ${wanted} in plain text: give it certificates (--trust-dir DIR, or --ca-cert and --ca-key), ` +
      `or listen on this machine only (127.0.0.1, [::1], unix:/path)`;
    throw new ControlPlaneError("address_not_loopback", message);
  }
  // What goes wrong reaches us as errors; grpc-js would write them to standard error a second time.
  if (process.env.GRPC_VERBOSITY === undefined) setLogVerbosity(logVerbosity.NONE);
  if (isUnix) await removeDeadSocket(host);
  const base = isLocal || tls === undefined ? ServerCredentials.createInsecure() : reloading(tls);
  const credentials = experimental.createServerCredentialsWithInterceptors(base, [guard.interceptor(isLocal)]);
  const bound = Promise.withResolvers<number>();
  server.bindAsync(wanted, credentials, (error, at) => (error ? bound.reject(error) : bound.resolve(at)));
  try {
    const port = await bound.promise;
    if (isUnix) chmodSync(host, 0o600);
    return { address: isUnix ? wanted : `${host}:${port}`, isLocal };
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

function parse(wanted: string): { readonly host: string; readonly isUnix: boolean } {
  const path = /^unix:(\/[^\0]{1,100})$/.exec(wanted)?.[1];
  if (path !== undefined) return { host: path, isUnix: true };
  const [, host = "", port = ""] = /^(\[[0-9A-Fa-f:.]+\]|[^[\]:\s]+):(\d{1,5})$/.exec(wanted) ?? [];
  if (host === "" || Number(port) > 65535) {
    const message = `"${wanted}" is not an address to listen on; wanted host:port, as 127.0.0.1:7400, or unix:/path`;
    throw new ControlPlaneError("address_invalid", message);
  }
  return { host, isUnix: false };
}

/** Credentials whose certificate is replaced while streams live on. What comes without a certificate is left to the guard. */
function reloading({ keyPair, authority }: NonNullable<Protection["tls"]>): ServerCredentials {
  const identity = () => {
    const { certificate, key } = keyPair.current();
    return { certificate: Buffer.from(certificate), privateKey: Buffer.from(key) };
  };
  // One object for both, because grpc-js 1.14 names the two parameters the other way round than it uses them. It hears of what it
  // listens for only after it has registered with everybody, so the first word comes a moment later.
  type Provider = Parameters<typeof experimental.createCertificateProviderServerCredentials>[0];
  const provider: Provider = {
    addCaCertificateListener: (listener) => queueMicrotask(() => listener({ caCertificate: Buffer.from(authority) })),
    removeCaCertificateListener: () => undefined,
    addIdentityCertificateListener(listener) {
      queueMicrotask(() => listener(identity()));
      keyPair.onChange(() => listener(identity()));
    },
    removeIdentityCertificateListener: () => undefined,
  };
  return experimental.createCertificateProviderServerCredentials(provider, provider, false);
}

/** A socket that nobody listens on any more is in the way. */
async function removeDeadSocket(path: string): Promise<void> {
  const socket = openSocket(path);
  const isDead = await new Promise<boolean>((resolve) => {
    socket
      .once("connect", () => resolve(false))
      .once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
  socket.destroy();
  if (isDead) rmSync(path, { force: true });
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
