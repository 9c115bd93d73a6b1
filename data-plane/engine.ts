// One process that serves: everything but where its configuration comes from, and whether there are others like it.
import type { Log } from "../common/log.ts";
import { collectSooner } from "./collect-sooner.ts";
import { createAuthenticators } from "./incoming-auth/registry.ts";
import { type CredentialsOptions, createCredentials } from "./outgoing-auth/registry.ts";
import { readRedisAddress } from "./redis/address.ts";
import { emptyRuntime } from "./runtime.ts";
import { isLoopback, type Served, type Serving, type ServingOptions, type SessionOptions, startServing } from "./serving.ts";
import { openKeyRing } from "./session/key-ring.ts";
import { createLive, type Live } from "./sync/apply.ts";
import { listedHere } from "./sync/listing.ts";
import { type ProxyState, stateOf } from "./sync/report.ts";
import { type Duties, dutyIn, noDuties } from "./sync/watch-duty.ts";

export interface EngineOptions
  extends ServingOptions,
    Pick<Served, "config" | "openRecords" | "pages">,
    Pick<CredentialsOptions, "userTokens"> {
  readonly log: Log;
  /** Whether snapshots may start programs on this machine. Default false. */
  readonly allowStdio?: boolean;
  /** Where the keys of sessions are named; see openKeyRing. Default: the environment of this process. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Called after what is live, or a backend's state, changed. */
  readonly onChange: () => void;
}

export interface Engine extends AsyncDisposable {
  readonly serving: Serving;
  readonly live: Live;
  /** For the control plane. */
  state(): ProxyState;
  /** Encoded vmcp.discovery.v1.Listing of a catalog that was listed here; empty when it is too large. */
  listing(catalog: string): Uint8Array | undefined;
  /** Watches these backends from now on. */
  watch(duties: Duties): void;
}

/** Listens at once, unready until a snapshot is live. Rejects when the port is taken; KeyRingError when secrets are not good. */
export async function startEngine(options: EngineOptions): Promise<Engine> {
  const { log, session, publicUrl, userTokens, env = process.env } = options;
  await using stack = new AsyncDisposableStack();
  const keys = stack.use(openKeyRing({ env, isShared: session?.redis !== undefined, log }));
  const credentials = stack.use(createCredentials({ log, keys, publicUrl, userTokens, ...sharedTokens(session) }));
  let live: Live | undefined;
  const runtime = () => live?.runtime ?? emptyRuntime;
  const serving = stack.use(await startServing(options, { ...options, keys, runtime, credentials }));
  const { sessions, relay, everyone } = serving;
  let duties = noDuties;
  stack.use(collectSooner({ sessions: () => sessions.size }));
  const running = createLive({
    dutyOf: (catalog) => dutyIn(duties, catalog),
    incoming: createAuthenticators({ log, isExposed: !isLoopback(options.host) }),
    outgoing: credentials,
    sessions: everyone,
    log,
    onMessage: relay.outside,
    mayRefresh: serving.mayRefresh,
    allowStdio: options.allowStdio ?? false,
    onChange: options.onChange,
    onRevocations: serving.endRevoked,
  });
  live = running;
  const owned = stack.move();
  return {
    serving,
    live: running,
    state: () => stateOf(running.runtime, sessions, serving.workLeft()),
    listing: (catalog) => listedHere(running.runtime, catalog),
    watch(next) {
      duties = next;
      running.keepWatch();
    },
    async [Symbol.asyncDispose]() {
      await owned.disposeAsync();
      await running[Symbol.asyncDispose](); // backends end last: calls need them
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
