// A token that somebody vouched for, as it is remembered.
import { createHash } from "node:crypto";
import { Secret } from "../secrets.ts";
import type { AccessToken, Confirmation, TokenRules } from "./access-token.ts";
import type { Refusal } from "./authenticator.ts";
import type { Caller } from "./caller.ts";

export interface VerifiedToken {
  /** The same object for every request with this token. */
  readonly verdict: { readonly caller: Caller };
  readonly confirmation: Confirmation | undefined;
  readonly clockSkewMs: number;
  /** Milliseconds since 1970, skew included. */
  readonly goodUntilMs: number;
  /** On the clock that never goes back. */
  readonly knownUntilMs: number;
  /** Whether who vouched would still do so. Cheap. */
  isCurrent(): boolean;
}

export type Judgement = { readonly verified: VerifiedToken; readonly refusal?: undefined } | { readonly refusal: Refusal };

export interface Vouched {
  readonly token: string;
  readonly read: AccessToken;
  readonly rules: TokenRules;
  /** Default: for as long as it is good. */
  readonly knownUntilMs?: number;
  readonly isCurrent: () => boolean;
}

export function createVerifiedToken({ token, read, rules, knownUntilMs = Infinity, isCurrent }: Vouched): VerifiedToken {
  const { subject, client, scopes, confirmation, expiresAtMs } = read;
  const digest = createHash("sha256").update(token).digest("base64url");
  const key = confirmation?.jkt ?? confirmation?.certificate;
  const caller: Caller = {
    identity: {
      issuer: rules.issuer,
      subject,
      isAnonymous: false,
      ...(client === undefined ? {} : { client }),
      ...(key === undefined ? {} : { confirmation: key }),
      tokenDigest: digest,
    },
    token: { secret: new Secret(token), digest, expiresAtMs },
    scopes,
  };
  const goodUntilMs = expiresAtMs + rules.clockSkewMs;
  return { verdict: { caller }, confirmation, clockSkewMs: rules.clockSkewMs, goodUntilMs, knownUntilMs, isCurrent };
}
