// One proxy's HTTP side: its sessions, its server, and how it stops. What it serves is given to it.
// Longer than most files here: what is opened here must be closed here, in the order that loses no call.
import { randomUUID } from "node:crypto";
import type { Log } from "../common/log.ts";
import { BackendError } from "./backends/errors.ts";
import { gateway } from "./backends/leg.ts";
import { createApp } from "./ingress/app.ts";
import { limitConnections } from "./ingress/connections.ts";
import { createOwnerForwarder } from "./ingress/forward-to-owner.ts";
import { type DrainOptions, listen, openServer, type Place, stopServers } from "./ingress/http-server.ts";
import { metrics } from "./ingress/metrics.ts";
import { type ConfigFacts, configStatus, type OwnStatus, type Pages, status } from "./ingress/probes.ts";
import { keptForStreams } from "./ingress/session-streams.ts";
import { createSseEndpoint } from "./ingress/sse-endpoint.ts";
import { callerHash } from "./ingress/tapped.ts";
import type { Keys } from "./mcp/seal.ts";
import type { Self } from "./methods/call.ts";
import { tellSignedIn } from "./methods/sign-in.ts";
import type { Credentials } from "./outgoing-auth/registry.ts";
import { createSignInFlow } from "./outgoing-auth/sign-in-flow.ts";
import { createSignInSeals, type Ticket } from "./outgoing-auth/sign-in-seals.ts";
import { createConnectionBound } from "./overload/connections.ts";
import type { LimitReport } from "./overload/limit-report.ts";
import { createOverload, type OverloadOptions } from "./overload/overload.ts";
import { readRedisAddress } from "./redis/address.ts";
import { createParkedCalls } from "./relay/parked-calls.ts";
import { createRelay, type Relay } from "./relay/relay.ts";
import type { Runtime } from "./runtime.ts";
import { createBinder } from "./session/binding.ts";
import { createCallerTokens } from "./session/caller-tokens.ts";
import { createCallers } from "./session/callers.ts";
import { isAsked, type ListedSession, listedAs, type SessionFilter } from "./session/listing.ts";
import { createLocalSessions } from "./session/local-sessions.ts";
import { createMemoryStore } from "./session/memory-store.ts";
import type { Epoch } from "./session/record.ts";
import type { RecordStore } from "./session/record-store.ts";
import type { RedisStoreOptions } from "./session/redis-store.ts";
import { isRevoked } from "./session/revocations.ts";
import type { Session } from "./session/session.ts";
import { createSessions, type Sessions } from "./session/sessions.ts";
import { createStreamIds } from "./session/stream-ids.ts";
import { type Family, textOf } from "./telemetry/exposition.ts";
import { createTap, type OpenTap } from "./telemetry/tap.ts";

export interface ServingOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Where other replicas reach this one, `http://host:port`. Default: where it listens. */
  readonly advertise?: string;
  readonly log: Log;
  /** Where clients reach the proxies, `https://host[:port]`. Default: where each client says that it is. */
  readonly publicUrl?: string | undefined;
  /** Largest request body, bytes. Default 1 MB. */
  readonly bodyBytesMax?: number;
  /** Host names clients may use, besides loopback names. */
  readonly allowedHosts?: readonly string[];
  /** Origins of web pages that may call, besides loopback ones. */
  readonly allowedOrigins?: readonly string[];
  /** Whether clients of the older HTTP+SSE transport are served, at `/sse`. Default true. */
  readonly legacySse?: boolean;
  /**
   * Connections that one address may have open. Default: as many as there may be in all, since behind a load balancer every
   * client comes from its address; set it where clients connect by themselves.
   */
  readonly connectionsPerAddress?: number;
  readonly session?: SessionOptions;
  readonly drain?: DrainOptions;
  /**
   * Set where several processes share `host` and `port`: where just this one listens too, so that what only it can serve reaches
   * it. `port` is then listened on by `join`.
   */
  readonly own?: Place & { readonly advertise?: string };
  readonly overload?: OverloadOptions;
  /** Connections at a time. Default 20,000: a session may have a stream and a call. */
  readonly connectionsMax?: number | undefined;
}

