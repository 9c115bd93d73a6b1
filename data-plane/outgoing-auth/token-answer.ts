// What a token endpoint answered: a token that may be shown to the backend, for so long, or why it may not.
import type { TokenFailure } from "./token-metrics.ts";

/** What was asked for. */
export interface Asked {
  /** URN; undefined where the grant has no such thing. */
  readonly requestedType: string | undefined;
  /** Audience and resource, whichever were asked for. */
  readonly audiences: readonly string[];
  /** Of the caller, which must not go to a backend. */
  readonly subjectToken: string | undefined;
  /** The longest life that is believed, and that of a token which says nothing of it. Default: a day and a minute. */
  readonly lifetimes?: { readonly maxMs: number; readonly defaultMs: number };
}

export interface Token {
  readonly text: string;
  /** Milliseconds since 1970, and never further ahead than was asked for. Past: it was good for one request at most. */
  readonly endsMs: number;
  /** Gets the next one (RFC 6749 6), where the grant gives such a thing. */
  readonly refreshToken?: string;
}

/** No token that may be shown. `reason` is for operators: nothing of what came is in it. */
export class TokenAnswerError extends Error {
  override name = "TokenAnswerError";
  readonly failure: TokenFailure;

  constructor(failure: "bad_answer" | "wrong_token", reason: string) {
    super(reason);
    this.failure = failure;
  }
}

const tokenLengthMax = 16 * 1024;
const usualLifetimes = { defaultMs: 60_000, maxMs: 24 * 60 * 60_000 };
const typePrefix = "urn:ietf:params:oauth:token-type:";
export const accessTokenType = `${typePrefix}access_token`;
const jwtType = `${typePrefix}jwt`;

/** The URN of a token type that may be written as `access_token`, `id_token` or `jwt`; unset is an access token. */
export function tokenTypeOf(name: string): string {
  return name.includes(":") ? name : `${typePrefix}${name || "access_token"}`;
}

/**
 * Checks an answer of status 200 (RFC 6749 5.1, RFC 8693 2.2.1). Throws TokenAnswerError.
 *
 * Its life is `expires_in`, or that of the JWT it is, whichever is shorter; without both 60 s. Zero and less are over at once. What
 * is no number says nothing.
 */
export function readToken(text: string, asked: Asked, nowMs: number): Token {
  const answer = parseObject(text);
  if (!answer) throw new TokenAnswerError("bad_answer", "the answer is no JSON object");
  const {
    access_token: token,
    token_type: type,
    issued_token_type: issued,
    expires_in: seconds,
    refresh_token: refresh,
  } = answer;
  if (typeof token !== "string" || token === "") throw new TokenAnswerError("wrong_token", "there is no access_token in it");
  if (token.length > tokenLengthMax) throw new TokenAnswerError("wrong_token", `the token is longer than ${tokenLengthMax}`);
  if (!/^[\x21-\x7e]+$/.test(token)) throw new TokenAnswerError("wrong_token", "the token holds what a header can't");
  if (typeof type !== "string" || type.toLowerCase() !== "bearer")
    throw new TokenAnswerError("wrong_token", "the token is none that is shown as Bearer");
  if (asked.requestedType !== undefined && issued !== undefined && !isAsKind(issued, asked.requestedType))
    throw new TokenAnswerError("wrong_token", "the token is of another type than was requested");
  if (token === asked.subjectToken) throw new TokenAnswerError("wrong_token", "the token is the caller's own");
  const claims = readClaims(token);
  if (claims && !isFor(claims.aud, asked.audiences))
    throw new TokenAnswerError("wrong_token", "the token is for another audience than was requested");
  const expiresMs = typeof claims?.exp === "number" ? claims.exp * 1_000 : undefined;
  if (expiresMs !== undefined && expiresMs <= nowMs) throw new TokenAnswerError("wrong_token", "the token has expired already");
  const { defaultMs, maxMs } = asked.lifetimes ?? usualLifetimes;
  const saidMs = lifetimeOf(seconds);
  const lifetimeMs = Math.min(
    saidMs ?? (expiresMs === undefined ? defaultMs : maxMs),
    expiresMs === undefined ? maxMs : expiresMs - nowMs,
    maxMs,
  );
  const isRefresh = typeof refresh === "string" && refresh !== "" && refresh.length <= tokenLengthMax;
  return { text: token, endsMs: nowMs + lifetimeMs, ...(isRefresh ? { refreshToken: refresh } : {}) };
}

function isAsKind(issued: unknown, requested: string): boolean {
  // An access token may well be a JWT, and say so.
  return issued === requested || issued === accessTokenType || issued === jwtType;
}

/** Seconds as a number, or written as one, which some servers do. */
function lifetimeOf(seconds: unknown): number | undefined {
  const value = typeof seconds === "string" && /^\d{1,15}$/.test(seconds) ? Number(seconds) : seconds;
  return typeof value === "number" && Number.isFinite(value) ? Math.max(0, value * 1_000) : undefined;
}

/** Claims of a JWT, whose signature is the backend's to check; undefined when it is none. */
function readClaims(token: string): Record<string, unknown> | undefined {
  const parts = token.split(".");
  return parts.length === 3 ? parseObject(Buffer.from(parts[1] as string, "base64url").toString()) : undefined;
}

/** One of the audiences is enough: servers differ in whether audience or resource is what they write down. */
function isFor(aud: unknown, audiences: readonly string[]): boolean {
  if (aud === undefined || audiences.length === 0) return true;
  const named = Array.isArray(aud) ? aud : [aud];
  return audiences.some((audience) => named.includes(audience));
}

/** Undefined when the text is no JSON object. */
export function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
