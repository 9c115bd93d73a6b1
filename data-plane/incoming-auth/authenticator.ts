// What the ingress asks of incoming auth. Every answer is one of two kinds, so that an error can't look like a caller.
import type { IncomingHttpHeaders } from "node:http";
import type { Caller } from "./caller.ts";

/** Of one HTTP request, what tells who makes it. */
export interface Presented {
  readonly headers: IncomingHttpHeaders;
  /** In upper case. */
  readonly method: string;
  /** As the client wrote it, without query; for proofs that are bound to it (RFC 9449). */
  readonly url: string;
  /** Of the connection. */
  readonly remoteAddress: string | undefined;
}

export type Verdict = { readonly caller: Caller; readonly refusal?: undefined } | { readonly refusal: Refusal };

/** Why a request is not let in. The words reach the client: nothing of the token, of other users or of our network in them. */
export interface Refusal {
  /** 400: more than one credential. 401: none, or one that is not good. 403: good, but not for this. 503: nobody can tell now. */
  readonly status: 400 | 401 | 403 | 503;
  /** Of the challenge (RFC 6750 section 3.1, RFC 9449 section 7.1); undefined when no credential was shown. */
  readonly error?: "invalid_request" | "invalid_token" | "insufficient_scope" | "invalid_dpop_proof";
  readonly description: string;
  /** Everything that this request needs, for 403. */
  readonly scopes?: readonly string[];
}

export interface Authenticator {
  /** Never throws, never rejects: what goes wrong is a refusal. Not a promise when the answer is known already. */
  authenticate(presented: Presented): Verdict | Promise<Verdict>;
  /** Every scope that a call of this tool needs; without a tool, that any request needs. */
  scopesFor(tool?: string): readonly string[];
  /** What clients discover (RFC 9728); undefined when no token is wanted. */
  readonly discovery: Discovery | undefined;
}

export interface Discovery {
  readonly authorizationServers: readonly string[];
  readonly scopes: readonly string[];
  /** Identifies the resource. Undefined: its URL. */
  readonly resource: string | undefined;
  /** DPoP proofs are understood (RFC 9449). */
  readonly dpopAlgorithms: readonly string[];
}
