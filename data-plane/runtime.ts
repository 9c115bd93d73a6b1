// Everything one snapshot builds. A runtime is built aside and replaces the old one whole; what did not change between
// two snapshots (a backend with its connections, sessions and breaker) is carried over.
import { createHash } from "node:crypto";
import type { Log } from "../common/log.ts";
import type { Backend as BackendSpec } from "../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { Operational } from "../proto/gen/vmcp/resource/v1/operational_pb.ts";
import type { OutgoingAuthStrategy } from "../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import type { VirtualServer as VirtualServerSpec } from "../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { type Backend, type BackendOptions, createBackend } from "./backends/backend.ts";
import type { Duty } from "./backends/catalogs.ts";
import { createEndpoints, type Endpoint, type EndpointList, type Endpoints } from "./backends/endpoints.ts";
import { reasonOf } from "./backends/errors.ts";
import { breakerOf, healthOf } from "./backends/failure-handling.ts";
import type { SharedCatalog } from "./backends/shared-catalog.ts";
import type { Authenticator } from "./incoming-auth/authenticator.ts";
import type { Authenticators } from "./incoming-auth/registry.ts";
import { passingOn } from "./outgoing-auth/pass-through.ts";
import type { Credentials } from "./outgoing-auth/registry.ts";
import type { Revocation } from "./session/revocations.ts";
import { createVirtualServer, type VirtualServer } from "./virtual-server.ts";

/** What a snapshot says about sessions. It is obeyed even when the rest can't be put into force. */
export interface SessionTerms {
  /** Of the store; a session that is opened now remembers it. */
  readonly revision: number;
  /** Whose revision it is: revisions of two stores can't be compared. */
  readonly storeUid: string;
  /** In the order of their epochs. */
  readonly revocations: readonly Revocation[];
}

/** A snapshot, decoded: closed over its references. */
export interface SnapshotContent extends SessionTerms {
  readonly version: string;
  readonly virtualServers: readonly {
    readonly name: string;
    readonly spec: VirtualServerSpec;
    readonly backends: readonly string[];
    /** For each of the backends, how its catalog is called. */
    readonly catalogs: readonly string[];
  }[];
  /** By resource name; `key` changes with the content, except for where its places are. */
  readonly backends: ReadonlyMap<string, { readonly spec: BackendSpec; readonly key: string }>;
  /** Those that are known, by name. */
  readonly catalogs: ReadonlyMap<string, SharedCatalog>;
}

/** Something in a snapshot that can't be put into force here. */
export interface Violation {
  readonly resource: string;
  readonly field: string;
  readonly description: string;
}

/** Thrown with everything that is wrong, nothing started. */
export class SnapshotRefusedError extends Error {
  override name = "SnapshotRefusedError";
  readonly violations: readonly Violation[];
  constructor(violations: readonly Violation[]) {
    super(violations.map(({ resource, field, description }) => `${resource} ${field}: ${description}`).join("; "));
    this.violations = violations;
  }
}

export interface Runtime extends SessionTerms {
  readonly version: string;
  /** By name. */
  readonly virtualServers: ReadonlyMap<string, VirtualServer>;
  /** The backends with the names of their resources and catalogs. */
  readonly backends: readonly { readonly resource: string; readonly catalog: string; readonly backend: Backend }[];
  /** Settles when each backend was tried at one of the places that it will have. */
  readonly firstAttempts: Promise<unknown>;
  /** Where backends are from now on, and how they are looked at. Called once, when the runtime is put into force. */
  enter(): void;
  /** Ends what `next` does not carry on; all of it without. */
  release(next: Runtime | undefined): Promise<void>;
}

export interface RuntimeOptions {
  readonly log: Log;
  /** Who may call. */
  readonly incoming: Authenticators;
  /** What backends are shown. */
  readonly outgoing: Credentials;
  /** stdio backends start programs: only where the operator of the proxy's own machine said so. */
  readonly allowStdio: boolean;
  /** Hears what backends say outside of calls. */
  readonly onMessage: BackendOptions["onMessage"];
  /** Whether lists of backends may be refreshed now. Default: always. */
  readonly mayRefresh?: () => boolean;
  /** Who watches the backend with this catalog. Default: we. */
  readonly dutyOf?: (catalog: string) => Duty;
  /** Called after a backend's catalog or state changed. */
  readonly onBackendChange: () => void;
}

