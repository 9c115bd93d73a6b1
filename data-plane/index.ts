// The door of the data plane, and the only file that knows all its rooms.
import { hostname } from "node:os";
import type { Log } from "../common/log.ts";
import { collectSooner } from "./collect-sooner.ts";
import { createAuthenticators } from "./incoming-auth/registry.ts";
import { type CredentialsOptions, createCredentials } from "./outgoing-auth/registry.ts";
import { readRedisAddress } from "./redis/address.ts";
import { emptyRuntime, type Runtime, type SnapshotRefusedError } from "./runtime.ts";
import { isLoopback, type ServingOptions, type SessionOptions, startServing } from "./serving.ts";
import { openKeyRing } from "./session/key-ring.ts";
import { createLive, type Live } from "./sync/apply.ts";
import { type Sync, startSync } from "./sync/follow.ts";
import { type LinkOptions, openLink } from "./sync/link.ts";
import { stateOf } from "./sync/report.ts";

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

/** Listens at once, unready until the first snapshot is live. Rejects when the port is taken; KeyRingError when secrets are not good, IdentityError when certificates are not. */
export async function startDataPlane(options: DataPlaneOptions): Promise<DataPlane> {
  const { log } = options;
  await using stack = new AsyncDisposableStack();
  const keys = stack.use(openKeyRing({ env: process.env, isShared: options.session?.redis !== undefined, log }));
  const { publicUrl } = options;
  const credentials = stack.use(createCredentials({ log, keys, publicUrl, ...sharedTokens(options.session) }));
  let live: Live | undefined;
  let sync: Sync | undefined;
  const runtime = (): Runtime => live?.runtime ?? emptyRuntime;
  const serving = stack.use(await startServing(options, { keys, runtime, credentials, config: () => sync?.status() }));
  const { sessions, relay, everyone, address, self } = serving;
  const id = options.id ?? `${hostname()}-${new URL(address).port}`;
  const { controlPlanes, stateDirectory } = options;
  const link = stack.use(await openLink({ ...options.link, controlPlanes, stateDirectory, id, log }));
  stack.use(collectSooner({ sessions: () => sessions.size }));
  live = createLive({
    incoming: createAuthenticators({ log, isExposed: !isLoopback(options.host) }),
    outgoing: credentials,
    sessions: everyone,
    log,
    onMessage: relay.outside,
    mayRefresh: serving.mayRefresh,
    allowStdio: options.allowStdio ?? false,
    onChange: () => sync?.reportSoon(),
    onRevocations: serving.endRevoked,
  });
  log.info({ address }, "listening");
  sync = startSync({
    ...{ controlPlanes, stateDirectory, link },
    node: { id, instanceId: self.instance, address: self.address },
    live,
    state: () => stateOf(runtime(), sessions),
    listSessions: serving.list,
    bootstrapSnapshot: options.bootstrapSnapshot,
    log,
    onLive: (version) => options.onLive?.(version),
    onRefused: (error) => options.onRefused?.(error),
  });
  const [running, syncing] = [live, sync];
  const owned = stack.move();
  return {
    address,
    async [Symbol.asyncDispose]() {
      // Configuration is followed until nobody is served any more, and backends end last: calls need them.
      await serving.drain();
      await syncing[Symbol.asyncDispose]();
      await owned.disposeAsync();
      await running[Symbol.asyncDispose]();
    },
  };
}

/** Where sessions are shared, tokens are too. Throws RedisAddressError. */
function sharedTokens({ redis, redisPrefix }: SessionOptions = {}): Pick<CredentialsOptions, "redis"> {
  if (redis === undefined) return {};
  return {
    redis: { address: readRedisAddress(redis, process.env), caFile: process.env.VMCP_REDIS_CA_FILE, prefix: redisPrefix },
  };
}
