// The rules that the claims of an access token obey, whoever vouches for them: a signature or an introspection endpoint.
// Sources: RFC 7519 section 4.1, RFC 9068, RFC 7800, RFC 8725. Pure.
import { isObject, type Members } from "./compact-jws.ts";

export interface TokenRules {
  readonly issuer: string;
  /** One that the token must name, exactly so. */
  readonly audience: string;
  /** Besides `exp`, `iat`, `sub` and `aud`. */
  readonly requiredClaims: readonly string[];
  /** Since `iat`. A token is over then, whatever its `exp` says. */
  readonly maxTokenAgeMs: number;
  readonly clockSkewMs: number;
  /** Only tokens that say that they are access tokens (RFC 9068). */
  readonly wantsType: boolean;
}

export interface AccessToken {
  readonly subject: string;
  readonly client: string | undefined;
  readonly scopes: ReadonlySet<string>;
  /** Undefined: whoever has the token may use it. */
  readonly confirmation: Confirmation | undefined;
  /** `exp`, or the end of the longest age when that comes first; milliseconds since 1970, without skew. */
  readonly expiresAtMs: number;
}

/** What the caller must prove to have. All of what is there. */
export interface Confirmation {
  /** Thumbprint of a key (RFC 9449 section 6.1). */
  readonly jkt: string | undefined;
  /** SHA-256 of a certificate (RFC 8705 section 3.1). */
  readonly certificate: string | undefined;
}

/** Who vouches for the claims: `typ` is that of a JWT's header. */
export type Source = { readonly kind: "jwt"; readonly typ: string | undefined } | { readonly kind: "introspection" };

export interface Judged {
  readonly claims: Members;
  readonly source: Source;
  readonly nowMs: number;
}

/** The token, or what is wrong with it: words that follow "the token", fit for the caller. */
export function readAccessToken(rules: TokenRules, judged: Judged): AccessToken | { readonly problem: string } {
  const { claims } = judged;
  const problem =
    kindProblem(rules, judged) ??
    issuerProblem(rules, judged) ??
    timeProblem(rules, judged) ??
    audienceProblem(claims, rules.audience) ??
    (isName(claims.sub) ? undefined : "has no subject that could be a name") ??
    rules.requiredClaims.map((name) => (isThere(claims, name) ? undefined : "lacks a claim that is required")).find(Boolean);
  if (problem) return { problem };
  const client = claims.azp ?? claims.client_id;
  if (client !== undefined && !isName(client)) return { problem: "has a client that could not be a name" };
  const scopes = scopesOf(claims);
  if (!scopes) return { problem: "has scopes that are neither text nor a list of texts" };
  const confirmation = confirmationOf(claims.cnf);
  if (confirmation === "unknown") return { problem: "is bound in a way that this server can't check" };
  const { exp, iat } = claims as { exp: number; iat: number | undefined };
  const oldAtMs = iat === undefined ? Infinity : iat * 1_000 + rules.maxTokenAgeMs;
  return { subject: claims.sub as string, client, scopes, confirmation, expiresAtMs: Math.min(exp * 1_000, oldAtMs) };
}

const accessTokenTypes = new Set(["at+jwt", "application/at+jwt"]);
const plainTypes = new Set(["jwt", "application/jwt"]);
// Keycloak says the kind in the payload, others in `token_use`. Only kinds that are known to be for servers like us.
const payloadTypes = new Set([...accessTokenTypes, ...plainTypes, "bearer", "dpop"]);
const uses = new Set(["access", "access_token"]);
const idTokenClaims = ["nonce", "at_hash", "c_hash", "s_hash"];

/** Other kinds of token have the same issuer, keys and often audience (RFC 8725 section 2.8). */
function kindProblem({ wantsType }: TokenRules, { claims, source }: Judged): string | undefined {
  const typ = source.kind === "jwt" ? source.typ?.toLowerCase() : undefined;
  const saysSo = typ !== undefined && accessTokenTypes.has(typ);
  if (wantsType && source.kind === "jwt" && !saysSo) return "does not say that it is an access token (at+jwt)";
  if (typ !== undefined && !saysSo && !plainTypes.has(typ)) return "is of another type";
  if (isThere(claims, "typ") && !isOneOf(claims.typ, payloadTypes)) return "is of another type";
  if (isThere(claims, "token_use") && !isOneOf(claims.token_use, uses)) return "is for another use";
  if (source.kind === "introspection" && isThere(claims, "token_type") && !isOneOf(claims.token_type, payloadTypes))
    return "is of another type";
  if (isThere(claims, "events")) return "reports events"; // RFC 8417, of which a logout token is one
  if (!saysSo && idTokenClaims.some((name) => isThere(claims, name))) return "is an ID token";
  return undefined;
}

