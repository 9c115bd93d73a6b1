// Which authorization servers a backend trusts, as it says itself. Nothing of it is believed further than it reaches: an address is
// only looked up by a guarded fetch, and a document counts only for the resource that it names.
// Sources: RFC 9728; RFC 9110 11.2 (challenges); MCP 2025-11-25, authorization, protected resource metadata discovery.
import type { GuardedFetch } from "../outbound/guarded-fetch.ts";
import { DiscoveryError, readDocument, shown } from "./authorization-server.ts";

/** What a 401 tells beyond itself. */
export interface Challenge {
  readonly metadataUrl: string | undefined;
  readonly scopes: readonly string[];
}

export interface ProtectedResource {
  /** As it wants to be named in requests for tokens (RFC 8707). */
  readonly resource: string;
  readonly authorizationServers: readonly string[];
  readonly scopes: readonly string[];
}

const challengeLengthMax = 8_192;
const urlLengthMax = 2_048;
const scopesMax = 100;
const parameterPattern = /([a-z0-9_-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/gi;

/** Reads a `WWW-Authenticate` header; empty when there is nothing in it for us. */
export function readChallenge(header: string | undefined): Challenge {
  const found = new Map<string, string>();
  for (const [, name = "", quoted, bare = ""] of (header ?? "").slice(0, challengeLengthMax).matchAll(parameterPattern)) {
    const key = name.toLowerCase();
    if (!found.has(key)) found.set(key, quoted?.replace(/\\(.)/g, "$1") ?? bare);
  }
  const url = found.get("resource_metadata");
  const isUsable = url !== undefined && url.length <= urlLengthMax && URL.canParse(url);
  return { metadataUrl: isUsable ? url : undefined, scopes: readScopes(found.get("scope")?.split(" ")) };
}

/** What a backend answers to whoever shows nothing. A request that runs nothing, in case it lets everybody in. */
export async function probe(backendUrl: string, fetch: GuardedFetch): Promise<Challenge> {
  const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "ping" });
  const response = await fetch(backendUrl, { method: "POST", headers, body }).catch((error: Error) => {
    throw new DiscoveryError(`the backend can't be asked who its authorization server is: ${error.message}`, { cause: error });
  });
  return readChallenge(response.status === 401 ? (response.headers.get("www-authenticate") ?? undefined) : undefined);
}

/** The backend's document: where its challenge says, else where RFC 9728 3.1 does. Rejects with DiscoveryError. */
export async function findResource(
  backendUrl: string,
  named: string | undefined,
  fetch: GuardedFetch,
): Promise<ProtectedResource> {
  const { origin, pathname, search } = new URL(backendUrl);
  const wellKnown = `${origin}/.well-known/oauth-protected-resource`;
  const path = pathname === "/" ? "" : pathname;
  const places = named ? [named] : [...new Set([`${wellKnown}${path}${search}`, `${wellKnown}${path}`, wellKnown])];
  let problem = "";
  for (const place of places) {
    const found = await readDocument(place, fetch).catch((error: Error) => {
      throw new DiscoveryError(`the metadata of the backend can't be had: ${error.message}`, { cause: error });
    });
    if (typeof found !== "string") return readResource(found, backendUrl);
    problem = found;
  }
  throw new DiscoveryError(`the backend publishes no protected resource metadata (${problem})`);
}

function readResource(document: Record<string, unknown>, backendUrl: string): ProtectedResource {
  const { resource, authorization_servers: servers, scopes_supported: scopes } = document;
  // RFC 9728 3.3: else one server could have tokens asked for in another's name.
  if (typeof resource !== "string" || !isAbout(resource, backendUrl))
    throw new DiscoveryError(`the metadata of the backend is about ${shown(resource)}, which is not its URL`);
  const named = Array.isArray(servers) ? servers.filter((one) => typeof one === "string") : [];
  return { resource, authorizationServers: named, scopes: readScopes(scopes) };
}

/** Whether a resource is the backend, or what the backend's URL is below (MCP 2025-11-25, canonical server URI). */
export function isAbout(resource: string, backendUrl: string): boolean {
  const [about, backend] = [URL.parse(resource), URL.parse(backendUrl)];
  if (!about || !backend || about.origin !== backend.origin || about.hash !== "") return false;
  if (about.username !== "" || about.password !== "") return false;
  if (about.search !== "" && about.search !== backend.search) return false;
  const below = (path: string): string => (path.endsWith("/") ? path : `${path}/`);
  return below(backend.pathname).startsWith(below(about.pathname));
}

/** RFC 6749 3.3; what is none is left out. */
function readScopes(scopes: unknown): readonly string[] {
  if (!Array.isArray(scopes)) return [];
  return scopes.filter((scope) => typeof scope === "string" && /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(scope)).slice(0, scopesMax);
}
