// One request of a client, and how a method answers it.

import type { IncomingHttpHeaders } from "node:http";
import type { View } from "../aggregation/view.ts";
import type { BackendError } from "../backends/errors.ts";
import type { Limit } from "../backends/limit.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { errorCodes, errorResponse, type Message, type Written } from "../mcp/json-rpc.ts";
import type { Envelope } from "../mcp/stateless.ts";
import type { ParkedCalls } from "../relay/parked-calls.ts";
import type { Relay } from "../relay/relay.ts";
import type { CallerTokens, CallState } from "../session/caller-tokens.ts";
import type { Session } from "../session/session.ts";
import type { VirtualServer } from "../virtual-server.ts";

export interface Call {
  readonly message: Message;
  /** Raw text of the request's id. */
  readonly id: string;
  /** Parsed, for looking up; what goes on is spliced from the bytes. */
  readonly params: Readonly<Record<string, unknown>>;
  readonly session: Session;
  /** For whom this very request is; others of the session may be for another token of the same caller. */
  readonly caller: Caller;
  /** Of the client's request. */
  readonly headers: IncomingHttpHeaders;
  readonly server: VirtualServer;
  /** What this client sees, from the beginning of the call to its end. */
  readonly view: View;
  /** Ends the call: at its deadline, when the client cancels, when the session ends. */
  readonly limit: Limit;
  /** Sends a message on the call's own stream, before the answer. When the client is slow: a promise to wait for before the next. */
  notify(message: Buffer): Promise<void> | undefined;
  readonly relay: Relay;
  readonly tokens: CallerTokens;
  /** We make it for the client, on top of what it asked; see CallOptions. */
  readonly isIncidental?: true;
  /** What only requests of the stateless era have; undefined for those inside a session. */
  readonly stateless: StatelessCall | undefined;
}

export interface StatelessCall {
  readonly envelope: Envelope;
  /** Where the call goes on that this request is a retry of. */
  readonly state: CallState | undefined;
  readonly parked: ParkedCalls;
  /** Where other replicas reach this one. */
  readonly self: () => Self;
}

/** This replica. */
export interface Self {
  /** Where others reach it. */
  readonly address: string;
  /** New with each start. */
  readonly instance: string;
  /** The same, short: 8 lower-case letters and digits. */
  readonly replica: string;
}

/** Gives the whole JSON-RPC response. */
export type Method = (call: Call) => Written | Promise<Written>;

/** The response that says a parameter is wrong. */
export function invalidParams(call: Call, message: string, data?: unknown): Buffer {
  return errorResponse(call.id, { code: errorCodes.invalidParams, message, data });
}

/** The response that says that there is no such resource; each era has its code for it. */
export function noSuchResource(call: Call, uri: string): Buffer {
  const code = call.stateless ? errorCodes.invalidParams : errorCodes.resourceNotFound;
  return errorResponse(call.id, { code, message: `resource not found: ${uri}`, data: { uri } });
}

/**
 * The response that says why a backend gave none; `data.outcome` is honest about whether the call may have run. Of
 * a backend that is left alone, `data.sinceMs` is how long it has been, and `data.retryAfterMs` when to try again, both in milliseconds.
 */
export function backendFailure(call: Call, backend: string, error: BackendError): Buffer {
  const outcome = error.outcome === "not_executed" ? "the call was not executed" : "whether the call ran is not known";
  return errorResponse(call.id, {
    code: errorCodes.internal,
    message: `backend "${backend}" ${wording[error.code]}, ${outcome}: ${error.message}`,
    data: { reason: `backend_${error.code}`, backend, outcome: error.outcome, ...error.leftAlone },
  });
}

const wording: Readonly<Record<BackendError["code"], string>> = {
  unavailable: "is unavailable",
  gone: "is gone",
  timeout: "did not answer in time",
  session_gone: "lost its session",
  bad_answer: "gave no usable answer",
  refused: "refused the request",
  unauthorized: "refused our credential",
  no_credential: "is not called without a credential",
  unanswered: "asked something that nobody answered",
  shed: "is not called at the moment",
};