/** How sessions are kept. */
export interface SessionOptions {
  /** A session unused for so long ends, milliseconds. Default 30 min. */
  readonly idleMs?: number;
  /** A session ends so long after it was opened, milliseconds. Default 8 h. */
  readonly absoluteMs?: number;
  /** Sessions of one caller with a name. Default 32. */
  readonly perCallerMax?: number;
  /** Whether sessions outlive the refresh of a caller's token. Default "identity", which does. */
  readonly binding?: "identity" | "token";
  /** What becomes of a session that another caller shows. Default "terminate". */
  readonly onMismatch?: "terminate" | "reject";
  /** Where sessions are kept, so that every replica can serve them; see readRedisAddress. Default: the memory of this process. */
  readonly redis?: string;
  /** Before every key there. Default `vmcp:`. */
  readonly redisPrefix?: string;
}

export interface Serving extends AsyncDisposable {
  /** `http://host:port` */
  readonly address: string;
  readonly self: Self;
  readonly sessions: Sessions;
  readonly relay: Relay;
  /** All that stands for sessions, of clients of every kind. */
  readonly everyone: { all(): Iterable<Session>; end(session: Session): void };
  /** What operators see of sessions. Throws StoreUnavailableError. */
  list(filter: SessionFilter): Promise<{ readonly sessions: readonly ListedSession[]; readonly isShared: boolean }>;
  /** Whether there is time for what can wait; see pressureLevels. */
  mayRefresh(): boolean;
  /** Ends sessions that are revoked: call it when what is revoked has changed. */
  endRevoked(): void;
  /** Listens where several processes do, and gives `http://host:port`; only with `own`. Rejects when the port is taken. */
  join(): Promise<string>;
  /** What this process says of itself. */
  readonly pages: { status(): OwnStatus; metrics(): readonly Family[] };
  /** Tells of calls while somebody asks. */
  readonly openTap: OpenTap;
  /** Takes no new work, in that whoever sends here is told to send elsewhere, or takes it again. */
  setDrained(isWanted: boolean): void;
  /** Calls and streams that are left while it takes no new work; undefined while it does. */
  workLeft(): number | undefined;
  /** Stops taking requests, lets calls finish; returns within `delayMs` + `callsMs` + 2 s. */
  drain(): Promise<void>;
}

/** What is served, and what of it concerns sessions. */
export interface Served {
  readonly keys: Keys;
  readonly runtime: () => Runtime;
  /** Where it comes from; undefined before anything has been tried. Default: nobody knows. */
  readonly config?: () => ConfigFacts | undefined;
  /** Where users sign in, and what for. */
  readonly credentials: Pick<Credentials, "signIns" | "userTokens">;
  /** Where sessions are kept when not in Redis. Default: the memory of this process. */
  readonly openRecords?: ((needs: Pick<StoreNeeds, "onEvent">) => RecordStore) | undefined;
  /** What is shown where this process is one of several that serve as one. Default: what it says of itself. */
  readonly pages?: Pages | undefined;
}

const sessionsMax = 10_000;
const connectionsMaxDefault = 20_000;
// A caller without sessions says no goodbye; what servers keep for it is kept as long as a person may take to ask again.
const callerIdleMs = 10 * 60_000;