// A backend that a new snapshot leaves out may finish what it is doing.
const retireMs = 60_000;

export const emptyRuntime: Runtime = {
  version: "",
  revision: 0,
  storeUid: "",
  revocations: [],
  virtualServers: new Map(),
  backends: [],
  firstAttempts: Promise.resolve(),
  enter: () => undefined,
  release: async () => undefined,
};

/** The same runtime under other terms. */
export function withTerms(runtime: Runtime, { revision, storeUid, revocations }: SessionTerms): Runtime {
  const next: Runtime = { ...runtime, revision, storeUid, revocations };
  carriedBy.set(next, carriedBy.get(runtime) ?? new Map());
  return next;
}

/** Builds the runtime of a snapshot; throws SnapshotRefusedError. */
export function buildRuntime(content: SnapshotContent, previous: Runtime, options: RuntimeOptions): Runtime {
  const violations: Violation[] = [];
  const before = carriedBy.get(previous);
  const used = new Map<string, Carried>();
  const started: Backend[] = [];
  const virtualServers = new Map<string, VirtualServer>();

  function attemptTo<T>(resource: string, field: string, make: () => T): T | undefined {
    try {
      return make();
    } catch (error) {
      violations.push({ resource, field, description: reasonOf(error) });
      return undefined;
    }
  }

  function backendFor(resource: string, catalog: string, server: VirtualServerSpec): Backend {
    const declared = content.backends.get(resource);
    if (!declared) throw new Error("is named by a virtual server but not in the snapshot");
    const strategy = strategyOf(server, declared.spec.name);
    const passed = server.passthroughHeaders.join(",").toLowerCase();
    const shown = strategy ? jsonOf(isOfCallers(strategy) ? [strategy, server.name, server.incomingAuth] : strategy) : "";
    const key = `${resource} ${declared.key} ${passed} ${shown}`;
    const existing = used.get(key);
    if (existing) {
      used.set(key, { ...existing, operational: server.operational });
      return existing.endpoints.backend;
    }
    const known = before?.get(key);
    const start = (onMessage: BackendOptions["onMessage"]) =>
      placesOf(declared.spec).map(({ url, priority }): Endpoint => {
        const { place, legKey } = namesOf(key, { name: declared.spec.name, url });
        const kept = known?.next.find((one) => one.legKey === legKey);
        if (kept) return { ...kept, priority };
        const starting = { resource, catalog, spec: { ...declared.spec, url }, place, legKey, onMessage };
        return { legKey, priority, backend: startAt(starting, strategy, server) };
      }) as [Endpoint, ...Endpoint[]];
    const endpoints = known?.endpoints ?? createEndpoints(start, options.onMessage);
    const next = known ? start(endpoints.hear) : endpoints.places;
    used.set(key, { resource, catalog, endpoints, next, operational: server.operational });
    return endpoints.backend;
  }

  function startAt(
    { resource, catalog, spec, place, legKey, onMessage }: Starting,
    strategy: OutgoingAuthStrategy | undefined,
    server: VirtualServerSpec,
  ): Backend {
    const { name: virtualServer, incomingAuth } = server;
    const url = spec.url || undefined;
    const recipient = { resource, backend: spec.name, url, virtualServer, incomingAuth };
    const credential = passingOn(options.outgoing.of(strategy, recipient), url === undefined ? [] : server.passthroughHeaders);
    if (spec.transport === "stdio" && !options.allowStdio)
      throw new Error("stdio backends are not allowed on this proxy (see --allow-stdio)");
    const breaker = breakerOf(server.operational?.failureHandling?.circuitBreaker);
    const backend = createBackend({
      spec,
      place,
      legKey,
      credential,
      breaker,
      health: healthOf(server.operational?.failureHandling),
      shared: content.catalogs.get(catalog),
      ...(options.dutyOf ? { duty: options.dutyOf(catalog) } : {}),
      log: options.log,
      onMessage,
      ...(options.mayRefresh ? { mayRefresh: options.mayRefresh } : {}),
      onChange: options.onBackendChange,
    });
    started.push(backend);
    return backend;
  }

  for (const { name, spec, backends: names, catalogs } of content.virtualServers) {
    const resource = `virtualServers/${name}`;
    const auth = attemptTo(resource, "incomingAuth", () => options.incoming.of(spec.incomingAuth));
    const backends = names.flatMap(
      (backend, at) => attemptTo(backend, "", () => backendFor(backend, catalogs[at] ?? "", spec)) ?? [],
    );
    const departed = previous.virtualServers.get(name)?.departed;
    const server = attemptTo(resource, "aggregation", () =>
      createVirtualServer({ name, spec, auth: auth ?? closed, backends, departed }),
    );
    if (server) virtualServers.set(name, server);
  }

  if (violations.length > 0) {
    for (const backend of started) void backend.retire(0);
    throw new SnapshotRefusedError(violations);
  }
  const runtime = runtimeOf(content, virtualServers, [...used.values()]);
  carriedBy.set(runtime, used);
  return runtime;
}

