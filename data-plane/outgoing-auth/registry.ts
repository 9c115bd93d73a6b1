// Strategy type → how it makes a credential.
import { createHash } from "node:crypto";
import type { Log } from "../../common/log.ts";
import type { OutgoingAuthStrategy } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import type { Keys } from "../mcp/seal.ts";
import type { RedisAddress } from "../redis/address.ts";
import { readSecret, type SecretPlace } from "../secrets.ts";
import { clientCredentials } from "./client-credentials.ts";
import { type Credential, sameForAll, unavailable } from "./credential.ts";
import { createGates } from "./endpoint-gate.ts";
import { headerInjection } from "./header-injection.ts";
import { passThrough } from "./pass-through.ts";
import { createSignIns, type SignIns } from "./sign-ins.ts";
import type { CreateCredential, Recipient } from "./strategy.ts";
import { createTokenCache, type SharedTokens } from "./token-cache.ts";
import { isEndpointFailure } from "./token-endpoint.ts";
import { tokenExchange } from "./token-exchange.ts";
import { createTokenMetrics, type TokenMetrics } from "./token-metrics.ts";
import { upstreamOauth } from "./upstream-oauth.ts";
import { createMemoryTokens, opening, type UserTokens } from "./user-tokens.ts";

export type { Recipient } from "./strategy.ts";

/** Makes credentials. One configuration for one recipient has one, so that what it has learned outlives snapshots. */
export interface Credentials extends AsyncDisposable {
  /** The credential of a strategy; absent means unauthenticated. Throws an Error fit for the operator when it can't be made here. */
  of(strategy: OutgoingAuthStrategy | undefined, recipient: Recipient): Credential;
  readonly metrics: TokenMetrics;
  /** Where users sign in, for the pages that lead them there. */
  readonly signIns: SignIns;
  readonly userTokens: UserTokens;
}

export interface CredentialsOptions {
  readonly log: Log;
  /** Name and seal what replicas share. */
  readonly keys: Keys;
  /** Where replicas share tokens. Without it each obtains its own. */
  readonly redis?: {
    readonly address: RedisAddress;
    readonly caFile?: string | undefined;
    /** Before every key. Default `vmcp:`. */
    readonly prefix?: string | undefined;
  };
  /** Where users' tokens are kept without it. Default: the memory of this process. */
  readonly userTokens?: UserTokens | undefined;
  /** Milliseconds since 1970. */
  readonly nowMs?: () => number;
  /** Where clients and browsers reach the proxies, `https://host[:port]`. Default: as each client says. */
  readonly publicUrl?: string | undefined;
}

const nothing = sameForAll([]);

const types = new Map<string, CreateCredential>([
  ["unauthenticated", () => nothing],
  ["header_injection", headerInjection],
  ["token_exchange", tokenExchange],
  ["client_credentials", clientCredentials],
  ["pass_through", passThrough],
  ["upstream_oauth", upstreamOauth],
]);

const keptMax = 4_096;

/**
 * A type without a row is not implemented: its credential always fails, so that the backend is never contacted without what the
 * operator asked for.
 */
export function createCredentials(options: CredentialsOptions): Credentials {
  const { log, keys, redis, publicUrl, nowMs = Date.now } = options;
  const metrics = createTokenMetrics();
  const shared = redis && openShared({ ...redis, log, keys, nowMs });
  const cache = createTokenCache({ nowMs, ...(shared === undefined ? {} : { shared }) });
  const gates = createGates({ nowMs, isFailure: isEndpointFailure });
  const kept = new Map<string, Credential>();
  const signIns = createSignIns();
  const userTokens = redis
    ? opening(openUserTokens({ ...redis, log, keys, nowMs }))
    : (options.userTokens ?? createMemoryTokens({ nowMs }));

  function make(strategy: OutgoingAuthStrategy, recipient: Recipient): Credential {
    const { type } = strategy;
    const create = types.get(type);
    if (!create) return unavailable(`outgoing auth "${type}" is not part of this version, and it is not called without`);
    if (recipient.url === undefined && type !== "unauthenticated")
      return unavailable(`outgoing auth "${type}" has nowhere to show a credential to a program, and it is not started without`);
    const { virtualServer, backend } = recipient;
    const counters = metrics.of({ strategy: type, virtualServer, backend });
    return create(strategy, recipient, { log, keys, cache, gates, counters, nowMs, userTokens, signIns, publicUrl });
  }

  return {
    of(strategy, recipient) {
      if (!strategy) return nothing;
      const key = `${JSON.stringify([strategy, recipient], writable)} ${digestOfPlaces(strategy)}`;
      const existing = kept.get(key);
      const credential = existing ?? make(strategy, recipient);
      if (existing) signIns.renew(existing);
      kept.delete(key);
      kept.set(key, credential);
      if (kept.size > keptMax) kept.delete(kept.keys().next().value as string);
      return credential;
    },
    metrics,
    signIns,
    userTokens,
    async [Symbol.asyncDispose]() {
      await cache[Symbol.asyncDispose]();
      await userTokens[Symbol.asyncDispose]();
    },
  };
}

type Redis = NonNullable<CredentialsOptions["redis"]> & Required<Pick<CredentialsOptions, "log" | "keys" | "nowMs">>;

/** The client is loaded only by those who want it. Never rejects. */
async function openShared({ prefix = "vmcp:", ...options }: Redis): Promise<SharedTokens | undefined> {
  try {
    const { createRedisTokens } = await import("./redis-tokens.ts");
    return createRedisTokens({ ...options, prefix });
  } catch (error) {
    options.log.error({ reason: (error as Error).message }, "tokens are not shared with other replicas");
    return undefined;
  }
}

async function openUserTokens({ prefix = "vmcp:", ...options }: Redis): Promise<UserTokens> {
  const { createRedisUserTokens } = await import("./redis-user-tokens.ts");
  return createRedisUserTokens({ ...options, prefix });
}

function writable(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

/** What is read where the configuration points to: when it changes, the next snapshot gets a credential that was made of it. */
function digestOfPlaces(strategy: OutgoingAuthStrategy): string {
  const hash = createHash("sha256");
  for (const block of Object.values(strategy)) {
    if (typeof block !== "object" || block === null) continue;
    for (const [name, value] of Object.entries(block)) {
      const place = /^(?!actor).*(Env|File)$/.exec(name)?.[1];
      if (place && typeof value === "string") hash.update(`${name} ${readOrNothing({ [place.toLowerCase()]: value })} `);
    }
  }
  return hash.digest("base64url");
}

function readOrNothing(place: SecretPlace): string | undefined {
  try {
    return readSecret(place)?.reveal();
  } catch {
    return undefined; // whoever needs it says so
  }
}
