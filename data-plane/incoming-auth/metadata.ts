// Where an issuer has its keys and its introspection, as it says itself. OpenID Connect Discovery 1.0 section 4, RFC 8414.
import type { GuardedFetch } from "../outbound/guarded-fetch.ts";
import type { Clock } from "./clock.ts";
import { isObject } from "./compact-jws.ts";

export interface Metadata {
  readonly jwksUrl: string | undefined;
  readonly introspectionUrl: string | undefined;
}

export interface MetadataSource {
  /** Rejects with an Error for the log. What was once known stays in use while the issuer is away. One question at a time. */
  get(): Promise<Metadata>;
  /** It led nowhere: ask again next time. */
  doubt(): void;
}

const freshMs = 60 * 60_000;
const retryMs = 1_000;

export interface MetadataOptions {
  readonly issuer: string;
  readonly fetch: GuardedFetch;
  readonly clock: Clock;
}

export function createMetadata({ issuer, fetch, clock }: MetadataOptions): MetadataSource {
  let known: Metadata | undefined;
  let staleAtMs = -Infinity;
  let failure: { readonly error: Error; readonly untilMs: number } | undefined;
  let asking: Promise<Metadata> | undefined;

  async function ask(): Promise<Metadata> {
    try {
      known = await discover(issuer, fetch);
      staleAtMs = clock.elapsedMs() + freshMs;
      failure = undefined;
      return known;
    } catch (error) {
      failure = { error: error as Error, untilMs: clock.elapsedMs() + retryMs };
      if (known) return known;
      throw error;
    }
  }

  return {
    async get() {
      const nowMs = clock.elapsedMs();
      if (known && nowMs < staleAtMs) return known;
      if (failure && nowMs < failure.untilMs) {
        if (known) return known;
        throw failure.error;
      }
      asking ??= ask().finally(() => {
        asking = undefined;
      });
      return asking;
    },
    doubt() {
      staleAtMs = -Infinity;
    },
  };
}

async function discover(issuer: string, fetch: GuardedFetch): Promise<Metadata> {
  const url = new URL(issuer);
  const path = url.pathname.replace(/\/$/, "");
  // OpenID Connect appends, RFC 8414 section 3.1 inserts.
  const openid = `${url.origin}${path}/.well-known/openid-configuration`;
  const oauth = `${url.origin}/.well-known/oauth-authorization-server${path}`;
  const first = readMetadata(await fetchJson(fetch, openid), issuer);
  if (!("problem" in first)) return first;
  const second = readMetadata(await fetchJson(fetch, oauth), issuer);
  if (!("problem" in second)) return second;
  throw new Error(first.problem === second.problem ? first.problem : `${first.problem}; in the other place ${second.problem}`);
}

/** The body; undefined when the answer is no JSON. Rejects when there is no answer. */
async function fetchJson(fetch: GuardedFetch, url: string): Promise<unknown> {
  const response = await fetch(url, { headers: { accept: "application/json" } });
  return response.status === 200 ? await response.json().catch(() => undefined) : undefined;
}

function readMetadata(document: unknown, issuer: string): Metadata | { readonly problem: string } {
  if (!isObject(document)) return { problem: "there is no metadata" };
  // RFC 8414 section 3.3: identical, or the document is somebody else's.
  if (document.issuer !== issuer) return { problem: "the metadata is of another issuer" };
  const { jwks_uri: jwksUrl, introspection_endpoint: introspectionUrl } = document;
  return { jwksUrl: textOf(jwksUrl), introspectionUrl: textOf(introspectionUrl) };
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