/**
 * Out of reach of what it was built from: errors hold the functions that made them, so a backend that was ended would hold the one
 * that was there before it, and so on.
 */
function runtimeOf(
  { version, revision, storeUid, revocations, catalogs }: SnapshotContent,
  virtualServers: Runtime["virtualServers"],
  members: readonly Carried[],
): Runtime {
  const places = members.flatMap(({ next }) => next.map(({ backend }) => backend));
  return {
    ...{ version, revision, storeUid, revocations },
    virtualServers,
    backends: members.map(({ resource, catalog, endpoints }) => ({ resource, catalog, backend: endpoints.backend })),
    firstAttempts: Promise.all(members.map(({ next }) => Promise.race(next.map(({ backend }) => backend.firstAttempt)))),
    enter() {
      for (const { catalog, endpoints, next, operational } of members) {
        endpoints.move(next);
        endpoints.backend.share(catalogs.get(catalog));
        const { failureHandling } = operational ?? {};
        endpoints.backend.configure(breakerOf(failureHandling?.circuitBreaker), healthOf(failureHandling));
      }
    },
    async release(next) {
      const carried = [...((next && carriedBy.get(next))?.values() ?? [])];
      const kept = new Set(carried.flatMap((one) => one.next.map(({ backend }) => backend)));
      await Promise.all(places.filter((place) => !kept.has(place)).map((place) => place.retire(next ? retireMs : 0)));
    },
  };
}

/** A backend as one runtime has it; the next one carries on what it has too. */
interface Carried {
  readonly resource: string;
  readonly catalog: string;
  readonly endpoints: Endpoints;
  /** Where it is while the runtime is in force. */
  readonly next: EndpointList;
  readonly operational: Operational | undefined;
}

/** By what its backends were built from. */
const carriedBy = new WeakMap<Runtime, ReadonlyMap<string, Carried>>();

/** Where a backend is; a program is where we are. */
function placesOf({ url, endpoints }: BackendSpec): readonly { readonly url: string; readonly priority: number }[] {
  return endpoints.length > 0 ? endpoints : [{ url, priority: 0 }];
}

/** What a place is called: the same on every replica, however many others the backend has. */
function namesOf(key: string, { name, url }: { name: string; url: string }): { readonly place: string; readonly legKey: string } {
  const digest = createHash("sha256").update(url).digest("base64url");
  const place = createHash("sha256").update(`${key} ${digest}`).digest("base64url");
  return { place, legKey: `${name} ${digest.slice(0, 12)}` }; // no backend has a space in its name
}

/** One server that is to be used. */
interface Starting extends Pick<BackendOptions, "spec"> {
  readonly resource: string;
  readonly catalog: string;
  readonly place: string;
  readonly legKey: string;
  readonly onMessage: BackendOptions["onMessage"];
}

/** Whether its credentials are made with what the virtual server says of callers, too. */
function isOfCallers({ type }: OutgoingAuthStrategy): boolean {
  return type === "token_exchange" || type === "client_credentials" || type === "upstream_oauth";
}

/** Stands where an authenticator can't be made; the snapshot is refused for that. */
const closed: Authenticator = {
  authenticate: () => ({ refusal: { status: 503, description: "nobody can be let in" } }),
  scopesFor: () => [],
  discovery: undefined,
};

function jsonOf(value: unknown): string {
  return JSON.stringify(value, (_name, member) => (typeof member === "bigint" ? String(member) : member));
}

function strategyOf({ outgoingAuth }: VirtualServerSpec, backend: string): OutgoingAuthStrategy | undefined {
  if (!outgoingAuth) return undefined;
  return Object.hasOwn(outgoingAuth.backends, backend) ? outgoingAuth.backends[backend] : outgoingAuth.default;
}
