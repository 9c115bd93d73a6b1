// The control plane's door, and where its rooms are put together: store → reconciler → fleet, with the admin API in front.
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { Server } from "@grpc/grpc-js";
import type { Log } from "../common/log.ts";
import { softwareVersion } from "../common/version.ts";
import type { ResourceChange } from "../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { Resource } from "../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { toResourceChange } from "./admin/declare.ts";
import { createEditor, replacement } from "./admin/edit.ts";
import { AdminError } from "./admin/errors.ts";
import { type Listener, listen, shutDown } from "./admin/listen.ts";
import { checkResources } from "./admin/requests.ts";
import { openSecurity, type SecurityChoice } from "./admin/security.ts";
import { addServices } from "./admin/services.ts";
import { createCatalogKeeper } from "./catalogs/keeper.ts";
import { systemClock } from "./clock.ts";
import { createDiscovery } from "./discovery/discovery.ts";
import { fileMemory } from "./discovery/memory.ts";
import { createProviders, type DiscoveryChoice } from "./discovery/registry.ts";
import { ControlPlaneError } from "./errors.ts";
import { createFleet } from "./push/fleet.ts";
import { createWatchers } from "./push/watchers.ts";
import { createWholeFleet } from "./push/whole-fleet.ts";
import { startReconciler } from "./reconcile.ts";
import { isFile, openStore } from "./store/open.ts";
import { type Store, StoreError } from "./store/store.ts";

export type { SecurityChoice } from "./admin/security.ts";
export { analyze } from "./analysis/analyze.ts";
export { codes as findingCodes, type FindingSeverity } from "./analysis/findings.ts";
export { blocking, problemLine } from "./compiler/problem-text.ts";
export { type DesktopServer, readDesktopServers } from "./config/desktop-servers.ts";
export { type LoadResult, loadConfig } from "./config/load.ts";
export { lookOnce } from "./discovery/look-once.ts";
export { type DiscoveryChoice, isProviderName, providerNames } from "./discovery/registry.ts";
export { ControlPlaneError } from "./errors.ts";
export { type Difference, resourceDifferences } from "./resources/differences.ts";
export { formatPath, formatReport, hasErrors, type Place, type Problem, problemToJson } from "./resources/problems.ts";

export interface ControlPlaneOptions {
  /**
   * `host:port`, port 0 takes a free one, or `unix:/path`; one or several. What other machines can reach needs `security.authority`.
   */
  readonly listen: string | readonly string[];
  /** The path of an SQLite file, `:memory:`, or a `postgres://` address. */
  readonly store: string;
  readonly log: Log;
  /** When the declared resources come from elsewhere: why the admin API refuses to change them. */
  readonly readOnlyReason?: string | undefined;
  /** Where backends come from that nobody declared. Default: nowhere. */
  readonly discovery?: DiscoveryChoice | undefined;
  /** Certificates, and who gives people their tokens. Default: neither, and so only this machine is served, and may do everything. */
  readonly security?: SecurityChoice | undefined;
  /** Its name among the control planes of the store, stable over restarts. Default: host name and port. */
  readonly id?: string | undefined;
  /** Where its admin API is reached from elsewhere, `host:port`. Default: where it listens. */
  readonly advertise?: string | undefined;
  /** Default: the system's clock. */
  readonly nowMs?: (() => number) | undefined;
  /** Ends waiting for a store that does not answer. */
  readonly signal?: AbortSignal | undefined;
}

export interface ControlPlane extends AsyncDisposable {
  /** Where it listens first, `host:port` or `unix:/path`. */
  readonly address: string;
  /**
   * Makes the declared resources exactly these, read-only or not; revocations of sessions stay. Throws ControlPlaneError `invalid_resources` with one line per
   * problem in `details`; nothing has changed then.
   */
  replaceAll(resources: readonly Resource[], reason: string): Promise<Replaced>;
  /** Starts these discovery providers too, those that do not run yet, and waits for their first answers, 5 s at most. */
  discover(choice: DiscoveryChoice): Promise<void>;
  /** Who sees the backends of a group right now, and how many. */
  discovered(group: string): { readonly providers: readonly string[]; readonly backends: number };
}

export interface Replaced {
  /** Of the store; the present one when nothing changed. */
  readonly revision: bigint;
  /** Of the snapshot that proxies get. */
  readonly version: string;
  readonly changes: readonly ResourceChange[];
  readonly warnings: readonly string[];
}

