// Which era of MCP a POSTed body belongs to. The body decides, headers only confirm it: whoever drops or adds one on the way must
// not change what a request means. Source: MCP 2026-07-28, streamable HTTP and versioning.
import type { IncomingHttpHeaders } from "node:http";
import { decodeHeaderValue, trimOptionalSpace } from "../mcp/header-values.ts";
import { errorCodes } from "../mcp/json-rpc.ts";
import {
  type Envelope,
  logLevels,
  metaKeys,
  nameParams,
  statelessErrors,
  statelessVersion,
  supportedStatelessVersions,
} from "../mcp/stateless.ts";
import type { ReadMessage } from "./read-request.ts";

export interface EraRefusal {
  readonly status: 400;
  readonly code: number;
  readonly message: string;
  readonly data?: unknown;
}

export type Classified =
  | { readonly era: "session" }
  | { readonly era: "stateless"; readonly envelope: Envelope }
  | { readonly era: "stateless-notification" }
  | { readonly era: "refused"; readonly refusal: EraRefusal };

type Meta = Readonly<Record<string, unknown>>;

/** A request or a notification, and what its headers say of it. */
interface Post {
  readonly method: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly meta: Meta | undefined;
  readonly versionHeader: string | undefined;
  readonly methodHeader: string | undefined;
  readonly nameHeader: string | undefined;
  readonly hasSession: boolean;
}

const session: Classified = { era: "session" };

/** `headers`: as node:http gives them. One that was sent twice is joined there, and equals nothing. */
export function classify(read: ReadMessage | readonly ReadMessage[], headers: IncomingHttpHeaders): Classified {
  if (!("message" in read)) {
    if (!read.some(({ params }) => claims(metaOf(params)))) return session;
    return refused(errorCodes.invalidRequest, `a request of MCP ${statelessVersion} or later can't be in a batch`);
  }
  const { message, params } = read;
  if (message.method === undefined) return session; // only sessions have requests that a client answers
  const post: Post = {
    method: message.method,
    params,
    meta: metaOf(params),
    versionHeader: headerOf(headers, "mcp-protocol-version"),
    methodHeader: headerOf(headers, "mcp-method"),
    nameHeader: headerOf(headers, "mcp-name"),
    hasSession: headers["mcp-session-id"] !== undefined,
  };
  return message.id === undefined ? classifyNotification(post) : classifyRequest(post);
}

function classifyRequest(post: Post): Classified {
  const { method, meta, versionHeader } = post;
  const problems = claims(meta) ? envelopeProblems(meta) : [];
  const version = claimedVersion(meta);
  // The handshake is of the session era, whatever keys it carries, unless all of a stateless request is there.
  if (method === "initialize" && (problems.length > 0 || !isStateless(version))) {
    if (!isStateless(versionHeader)) return session;
    return headerMismatch(`MCP-Protocol-Version names a version without "initialize"`);
  }
  if (!claims(meta)) return isStateless(versionHeader) ? missingEnvelope(meta) : session;
  if (isStrayClaim(post)) return session;
  if (problems.length > 0) return refused(errorCodes.invalidParams, `params._meta: ${problems.join("; ")}`, { problems });
  const mismatch = versionMismatch(post) ?? methodMismatch(post);
  if (mismatch !== undefined) return headerMismatch(mismatch);
  if (!(supportedStatelessVersions as readonly unknown[]).includes(version)) return unsupportedVersion(version);
  const missing = missingHeader(post) ?? nameMismatch(post);
  if (missing !== undefined) return headerMismatch(missing);
  return { era: "stateless", envelope: envelopeOf(meta) };
}

// No notification of a client means anything without a session. Hence only the era is asked for: nothing but the version of the
// envelope counts, no header must be there, and one of a version that we don't know is let go like the others.
function classifyNotification(post: Post): Classified {
  if (isStrayClaim(post)) return session;
  const version = claims(post.meta) ? claimedVersion(post.meta) : post.versionHeader;
  if (claims(post.meta) && typeof version !== "string")
    return refused(errorCodes.invalidParams, `params._meta: ${quoted(metaKeys.protocolVersion)} is not a string`);
  const mismatch = versionMismatch(post) ?? (isStateless(version) ? methodMismatch(post) : undefined);
  if (mismatch !== undefined) return headerMismatch(mismatch);
  return isStateless(version) ? { era: "stateless-notification" } : session;
}

function metaOf({ _meta }: Readonly<Record<string, unknown>>): Meta | undefined {
  return isObject(_meta) ? _meta : undefined;
}

