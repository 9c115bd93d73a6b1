// Where tokens are asked for: where the operator says, or where the issuer of the callers publishes it (OpenID Connect Discovery 1.0,
// RFC 8414).
import type { IncomingAuth } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { createGuardedFetch, type GuardedFetch } from "../outbound/guarded-fetch.ts";
import { parseObject } from "./token-answer.ts";

/** As the messages of all strategies that ask for tokens have it; empty texts are unset. */
export interface LocationConfig {
  readonly tokenUrl: string;
  readonly insecureAllowHttp: boolean;
  readonly allowPrivateIp: boolean;
  readonly caBundlePath: string;
}

/** Whether tokens may go there in clear has been looked at. */
export interface Location {
  readonly url: string;
  /** Whom client assertions are for (RFC 7523 section 3): the token endpoint itself when its issuer is not known. */
  readonly issuer: string;
}

export interface TokenLocation {
  /** What the operator wrote. */
  readonly name: string;
  /** Rejects with an Error for the log when it can't be found. */
  find(): Promise<Location>;
  /** What was found did not work; it is looked up again when it may have changed. */
  doubt(): void;
  /** Reaches what was found, and is bounded in everything. */
  readonly fetch: GuardedFetch;
}

export interface LocationOptions {
  readonly config: LocationConfig;
  readonly incomingAuth: IncomingAuth | undefined;
  readonly nowMs: () => number;
}

const timeoutMs = 5_000;
const bytesMax = 256 * 1024;
const keptMs = 60 * 60_000;
/** Between two attempts, whatever is wished for. */
const cooldownMs = { afterSuccess: 30_000, afterFailure: 5_000 };

/** Throws an Error fit for the operator when nobody says where, or tokens would travel in clear without leave. */
export function createTokenLocation({ config, incomingAuth, nowMs }: LocationOptions): TokenLocation {
  const { tokenUrl, insecureAllowHttp, allowPrivateIp: allowPrivate } = config;
  const oidc = incomingAuth?.type === "oidc" ? incomingAuth.oidc : undefined;
  const written = tokenUrl || oidc?.issuer;
  if (!written) throw new Error("a token endpoint is named neither by token_url nor by an OIDC issuer of incoming auth");
  const isHttpAllowed = insecureAllowHttp || (!tokenUrl && oidc?.insecureAllowHttp === true);
  const caFile = config.caBundlePath || (tokenUrl ? "" : oidc?.caBundlePath);
  if (!isSafe(written, isHttpAllowed)) throw new Error(`tokens would travel in clear to ${originOf(written)}; wanted: https`);
  const rules = { named: [written], allowPrivate, allowHttp: insecureAllowHttp, timeoutMs, bytesMax };
  const fetch = createGuardedFetch({ ...rules, ...(caFile ? { caFile } : {}) });
  if (tokenUrl) {
    const location = { url: tokenUrl, issuer: tokenUrl };
    return { name: written, find: async () => location, doubt: () => undefined, fetch };
  }

  const issuer = written;
  let found: Location | undefined;
  let looking: Promise<Location> | undefined;
  let failure: unknown;
  let againMs = 0;
  let staleMs = 0;

  async function look(): Promise<Location> {
    try {
      const url = await discover(fetch, issuer);
      if (!isSafe(url, isHttpAllowed)) throw new Error("the issuer's metadata leads to plain http");
      found = { url, issuer };
      againMs = nowMs() + cooldownMs.afterSuccess;
      staleMs = nowMs() + keptMs;
      return found;
    } catch (error) {
      failure = error;
      againMs = nowMs() + cooldownMs.afterFailure;
      if (found) return found; // better than nothing: it worked once
      throw error;
    } finally {
      looking = undefined;
    }
  }

  return {
    name: written,
    async find() {
      if (looking !== undefined) return looking;
      const now = nowMs();
      if (found && (now < staleMs || now < againMs)) return found;
      if (!found && now < againMs) throw failure;
      looking = look();
      return looking;
    },
    doubt() {
      staleMs = 0;
    },
    fetch,
  };
}

/** The token endpoint that an issuer publishes. */
async function discover(fetch: GuardedFetch, issuer: string): Promise<string> {
  const base = new URL(issuer);
  const path = base.pathname.replace(/\/$/, "");
  const places = [`${path}/.well-known/openid-configuration`, `/.well-known/oauth-authorization-server${path}`];
  let status = 0;
  for (const place of places) {
    const response = await fetch(`${base.origin}${place}`, { headers: { accept: "application/json" } });
    ({ status } = response);
    if (status === 404) continue;
    if (status !== 200) break;
    const metadata = parseObject(await response.text());
    // RFC 8414 3.3: another issuer's metadata must not be used, however alike the two look.
    if (metadata?.issuer !== issuer) throw new Error("the issuer's metadata is not that of the issuer");
    const { token_endpoint: url } = metadata;
    if (typeof url !== "string" || !URL.canParse(url)) throw new Error("the issuer's metadata names no token endpoint");
    return url;
  }
  throw new Error(`the issuer answered HTTP ${status} instead of its metadata`);
}

function isSafe(address: string, isHttpAllowed: boolean): boolean {
  const url = URL.parse(address);
  if (url?.protocol !== "http:") return url?.protocol === "https:";
  return isHttpAllowed || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
}

function originOf(address: string): string {
  return URL.parse(address)?.origin ?? "what is no URL";
}