/**
 * Runs until disposed. Waits for a store that does not answer, and serves nobody meanwhile. Throws ControlPlaneError when the address or
 * the store can't be used.
 */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { log, readOnlyReason, nowMs = Date.now } = options;
  await using started = new AsyncDisposableStack();
  const store = started.use(await openWhenThere(options, nowMs));
  const catalogs = started.use(await createCatalogKeeper({ store, log, nowMs }));
  const watchers = started.use(createWatchers({ keeper: catalogs, leases: store.leases, clock: systemClock, log }));
  const fleet = createFleet({ log, watchers });
  const memory = isFile(options.store) ? fileMemory(`${options.store}.discovered`, log) : undefined;
  const discovery = started.use(createDiscovery({ log, memory }));
  // Before anything is built: a snapshot without what is discovered would take it away from proxies that have it.
  if (options.discovery) await discovery.use(createProviders(options.discovery, log));
  const reconciler = started.use(startReconciler({ store, fleet, discovery, catalogs, log }));
  const editor = createEditor({ store, reconciler });
  const stopping = new AbortController();
  const server = new Server(serverOptions);
  const wholeFleet = createWholeFleet({ store, fleet, log });
  const security = started.use(await openSecurity(options, { store, nowMs }));
  const { trust } = security;
  addServices(server, {
    ...{ store, fleet, wholeFleet, editor, reconciler, discovery, catalogs, trust, log, readOnlyReason, nowMs },
    stopping: stopping.signal,
  });
  await reconciler.started;
  started.defer(async () => {
    stopping.abort();
    await fleet.drain(drainMs);
    fleet.close();
    await shutDown(server);
  });
  const wanted = typeof options.listen === "string" ? [options.listen] : options.listen;
  const listeners: Listener[] = [];
  for (const one of wanted) listeners.push(await listen(server, one, security));
  for (const { address: at } of listeners.filter(({ isLocal }) => isLocal))
    log.warn({ address: at }, "plain text here: whoever reaches it from this machine is admin");
  const address = (listeners[0] as Listener).address;
  started.use(wholeFleet); // others are told first: its proxies go to them
  wholeFleet.begin({
    id: options.id ?? `${hostname()}-${address.split(":").at(-1)}`,
    instanceId: randomUUID(),
    address: options.advertise ?? address,
    softwareVersion,
  });
  const running = started.move();

  return {
    address,
    async replaceAll(resources, reason) {
      try {
        checkResources(resources, Number.POSITIVE_INFINITY);
        const edited = await editor.edit((present) => replacement(present, resources), {
          actor: "vmcp",
          method: "replaceAll",
          reason,
          requestId: randomUUID(),
          permit: () => undefined,
        });
        return { ...edited, changes: edited.changes.map(toResourceChange) };
      } catch (error) {
        throw error instanceof AdminError ? invalidResources(error) : error;
      }
    },
    discover: (choice) => discovery.use(createProviders(choice, log)),
    discovered(group) {
      const prefix = `groups/${group}/backends/`;
      const members = [...discovery.current().sources].filter(([name]) => name.startsWith(prefix));
      return { providers: [...new Set(members.map(([, provider]) => provider))], backends: members.length };
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

// Proxies that can go elsewhere do it in a moment, and those that can't leave at once.
const drainMs = 2_000;

const serverOptions = {
  // Either side may vanish without a word; grpc-js asks nobody by default.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1,
  // Whoever connects and asks for nothing.
  "grpc.max_connection_idle_ms": 5 * 60_000,
  "grpc.max_receive_message_length": 4 * 1024 * 1024,
};

// Quick at first, for those that are started together.
const storeRetryMs = { first: 250, most: 5_000 };

async function openWhenThere({ store: place, log, signal }: ControlPlaneOptions, nowMs: () => number): Promise<Store> {
  for (let waitMs = storeRetryMs.first; ; waitMs = Math.min(waitMs * 2, storeRetryMs.most)) {
    try {
      return await openStore({ place, log, nowMs });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const mayCome = error instanceof StoreError && error.code === "unavailable";
      if (!mayCome || signal?.aborted) throw new ControlPlaneError("store_unusable", reason, { cause: error });
      log.warn({ reason }, "the store does not answer; nobody is served until it does");
      await delay(waitMs, undefined, { signal }).catch(() => undefined);
    }
  }
}

function invalidResources(error: AdminError): ControlPlaneError {
  const details = error.violations.map(({ field, description }) => `${field}: ${description}`);
  return new ControlPlaneError("invalid_resources", error.message, { cause: error, details });
}
