// Who may come in, and for what: every request to an endpoint goes through here, and nothing of it is believed before. Refusals
// tell clients where to get a token, and which (RFC 6750 section 3, RFC 9728 section 5.1; MCP 2025-11-25, authorization).
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Refusal, Verdict } from "../incoming-auth/authenticator.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { metadataUrl, urlOf } from "./discovery.ts";
import type { ReadMessage } from "./read-request.ts";
import { refuse } from "./refuse.ts";

export interface AdmissionOptions {
  /** Where clients reach us, `https://host[:port]`; undefined: as they say themselves. */
  readonly publicUrl: string | undefined;
}

type Arrival = AdmissionOptions & {
  readonly server: VirtualServer;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
};

/** The caller, at once when it is known; undefined when the request was refused here. Never throws. */
export function admit(arrival: Arrival): Caller | undefined | Promise<Caller | undefined> {
  const { server, request } = arrival;
  const presented = {
    headers: request.headers,
    method: request.method ?? "",
    url: urlOf(arrival, arrival),
    remoteAddress: request.socket.remoteAddress,
  };
  const verdict = server.auth.authenticate(presented);
  return verdict instanceof Promise ? verdict.then((settled) => admitted(arrival, settled)) : admitted(arrival, verdict);
}

function admitted(arrival: Arrival, verdict: Verdict): Caller | undefined {
  if (verdict.refusal) return void refuseWith(arrival, verdict.refusal);
  const { caller } = verdict;
  return hasScopes(arrival, caller, arrival.server.auth.scopesFor()) ? caller : undefined;
}

/** Whether the caller may do all that is asked; refuses the request when not. */
export function mayCall(arrival: Arrival, caller: Caller, read: ReadMessage | readonly ReadMessage[]): boolean {
  if ("message" in read) return hasScopes(arrival, caller, scopesOf(arrival, read));
  return hasScopes(arrival, caller, [...new Set(read.flatMap((one) => scopesOf(arrival, one)))]);
}

function scopesOf({ server }: Arrival, { message, params }: ReadMessage): readonly string[] {
  return message.method === "tools/call" && typeof params.name === "string" ? server.auth.scopesFor(params.name) : [];
}

function hasScopes(arrival: Arrival, caller: Caller, needed: readonly string[]): boolean {
  if (needed.every((scope) => caller.scopes.has(scope))) return true;
  const description = `this needs the scope ${needed.join(" ")}`;
  refuseWith(arrival, { status: 403, error: "insufficient_scope", description, scopes: needed });
  return false;
}

function refuseWith(arrival: Arrival, refusal: Refusal): void {
  const { status, description } = refusal;
  const headers: Record<string, string> = status === 503 ? { "retry-after": "1" } : challengeOf(arrival, refusal);
  refuse(arrival.response, status, description, { headers });
}

/** `WWW-Authenticate`; none where no token would help. */
function challengeOf(arrival: Arrival, { error, description, scopes }: Refusal): Record<string, string> {
  const { discovery } = arrival.server.auth;
  if (!discovery) return {};
  const wanted = scopes ?? discovery.scopes;
  const fields = [
    ...(error ? [`error="${error}"`, `error_description="${quotable(description)}"`] : []),
    ...(wanted.length > 0 ? [`scope="${wanted.join(" ")}"`] : []),
    `resource_metadata="${metadataUrl(arrival, arrival)}"`,
  ].join(", ");
  const dpop = `DPoP algs="${discovery.dpopAlgorithms.join(" ")}", ${fields}`;
  return { "www-authenticate": error === "invalid_dpop_proof" ? dpop : `Bearer ${fields}` };
}

/** RFC 6750 section 3: visible ASCII without quotes and backslashes. */
function quotable(text: string): string {
  return text.replace(/[^\x20-\x21\x23-\x5b\x5d-\x7e]/g, " ");
}