/** Listens at once (see `own`), unready until there is something to serve. Rejects when the port is taken, or the options can't be followed. */
export async function startServing(
  options: ServingOptions,
  { keys, runtime, config = () => undefined, credentials, openRecords = () => createMemoryStore(), pages }: Served,
): Promise<Serving> {
  const { log, session = {} } = options;
  const instance = randomUUID();
  const self = { address: "", instance, replica: instance.slice(0, 8) };
  const hearing: StoreNeeds = { keys, replica: self.replica, log, onEvent: (event) => sessions.hear(event) };
  const store = session.redis === undefined ? openRecords(hearing) : await openRedis(session.redis, session.redisPrefix, hearing);
  const idleMs = session.idleMs ?? 30 * 60_000;
  const epoch = (): Epoch => ({ revision: runtime().revision, storeUid: runtime().storeUid });
  const sessions = createSessions({
    ...{ store, keys, idleMs, sessionsMax, log },
    ...(session.absoluteMs === undefined ? {} : { absoluteMs: session.absoluteMs }),
    ...(session.perCallerMax === undefined ? {} : { perCallerMax: session.perCallerMax }),
    binder: createBinder({ keys, mode: session.binding ?? "identity" }),
    endsOnMismatch: session.onMismatch !== "reject",
    epoch,
    isRevoked: (one) => isRevoked(one, runtime()),
    onTaken: (taken) => runtime().virtualServers.get(taken.virtualServer)?.join(taken),
  });
  const streamSessions = createLocalSessions({ idleMs, sessionsMax });
  const callers = createCallers({ idleMs: callerIdleMs, callersMax: sessionsMax, clientInfo: gateway.clientInfo });
  const owners = createOwnerForwarder();
  const everyone = {
    all: () => [...sessions.all(), ...streamSessions.all(), ...callers.all()],
    end(one: Session): void {
      if (one.era === "stateless") callers.end(one);
      else if (streamSessions.find(one.id, one.virtualServer)) streamSessions.end(one);
      else sessions.end(one).catch((error) => log.warn({ reason: (error as Error).message }, "a session did not end everywhere"));
    },
  };
  const relay = createRelay({ keys, sessions: everyone.all, address: () => self.address, log });
  const connections = createConnectionBound(options.connectionsMax ?? connectionsMaxDefault);
  const overload = createOverload(options.overload ?? {}, { log, connections });
  const tap = createTap();
  const shared = {
    ...{ relay, owners, overload, log },
    tap: Object.assign(tap, { identityOf: callerHash(keys) }),
    tokens: createCallerTokens(keys),
    bodyBytesMax: options.bodyBytesMax ?? 1024 * 1024,
    publicUrl: options.publicUrl,
  };
  const ids = createStreamIds({ keys, self: () => self });
  const sse =
    options.legacySse === false
      ? undefined
      : createSseEndpoint({ ...shared, ids, sessions: streamSessions, streamsMax: sessionsMax });
  const flow = createSignInFlow({
    seals: createSignInSeals({ keys, nowMs: Date.now }),
    store: credentials.userTokens,
    find(ticket: Ticket) {
      const signIn = credentials.signIns.find(ticket);
      const served = runtime().virtualServers.get(ticket.virtualServer)?.backends;
      return signIn && served?.has(signIn.place.backend) ? signIn : undefined;
    },
    onSignedIn: (ticket) => tellSignedIn(everyone.all(), ticket, ticket.elicitationId),
    log,
  });
  const limits = (): LimitReport[] => [
    ...overload.limits(),
    inHand("sessions", sessions.size),
    inHand("stream_sessions", streamSessions.size),
    inHand("stateless_callers", callers.size),
    keptForStreams(),
  ];
  const own = {
    status: () => ({ ...status(runtime()), pressure: overload.pressure.level, limits: limits() }),
    metrics: () => metrics({ runtime: runtime(), limits: limits(), pressure: overload.pressure.level }),
  };
  let isDraining = false;
  let isDrained = false;
  let obeyed = epoch(); // all that is connected was opened before
  const app = createApp({
    ...{ ...shared, sessions, callers, runtime, sse, flow },
    pages: pages ?? {
      status: () => ({ ...own.status(), config: configStatus(config()) }),
      metrics: () => textOf(own.metrics()),
    },
    parked: createParkedCalls({ log }),
    self: () => self,
    addressOf: store.addressOf,
    leaving: () => (isDraining ? "stopping" : isDrained ? "draining" : undefined),
    origin: {
      isLoopback: isLoopback(options.host),
      allowedHosts: [...(options.allowedHosts ?? []), ...[options.advertise, options.publicUrl].flatMap(hostNameOf)].map((host) =>
        host.toLowerCase(),
      ),
      allowedOrigins: options.allowedOrigins ?? [],
    },
  });
  const server = openServer(app, log);
  limitConnections(server, {
    max: options.connectionsMax ?? connectionsMaxDefault,
    perAddressMax: options.connectionsPerAddress,
    log,
  });
  connections.bind(server);
  const ownServer = options.own && openServer(app, log);
  const address = ownServer ? await listen(ownServer, options.own as Place, true) : await listen(server, options);
  self.address = (ownServer ? ownAddress(options.own?.advertise, address) : options.advertise) ?? address;
  if (isWildcard(options.host) && options.advertise === undefined && store.isShared)
    log.warn("other proxies can't pass requests on to this one: tell them where it is with --advertise");
  store.announce(self.replica, self.address);

  function endStreams(): void {
    for (const one of everyone.all()) one.stream?.end();
    sse?.end();
  }

  async function drain(): Promise<void> {
    if (isDraining) return;
    isDraining = true;
    await store.withdraw(self.replica).catch(() => undefined); // streams are gone on with elsewhere
    await stopServers(ownServer ? [server, ownServer] : [server], options.drain ?? {}, {
      endStreams,
      endCalls() {
        const reason = new BackendError("unavailable", "unknown", "the proxy is stopping");
        for (const one of everyone.all()) for (const call of one.calls.values()) call.abort(reason);
      },
    });
  }

  return {
    address,
    self,
    sessions,
    relay,
    everyone,
    async list(filter) {
      const onStreams = [...streamSessions.all()].map(streamListed).filter((one) => isAsked(one, filter));
      return { sessions: [...(await sessions.list(filter)), ...onStreams], isShared: store.isShared };
    },
    mayRefresh: () => !overload.isClosedTo("streams"),
    endRevoked() {
      sessions.endRevoked();
      for (const one of [...streamSessions.all()])
        if (isRevoked({ ...one, ...one.identity, epoch: obeyed }, runtime())) streamSessions.end(one);
      obeyed = epoch();
    },
    join: () => listen(server, options),
    pages: own,
    openTap: tap.open,
    setDrained(isWanted) {
      if (isWanted && !isDrained) endStreams();
      isDrained = isWanted;
    },
    workLeft() {
      if (!isDrained) return undefined;
      return [...everyone.all()].reduce((sum, { calls, stream }) => sum + calls.size + (stream ? 1 : 0), 0);
    },
    drain,
    async [Symbol.asyncDispose]() {
      await drain();
      await sessions[Symbol.asyncDispose]();
      await streamSessions[Symbol.asyncDispose]();
      await callers[Symbol.asyncDispose]();
      await owners[Symbol.asyncDispose]();
      overload[Symbol.dispose]();
      tap[Symbol.dispose]();
    },
  };
}

