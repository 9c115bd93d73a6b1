// The door of the data plane: follows control planes, and serves what they say, in this process or in several that it leads.
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Log } from "../common/log.ts";
import { type EngineOptions, startEngine } from "./engine.ts";
import type { SnapshotRefusedError } from "./runtime.ts";
import type { ServingOptions } from "./serving.ts";
import { type Sync, startSync } from "./sync/follow.ts";
import { type LinkOptions, openLink } from "./sync/link.ts";
import { createWatchDuty } from "./sync/watch-duty.ts";
import type { Leader, LeaderOptions } from "./workers/leader.ts";

export { RedisAddressError } from "./redis/address.ts";
export type { SnapshotRefusedError } from "./runtime.ts";
export { KeyRingError } from "./session/key-ring.ts";
export { IdentityError } from "./sync/identity.ts";

export interface DataPlaneOptions extends ServingOptions {
  /** Addresses of control planes. */
  readonly controlPlanes: readonly string[];
  /** Where what is live is kept for the next start, which may find no control plane. Default: nowhere. */
  readonly stateDirectory?: string | undefined;
  /** Certificates towards control planes. Without any, they must be on this machine. */
  readonly link?: Pick<LinkOptions, "enrolTokenFile" | "certificate"> | undefined;
  /** A file from such a directory, to start from when there is nothing newer. */
  readonly bootstrapSnapshot?: string | undefined;
  /** Name of this proxy, stable over restarts. Default: host name and port. */
  readonly id?: string;
  readonly log: Log;
  /** Processes that serve. Default 1, which is this one. */
  readonly workers?: number | undefined;
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

/**
 * Listens at once, unready until the first snapshot is live. Rejects when the port is taken; KeyRingError when secrets are not good,
 * IdentityError when certificates are not.
 */
export async function startDataPlane(options: DataPlaneOptions): Promise<DataPlane> {
  const { log, workers = 1, controlPlanes, stateDirectory } = options;
  await using stack = new AsyncDisposableStack();
  let sync: Sync | undefined;
  const shown = { config: () => sync?.status(), onChange: () => sync?.reportSoon() };
  const serving = stack.use(
    await (workers > 1 ? startMany({ ...options, ...shown, workers }) : startOne({ ...options, ...shown })),
  );
  const { address, instanceId } = serving;
  const duty = stack.use(createWatchDuty({ onChange: serving.watch }));
  const id = options.id ?? `${hostname()}-${new URL(address).port}`;
  const link = stack.use(await openLink({ ...options.link, controlPlanes, stateDirectory, id, log }));
  log.info({ address }, "listening");
  const syncing = startSync({
    ...{ controlPlanes, stateDirectory, link },
    node: { id, instanceId, address: options.advertise ?? address },
    live: serving.live,
    state: serving.state,
    listSessions: serving.list,
    setDrained: serving.setDrained,
    openTap: serving.openTap,
    catalogs: { ...duty, listing: serving.listing },
    bootstrapSnapshot: options.bootstrapSnapshot,
    log,
    onLive: (version) => options.onLive?.(version),
    onRefused: (error) => options.onRefused?.(error),
  });
  sync = syncing;
  const owned = stack.move();
  return {
    address,
    async [Symbol.asyncDispose]() {
      // Configuration is followed until nobody is served any more.
      await serving.drain();
      await syncing[Symbol.asyncDispose]();
      await owned.disposeAsync();
    },
  };
}

/** Whatever serves: this process, or others that it leads. */
interface Server extends Leader {
  /** Another with each start. */
  readonly instanceId: string;
}

async function startOne(options: EngineOptions): Promise<Server> {
  const engine = await startEngine(options);
  const { live, state, watch } = engine;
  const listing = async (catalog: string) => engine.listing(catalog);
  const { address, self, list, setDrained, openTap, drain } = engine.serving;
  const dispose = () => engine[Symbol.asyncDispose]();
  const { instance: instanceId } = self;
  return {
    ...{ address, instanceId, live, state, listing, watch, list, setDrained, openTap, drain },
    [Symbol.asyncDispose]: dispose,
  };
}

async function startMany(options: LeaderOptions): Promise<Server> {
  const { startWorkers } = await import("./workers/leader.ts"); // nobody else pays for it
  return { ...(await startWorkers(options)), instanceId: randomUUID() };
}
