// What an authorization server says of itself, looked up where MCP says, and held against what we need of it before anybody is sent
// there. Sources: RFC 8414, OpenID Connect Discovery 1.0; MCP 2025-11-25, authorization, authorization server metadata discovery.
import type { AuthorizationServer } from "oauth4webapi";
import { FetchRefusedError, type GuardedFetch } from "../outbound/guarded-fetch.ts";
import { parseObject } from "./token-answer.ts";

/** Has everything that a sign-in needs. */
export interface SignInServer extends AuthorizationServer {
  readonly authorization_endpoint: string;
  readonly token_endpoint: string;
}

/** Something that servers say can't be followed. The words are ours and for operators: no secrets; what was said may be in them. */
export class DiscoveryError extends Error {
  override name = "DiscoveryError";
}

export interface ServerRules {
  readonly fetch: GuardedFetch;
  /** Its endpoints may be plain http. */
  readonly isHttpAllowed: boolean;
  /** It is asked for ID tokens: what it says as an OpenID provider comes first, and a nonce does what PKCE does. Default false. */
  readonly isOpenid?: boolean;
}

/**
 * The metadata of an issuer. Rejects with DiscoveryError when there is none, it is another's, or it can't be used safely: without
 * endpoints over https, or without PKCE by S256.
 */
export async function findServer(issuer: string, { fetch, isHttpAllowed, isOpenid = false }: ServerRules): Promise<SignInServer> {
  const places = placesOf(issuer);
  const metadata = await firstOf(isOpenid ? places.toReversed() : places, fetch);
  // RFC 8414 3.3: another issuer's metadata must not be used, however alike the two look.
  if (metadata.issuer !== issuer)
    throw new DiscoveryError(`the metadata of ${shown(issuer)} is that of another issuer, ${shown(metadata.issuer)}`);
  for (const name of ["authorization_endpoint", "token_endpoint"])
    if (!isEndpoint(metadata[name], isHttpAllowed))
      throw new DiscoveryError(`${name} of ${shown(issuer)} is ${shown(metadata[name])}; wanted: an https URL`);
  const { code_challenge_methods_supported: methods, response_types_supported: types } = metadata;
  // MCP 2025-11-25, authorization code protection: without the word of the server we must not go on.
  if (!isOpenid && !(Array.isArray(methods) && methods.includes("S256")))
    throw new DiscoveryError(`${shown(issuer)} does not say that it supports PKCE by S256`);
  if (Array.isArray(types) && !types.includes("code")) throw new DiscoveryError(`${shown(issuer)} has no code flow`);
  return metadata as unknown as SignInServer;
}

/** In the order of MCP 2025-11-25; the path is inserted before it is appended. */
function placesOf(issuer: string): string[] {
  const url = URL.parse(issuer);
  if (url?.search !== "" || url.hash !== "") throw new DiscoveryError(`${shown(issuer)} is no issuer`);
  const path = url.pathname.replace(/\/$/, "");
  const inserted = ["oauth-authorization-server", "openid-configuration"].map((name) => `/.well-known/${name}${path}`);
  const appended = path === "" ? [] : [`${path}/.well-known/openid-configuration`];
  return [...inserted, ...appended].map((place) => url.origin + place);
}

async function firstOf(places: readonly string[], fetch: GuardedFetch): Promise<Record<string, unknown>> {
  const origin = shown(new URL(places[0] as string).origin);
  let problem = "";
  for (const place of places) {
    const found = await readDocument(place, fetch).catch((error: Error) => {
      throw new DiscoveryError(`${origin} can't be asked for its metadata: ${error.message}`, { cause: error });
    });
    if (typeof found !== "string") return found;
    problem = found;
  }
  throw new DiscoveryError(`${origin} publishes no metadata: ${problem}`);
}

/** A JSON object, or why there is none here. Rejects when there is no use in looking elsewhere on this server. */
export async function readDocument(url: string, fetch: GuardedFetch): Promise<Record<string, unknown> | string> {
  let response: Response;
  try {
    response = await fetch(url, { headers: { accept: "application/json" } });
  } catch (error) {
    if (error instanceof FetchRefusedError) return error.message;
    throw error;
  }
  const { status } = response;
  if (status >= 500) throw new Error(`HTTP ${status}`);
  return (status === 200 ? parseObject(await response.text()) : undefined) ?? `HTTP ${status}`;
}

function isEndpoint(value: unknown, isHttpAllowed: boolean): boolean {
  const url = typeof value === "string" ? URL.parse(value) : null;
  if (url?.username !== "" || url.password !== "" || url.hash !== "") return false;
  return url.protocol === "https:" || (url.protocol === "http:" && isHttpAllowed);
}

const shownMax = 200;

/** What somebody else wrote, in one line. */
export function shown(value: unknown): string {
  const text = typeof value === "string" ? value : String(JSON.stringify(value));
  return `"${text.slice(0, shownMax).replace(/[^\x20-\x7e]|"/g, "?")}"`;
}
