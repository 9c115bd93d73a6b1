// The door of the data plane, and the only file that knows all its rooms.
import { randomBytes, randomUUID } from "node:crypto";
import { createServer, type Server } from "node:http";
import { type AddressInfo, isIP } from "node:net";
import { hostname } from "node:os";
import type { Log } from "../common/log.ts";
import { gateway } from "./backends/leg.ts";
import { createApp } from "./ingress/app.ts";
import { createOwnerForwarder } from "./ingress/forward-to-owner.ts";
import { createSseEndpoint } from "./ingress/sse-endpoint.ts";
import { createParkedCalls } from "./relay/parked-calls.ts";
import { createRelay } from "./relay/relay.ts";
import type { SnapshotRefusedError } from "./runtime.ts";
import { createCallerTokens } from "./session/caller-tokens.ts";
import { createCallers } from "./session/callers.ts";
import type { Session } from "./session/session.ts";
import { createSessionIds } from "./session/session-ids.ts";
import { createSessionStore } from "./session/store.ts";
import { createLive } from "./sync/apply.ts";
import { listLocalSessions } from "./sync/session-report.ts";
import { type Sync, startSync } from "./sync/stream.ts";

export type { SnapshotRefusedError } from "./runtime.ts";

export interface DataPlaneOptions {
  /** Addresses of control planes. */
  readonly controlPlanes: readonly string[];
  /** Name of this proxy, stable over restarts. Default: host name and port. */
  readonly id?: string;
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Where other replicas reach this one, `http://host:port`. Default: where it listens. */
  readonly advertise?: string;
  readonly log: Log;
  /** A session unused for so long is ended, milliseconds. Default 30 min. */
  readonly sessionIdleMs?: number;
  /** Largest request body, bytes. Default 1 MB. */
  readonly bodyBytesMax?: number;
  /** Host names clients may use, besides loopback names. */
  readonly allowedHosts?: readonly string[];
  /** Origins of web pages that may call, besides loopback ones. */
  readonly allowedOrigins?: readonly string[];
  /** Whether clients of the older HTTP+SSE transport are served, at `/sse`. Default true. */
  readonly legacySse?: boolean;
  /** Whether snapshots may start programs on this machine. Default false. */
  readonly allowStdio?: boolean;
  /** Hears of every snapshot that went live. */
  readonly onLive?: (version: string) => void;
  /** Hears of every snapshot that was refused; what was live stays live. */
  readonly onRefused?: (error: SnapshotRefusedError) => void;
}

export interface DataPlane extends AsyncDisposable {
  /** `http://host:port` */
  readonly address: string;
}

const sessionsMax = 10_000;
const connectionsMax = 10_000;
const drainMs = 10_000;
// A caller without sessions says no goodbye; what servers keep for it is kept as long as a person may take to ask again.
const callerIdleMs = 10 * 60_000;
const secretBytesMin = 32;