/** Whether a message says that it needs no session: the version key alone says so, however wrong the rest is. */
function claims(meta: Meta | undefined): meta is Meta {
  return meta !== undefined && Object.hasOwn(meta, metaKeys.protocolVersion);
}

function claimedVersion(meta: Meta | undefined): unknown {
  return claims(meta) ? meta[metaKeys.protocolVersion] : undefined;
}

// Versions are dates, and whatever sorts behind the first stateless one is taken for a later one: a version that nobody knows yet
// must be refused as such, and not be served as if it had said nothing.
function isStateless(version: unknown): boolean {
  return typeof version === "string" && version >= statelessVersion;
}

/** A client in a session that sends the key, but names no version without sessions: the key means nothing there. */
function isStrayClaim({ meta, versionHeader, hasSession }: Post): boolean {
  const version = claimedVersion(meta);
  return hasSession && typeof version === "string" && !isStateless(version) && !isStateless(versionHeader);
}

function envelopeProblems(meta: Meta): string[] {
  const problems: string[] = [];
  const check = (key: string, isRight: (value: unknown) => boolean, wanted: string) => {
    if (!isRight(meta[key])) problems.push(`${quoted(key)} is ${Object.hasOwn(meta, key) ? `not ${wanted}` : "missing"}`);
  };
  check(metaKeys.protocolVersion, (value) => typeof value === "string", "a string");
  check(metaKeys.clientCapabilities, isObject, "an object");
  if (Object.hasOwn(meta, metaKeys.clientInfo))
    check(metaKeys.clientInfo, (value) => isObject(value) && typeof value.name === "string", "an object with a name");
  if (Object.hasOwn(meta, metaKeys.logLevel))
    check(metaKeys.logLevel, (value) => (logLevels as readonly unknown[]).includes(value), `one of ${logLevels.join(", ")}`);
  return problems;
}

function missingEnvelope(meta: Meta = {}): Classified {
  const missing = [metaKeys.protocolVersion, metaKeys.clientCapabilities].filter((key) => !Object.hasOwn(meta, key));
  const lacks = missing.map(quoted).join(" and ");
  const message = `MCP-Protocol-Version names a version without sessions, but params._meta lacks ${lacks}`;
  return refused(errorCodes.invalidParams, message, { missing });
}

function versionMismatch({ meta, versionHeader }: Post): string | undefined {
  if (!claims(meta) || versionHeader === undefined || versionHeader === claimedVersion(meta)) return undefined;
  return "MCP-Protocol-Version names another version than params._meta";
}

function methodMismatch({ method, methodHeader }: Post): string | undefined {
  return methodHeader === undefined || methodHeader === method ? undefined : "Mcp-Method names another method than the body";
}

function missingHeader({ versionHeader, methodHeader }: Post): string | undefined {
  if (versionHeader === undefined) return "MCP-Protocol-Version is missing";
  return methodHeader === undefined ? "Mcp-Method is missing" : undefined;
}

// A parameter that is missing or no string is for the method to complain about.
function nameMismatch({ method, params, nameHeader }: Post): string | undefined {
  const param = nameParams.get(method);
  if (param === undefined) return undefined;
  const wanted = params[param];
  if (nameHeader === undefined) return typeof wanted === "string" ? `Mcp-Name is missing; it repeats params.${param}` : undefined;
  const name = decodeHeaderValue(nameHeader);
  if (name === undefined) return "Mcp-Name is not Base64 of UTF-8";
  return typeof wanted === "string" && name !== wanted ? `Mcp-Name says something else than params.${param}` : undefined;
}

function envelopeOf(meta: Meta): Envelope {
  return {
    protocolVersion: meta[metaKeys.protocolVersion] as string,
    capabilities: meta[metaKeys.clientCapabilities] as Readonly<Record<string, unknown>>,
    clientInfo: meta[metaKeys.clientInfo],
    logLevel: meta[metaKeys.logLevel] as string | undefined,
  };
}

function unsupportedVersion(requested: unknown): Classified {
  const supported = [...supportedStatelessVersions];
  const message = `this version of MCP is not spoken here without a session, only ${supported.join(", ")}`;
  return refused(statelessErrors.unsupportedVersion, message, { supported, requested });
}

function headerMismatch(message: string): Classified {
  return refused(statelessErrors.headerMismatch, message);
}

function refused(code: number, message: string, data?: unknown): Classified {
  return { era: "refused", refusal: { status: 400, code, message, ...(data === undefined ? {} : { data }) } };
}

function headerOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  if (value === undefined) return undefined;
  return trimOptionalSpace(typeof value === "string" ? value : value.join(", "));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function quoted(key: string): string {
  return `"${key}"`;
}