function issuerProblem({ issuer }: TokenRules, { claims, source }: Judged): string | undefined {
  if (source.kind === "introspection" && claims.iss === undefined) return undefined; // RFC 7662 section 2.2: optional
  return claims.iss === issuer ? undefined : "is of another issuer";
}

// RFC 7519 knows no limit. Beyond this nobody meant it: most likely milliseconds that were taken for seconds.
const lifetimeMaxMs = 10 * 366 * 24 * 60 * 60_000;

function timeProblem({ clockSkewMs, maxTokenAgeMs }: TokenRules, { claims, source, nowMs }: Judged): string | undefined {
  const { exp, iat, nbf } = claims;
  if (!isNumber(exp)) return "does not say until when it is good";
  // RFC 7662 section 2.2: optional, and the endpoint has looked at the age of what it says is active.
  const mayLackIssue = source.kind === "introspection" && iat === undefined;
  if (!mayLackIssue && !isNumber(iat)) return "does not say when it was issued";
  if (nbf !== undefined && !isNumber(nbf)) return "has a start that is no number";
  if (nowMs >= exp * 1_000 + clockSkewMs) return "has expired";
  if (exp * 1_000 > nowMs + lifetimeMaxMs) return "is good for longer than ten years";
  if (isNumber(iat) && iat * 1_000 > nowMs + clockSkewMs) return "was issued in the future";
  if (isNumber(iat) && nowMs >= iat * 1_000 + maxTokenAgeMs + clockSkewMs) return "was issued too long ago";
  if (isNumber(nbf) && nbf * 1_000 > nowMs + clockSkewMs) return "is not good yet";
  return undefined;
}

function audienceProblem({ aud }: Members, audience: string): string | undefined {
  const audiences = Array.isArray(aud) ? aud : [aud];
  if (!audiences.every((one) => typeof one === "string")) return "does not say whom it is for";
  return audiences.includes(audience) ? undefined : "is for another audience";
}

/** Undefined when they make no sense. `scope` is text (RFC 8693 section 4.2); some issuers give lists, or call it `scp`. */
function scopesOf({ scope, scp }: Members): ReadonlySet<string> | undefined {
  const scopes = new Set<string>();
  for (const value of [scope, scp]) {
    if (value === undefined) continue;
    const list: readonly unknown[] = typeof value === "string" ? value.split(" ") : Array.isArray(value) ? value : [undefined];
    for (const one of list) {
      if (typeof one !== "string") return undefined;
      if (one !== "") scopes.add(one);
    }
  }
  return scopes;
}

/** RFC 7800 section 3.1: what we don't understand can't be left out, because the issuer wanted it checked. */
function confirmationOf(cnf: unknown): Confirmation | undefined | "unknown" {
  if (cnf === undefined) return undefined;
  if (!isObject(cnf)) return "unknown";
  const names = Object.keys(cnf);
  if (names.length === 0 || !names.every((name) => name === "jkt" || name === "x5t#S256")) return "unknown";
  const { jkt, "x5t#S256": certificate } = cnf;
  if (!(jkt === undefined || isSha256(jkt)) || !(certificate === undefined || isSha256(certificate))) return "unknown";
  return { jkt, certificate };
}

function isSha256(value: unknown): value is string {
  return typeof value === "string" && /^[A-Za-z0-9_-]{43}$/.test(value);
}

const nameLengthMax = 255; // RFC 9068 section 2.2 by way of OpenID Connect Core section 2

/** Text that stays the same wherever it is logged, compared or kept. */
function isName(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= nameLengthMax && isPlainText(value);
}

function isPlainText(value: string): boolean {
  return value.isWellFormed() && !/[\p{Cc}\u2028\u2029]/u.test(value);
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

/** Own, because a claim may be called `constructor`. */
function isThere(claims: Members, name: string): boolean {
  return Object.hasOwn(claims, name) && claims[name] !== null && claims[name] !== "";
}

function isOneOf(value: unknown, words: ReadonlySet<string>): boolean {
  return typeof value === "string" && words.has(value.toLowerCase());
}