function inHand(name: string, used: number): LimitReport {
  return { name, used, limit: sessionsMax };
}

/** A session of the older transport, as operators see it. */
function streamListed(session: Session): ListedSession {
  const { key, virtualServer, identity, clientInfo, protocolVersion } = session;
  const facts = { key, virtualServer, ...identity, clientInfo, protocolVersion, createTimeMs: undefined };
  return { lastUseTimeMs: 0, ...facts, ...listedAs(session) };
}

type StoreNeeds = Pick<RedisStoreOptions, "keys" | "replica" | "log" | "onEvent">;

async function openRedis(url: string, prefix: string | undefined, needs: StoreNeeds): Promise<RecordStore> {
  const address = readRedisAddress(url, process.env);
  const { createRedisStore } = await import("./session/redis-store.ts"); // nobody else pays for the client
  const caFile = process.env.VMCP_REDIS_CA_FILE;
  return createRedisStore({ ...needs, address, caFile, ...(prefix === undefined ? {} : { prefix }) });
}

/** The name other replicas call us by, so that their requests get in. */
function hostNameOf(address: string | undefined): string[] {
  const url = address === undefined ? null : URL.parse(address);
  return url ? [url.hostname] : [];
}

/** Where the others reach just this process, when somebody says how they reach the machine. */
function ownAddress(advertise: string | undefined, address: string): string | undefined {
  return advertise === undefined ? undefined : `http://${new URL(advertise).hostname}:${new URL(address).port}`;
}

function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

/** Whether only this machine reaches an address that is listened on. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}