/** Listens at once, unready until the first snapshot is live. Rejects when the port is taken. */
export async function startDataPlane(options: DataPlaneOptions): Promise<DataPlane> {
  const { log } = options;
  const secret = sealingSecret();
  const self = { address: "", instance: randomUUID() };
  const ids = createSessionIds({ secret, self: () => self });
  const sessions = createSessionStore({ idleMs: options.sessionIdleMs ?? 30 * 60_000, sessionsMax, ids });
  const owners = createOwnerForwarder();
  let sync: Sync | undefined;
  const callers = createCallers({ idleMs: callerIdleMs, callersMax: sessionsMax, clientInfo: gateway.clientInfo });
  // What is said to sessions is said to callers without one too, as far as they listen.
  const everyone = {
    all: () => [...sessions.all(), ...callers.all()],
    end: (session: Session) => (session.era === "session" ? sessions : callers).end(session),
  };
  const relay = createRelay({ secret, sessions: everyone.all, log });
  const live = createLive({
    sessions: everyone,
    log,
    onMessage: relay.outside,
    allowStdio: options.allowStdio ?? false,
    onChange: () => sync?.reportSoon(),
  });
  const mcp = {
    ...{ sessions, callers, relay, owners, log },
    tokens: createCallerTokens(secret),
    parked: createParkedCalls({ log }),
    self: () => self,
    bodyBytesMax: options.bodyBytesMax ?? 1024 * 1024,
  };
  const sse = options.legacySse === false ? undefined : createSseEndpoint({ ...mcp, ids, streamsMax: sessionsMax });
  const app = createApp({
    ...mcp,
    runtime: () => live.runtime,
    sse,
    origin: {
      isLoopback: isLoopback(options.host),
      allowedHosts: [...(options.allowedHosts ?? []), ...hostNameOf(options.advertise)].map((host) => host.toLowerCase()),
      allowedOrigins: options.allowedOrigins ?? [],
    },
  });
  const server = createServer(serverLimits, app.callback());
  server.keepAliveTimeout = 65_000; // longer than load balancers keep idle connections
  server.maxConnections = connectionsMax;
  await listen(server, options);
  const { port } = server.address() as AddressInfo;
  const address = `http://${isIP(options.host) === 6 ? `[${options.host}]` : options.host}:${port}`;
  self.address = options.advertise ?? address;
  if (isWildcard(options.host) && options.advertise === undefined && process.env.VMCP_SESSION_HMAC_SECRET) {
    log.warn("other proxies can't pass requests on to this one: tell them where it is with --advertise");
  }
  log.info({ address }, "listening");

  sync = startSync({
    controlPlanes: options.controlPlanes,
    node: { id: options.id ?? `${hostname()}-${port}`, instanceId: self.instance, address: self.address },
    live,
    sessions,
    listSessions: async (filter) => listLocalSessions(sessions.all(), filter),
    log,
    onLive: (version) => options.onLive?.(version),
    onRefused: (error) => options.onRefused?.(error),
  });
  const syncing = sync;

  return {
    address,
    async [Symbol.asyncDispose]() {
      await drain(server, () => {
        for (const session of everyone.all()) session.stream?.end();
        sse?.end();
      });
      await syncing[Symbol.asyncDispose]();
      await sessions[Symbol.asyncDispose]();
      await callers[Symbol.asyncDispose]();
      await owners[Symbol.asyncDispose]();
      await live[Symbol.asyncDispose]();
    },
  };
}

/** What ids that travel through clients are sealed with: the operator's secret, or one that ends with this process. */
function sealingSecret(): Buffer {
  const secret = Buffer.from(process.env.VMCP_SESSION_HMAC_SECRET ?? "");
  if (secret.length > 0 && secret.length < secretBytesMin)
    throw new Error(`VMCP_SESSION_HMAC_SECRET has ${secret.length} bytes; it needs ${secretBytesMin}`);
  return secret.length > 0 ? secret : randomBytes(secretBytesMin);
}

// Node sweeps timeouts every 30 s by default, which would make 10 s mean 40.
const serverLimits = {
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  connectionsCheckingInterval: 1_000,
  maxHeaderSize: 16 * 1024,
};

function listen(server: Server, { host, port }: DataPlaneOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

/** Takes no new connections, ends streams, lets calls finish for a while. */
async function drain(server: Server, endStreams: () => void): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  endStreams();
  // A connection whose call has just ended is idle only then, so idle ones are closed again and again.
  const idle = setInterval(() => server.closeIdleConnections(), 50);
  const force = setTimeout(() => server.closeAllConnections(), drainMs);
  await closed;
  clearInterval(idle);
  clearTimeout(force);
}

/** The name other replicas call us by, so that their requests get in. */
function hostNameOf(address: string | undefined): string[] {
  const url = address === undefined ? null : URL.parse(address);
  return url ? [url.hostname] : [];
}

function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}
