// Where the users of one backend sign in: what the operator says, else what the backend says, remembered for a while.
import { createGuardedFetch, type GuardedFetch } from "../outbound/guarded-fetch.ts";
import { DiscoveryError, findServer, type SignInServer } from "./authorization-server.ts";
import { type Challenge, findResource, type ProtectedResource, probe, readChallenge } from "./protected-resource.ts";

/** Of the strategy's block; empty texts are unset. */
export interface DiscoveryConfig {
  readonly issuer: string;
  readonly resource: string;
  readonly scopes: readonly string[];
  readonly insecureAllowHttp: boolean;
  readonly allowPrivateIp: boolean;
  readonly caBundlePath: string;
}

export interface Upstream {
  readonly server: SignInServer;
  /** That tokens are asked for (RFC 8707). */
  readonly resource: string;
  readonly scopes: readonly string[];
}

export interface UpstreamDiscovery {
  /** Rejects with DiscoveryError. */
  find(): Promise<Upstream>;
  /** What was found last, if it is fresh. */
  readonly known: Upstream | undefined;
  /** The backend answered 401 with this `WWW-Authenticate`. */
  learn(challenge: string | undefined): void;
  /** What was found did not work; it is looked up again soon. */
  doubt(): void;
  /** Reaches what was found, and is bounded in everything. */
  readonly fetch: GuardedFetch;
  /** Tokens may travel in clear. */
  readonly isHttpAllowed: boolean;
}

export interface DiscoveryOptions {
  readonly backendUrl: string;
  readonly config: DiscoveryConfig;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
}

const freshMs = 10 * 60_000;
/** Whatever goes wrong, servers are not asked more often. */
const doubtedMs = 5_000;
const retryMs = 5_000;
/** For so long, what worked once is better than nothing. */
const staleMs = 24 * 60 * 60_000;
const timeoutMs = 5_000;
const bytesMax = 256 * 1024;

/** Throws an Error fit for the operator when the bundle can't be read. */
export function createUpstreamDiscovery({ backendUrl, config, nowMs }: DiscoveryOptions): UpstreamDiscovery {
  const { issuer, insecureAllowHttp: allowHttp, allowPrivateIp: allowPrivate, caBundlePath: caFile } = config;
  const named = [backendUrl, ...(issuer ? [issuer] : [])];
  const fetch = createGuardedFetch({ named, allowPrivate, allowHttp, timeoutMs, bytesMax, ...(caFile ? { caFile } : {}) });
  // The operator's own word that this very server is plain http; on loopback nobody listens in.
  const isHttpAllowed = allowHttp || /^http:\/\/(localhost|127\.\d+\.\d+\.\d+|\[::1\])([:/]|$)/.test(issuer);
  let challenge: Challenge | undefined;
  let found: { readonly upstream: Upstream; readonly atMs: number } | undefined;
  let failure: { readonly error: unknown; readonly untilMs: number } | undefined;
  let looking: Promise<Upstream> | undefined;
  let isDoubted = false;

  async function look(): Promise<Upstream> {
    try {
      const about = await resourceOf();
      const [first] = about.authorizationServers;
      const chosen = issuer || first;
      if (!chosen) throw new DiscoveryError("the backend names no authorization server; set issuer");
      const server = await findServer(chosen, { fetch, isHttpAllowed });
      found = { upstream: { server, resource: config.resource || about.resource, scopes: scopesOf(about) }, atMs: nowMs() };
      failure = undefined;
      isDoubted = false;
      return found.upstream;
    } catch (error) {
      failure = { error, untilMs: nowMs() + retryMs };
      if (found && nowMs() - found.atMs < staleMs) return found.upstream;
      throw error;
    } finally {
      looking = undefined;
    }
  }

  async function resourceOf(): Promise<ProtectedResource> {
    try {
      challenge ??= await probe(backendUrl, fetch);
      return await findResource(backendUrl, challenge.metadataUrl, fetch);
    } catch (error) {
      // The operator has said all that is needed.
      if (issuer) return { resource: withoutHash(backendUrl), authorizationServers: [], scopes: [] };
      throw error;
    }
  }

  /** MCP 2025-11-25, scope selection: of the challenge, else all that are supported. */
  function scopesOf(about: ProtectedResource): readonly string[] {
    if (config.scopes.length > 0) return config.scopes;
    return challenge && challenge.scopes.length > 0 ? challenge.scopes : about.scopes;
  }

  const isFresh = (): boolean => found !== undefined && nowMs() - found.atMs < (isDoubted ? doubtedMs : freshMs);

  return {
    find() {
      if (looking !== undefined) return looking;
      if (found && isFresh()) return Promise.resolve(found.upstream);
      if (failure && nowMs() < failure.untilMs)
        return found && nowMs() - found.atMs < staleMs ? Promise.resolve(found.upstream) : Promise.reject(failure.error);
      looking = look();
      return looking;
    },
    get known() {
      return isFresh() ? found?.upstream : undefined;
    },
    learn(header) {
      const said = readChallenge(header);
      // Not every challenge says everything.
      const metadataUrl = said.metadataUrl ?? challenge?.metadataUrl;
      const scopes = said.scopes.length > 0 ? said.scopes : (challenge?.scopes ?? []);
      if (metadataUrl === challenge?.metadataUrl && scopes.join(" ") === (challenge?.scopes ?? []).join(" ")) return;
      challenge = { metadataUrl, scopes };
      isDoubted = true;
    },
    doubt() {
      isDoubted = true;
    },
    fetch,
    isHttpAllowed,
  };
}

function withoutHash(url: string): string {
  const [before = ""] = url.split("#");
  return before;
}
