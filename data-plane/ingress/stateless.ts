// Requests of the stateless era: each says for itself what a session would know, and is answered on its own response.
// Source: MCP 2026-07-28, transports, streamable HTTP.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Log } from "../../common/log.ts";
import { createLimit } from "../backends/limit.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { withEnvelope } from "../mcp/envelope.ts";
import { errorCodes, errorResponse, readMessage, type Written } from "../mcp/json-rpc.ts";
import { isUnreadable } from "../mcp/scan.ts";
import { type Envelope, metaKeys, statelessErrors, tasksExtension } from "../mcp/stateless.ts";
import { errorOf } from "../mcp/translate.ts";
import type { Call, Method, StatelessCall } from "../methods/call.ts";
import { offersNeeded, statelessMethods } from "../methods/registry.ts";
import type { Overload } from "../overload/overload.ts";
import type { ParkedCalls } from "../relay/parked-calls.ts";
import type { Relay } from "../relay/relay.ts";
import type { CallerTokens, CallState } from "../session/caller-tokens.ts";
import { abilitiesOf, type Callers } from "../session/callers.ts";
import type { Session } from "../session/session.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { createAnswer } from "./answer.ts";
import type { OwnerForwarder } from "./forward-to-owner.ts";
import { serveListen } from "./listen.ts";
import type { ReadMessage } from "./read-request.ts";
import { refuse } from "./refuse.ts";
import { createResponseStream } from "./response-stream.ts";
import { shed } from "./shed.ts";
import { type Tapping, tapped } from "./tapped.ts";

export interface StatelessOptions {
  readonly callers: Callers;
  readonly tokens: CallerTokens;
  readonly parked: ParkedCalls;
  readonly relay: Relay;
  readonly owners: OwnerForwarder;
  readonly overload: Overload;
  readonly tap: Tapping;
  /** Where other replicas reach this one. */
  readonly self: StatelessCall["self"];
  readonly log: Log;
}

export interface StatelessExchange extends StatelessOptions {
  readonly server: VirtualServer;
  readonly caller: Caller;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly prefersStream: boolean;
  /** How long a call may say nothing before it is answered as a stream, milliseconds. */
  readonly silentMs: number;
}

const preferenceMs = 50;
const noLongerThere = "the requestState is of no call that waits for input; call again without it";

/** Serves one request; never rejects. */
export async function serveStateless(
  exchange: StatelessExchange,
  read: ReadMessage,
  envelope: Envelope,
  body: Buffer,
): Promise<void> {
  const { server, request, response, callers } = exchange;
  const name = read.message.method as string;
  const id = read.message.id as string;
  const isListen = name === "subscriptions/listen";
  const method = statelessMethods.get(name);
  const notFound = (message: string) => refuse(response, 404, message, { id, code: errorCodes.methodNotFound });
  if (!method && !isListen) return notFound(`unknown method: ${name}`);

  const { identity } = exchange.caller;
  const abilities = abilitiesOf(envelope.capabilities);
  const asking = { virtualServer: server.name, identity, caller: exchange.caller, capabilities: abilities };
  if (exchange.overload.isClosedTo("strangers") && !callers.knows(asking)) return shed(exchange, "under_pressure", id);
  const known = callers.of(asking);
  if (!known)
    return refuse(response, 503, "too many callers", { id, code: errorCodes.internal, headers: { "retry-after": "1" } });
  const { session } = known;
  const joining = server.join(session);
  if (joining !== undefined) await joining;
  if (response.destroyed) return; // whoever asked is gone, and nothing has run
  const offer = offersNeeded.get(name);
  const view = server.viewOf(session);
  if (offer !== undefined && !view.offers.has(offer)) return notFound(`no server here offers ${offer}`);

  const state = stateOf(exchange, session, read);
  if (state === "invalid") return respondInvalid(exchange, id, noLongerThere);
  if (state?.kind === "parked" && (await isElsewhere(exchange, state, id, body))) return;

  const limit = createLimit();
  const call: Omit<Call, "notify"> = {
    message: carried(read, envelope),
    id,
    params: read.params,
    session,
    caller: exchange.caller,
    headers: request.headers,
    server,
    view,
    limit,
    relay: exchange.relay,
    tokens: exchange.tokens,
    stateless: { envelope, state, parked: exchange.parked, self: exchange.self },
  };
  if (isListen) return serveListen(call, response);
  // Whoever goes away wants no answer any more. A call that waits for input has been answered, for now.
  response.once("close", () => {
    if (!response.writableFinished) limit.abort(new Error("the client went away"));
  });
  await answer(exchange, call, method as NonNullable<typeof method>);
}

async function answer(
  { response, prefersStream, silentMs, tap, log }: StatelessExchange,
  call: Omit<Call, "notify">,
  method: Method,
): Promise<void> {
  const { id, session, limit, server } = call;
  // Some errors have a status of their own, which a stream that was opened at once could not have.
  const silence = prefersStream ? Math.min(silentMs, preferenceMs) : silentMs;
  const answering = createAnswer(response, {
    openStream: createResponseStream,
    prefersStream: false,
    silentMs: silence,
    statusOf,
  });
  // Ids of requests are unique for whoever made them, and many make them here.
  const key = Symbol(id);
  session.calls.set(key, limit);
  try {
    const whole = { ...call, notify: answering.notify };
    answering.respond(await (tap.isOn ? tapped(tap, whole, method) : method(whole)));
  } catch (error) {
    if (limit.signal.aborted) return answering.close();
    const message = isUnreadable(error) ? "the backend's answer can't be read" : "internal error";
    if (!isUnreadable(error))
      log.error({ err: error, method: call.message.method, virtualServer: server.name }, "a request failed");
    answering.respond(errorResponse(id, { code: errorCodes.internal, message }));
  } finally {
    session.calls.delete(key);
    session.usedAtMs = performance.now();
  }
}

/** Where the call goes on that a request is a retry of; undefined when it is none. */
function stateOf(
  { tokens }: StatelessExchange,
  session: Session,
  { message, params }: ReadMessage,
): CallState | "invalid" | undefined {
  const { requestState, inputResponses } = params;
  if (
    inputResponses !== undefined &&
    (typeof inputResponses !== "object" || inputResponses === null || Array.isArray(inputResponses))
  )
    return "invalid";
  if (requestState === undefined) return undefined;
  if (typeof requestState !== "string") return "invalid";
  return tokens.openState(session, { method: message.method as string, params }, requestState) ?? "invalid";
}

/** Whether a parked call is on another replica, which answers then, or was on one that is gone. */
async function isElsewhere(
  { owners, self, request, response, ...exchange }: StatelessExchange,
  { owner, instance }: Extract<CallState, { kind: "parked" }>,
  id: string,
  body: Buffer,
): Promise<boolean> {
  const { address, instance: own } = self();
  if (instance === own) return false;
  const gone = () => respondInvalid({ response, ...exchange }, id, noLongerThere);
  if (owner === address || owners.isForwarded(request)) gone();
  else await owners.forward(owner, request, response, body, { id, onLost: gone });
  return true;
}

function respondInvalid({ response }: Pick<StatelessExchange, "response">, id: string, message: string): void {
  refuse(response, 200, message, { id, code: errorCodes.invalidParams });
}

/** The request as it may go on: what its client can do, as far as it can be done through us. */
function carried({ message }: ReadMessage, { capabilities }: Envelope): Call["message"] {
  const { extensions } = capabilities;
  if (extensions === undefined) return message;
  const named = Object.entries(typeof extensions === "object" && extensions !== null ? extensions : {});
  const kept = Object.fromEntries(named.filter(([name]) => name === tasksExtension));
  if (named.length > 0 && named.every(([name]) => name === tasksExtension)) return message;
  return withEnvelope(message, { [metaKeys.clientCapabilities]: JSON.stringify({ ...capabilities, extensions: kept }) });
}

const statuses: ReadonlyMap<number, number> = new Map([
  [errorCodes.methodNotFound, 404],
  ...Object.values(statelessErrors).map((code) => [code, 400] as const),
]);

/** Some errors have a status of their own, the rest is told in the body alone. */
function statusOf(message: Written): number {
  if (!Buffer.isBuffer(message)) return 200; // in pieces are lists only
  if (!message.includes('"error"')) return 200;
  const answered = readMessage(message);
  return answered.error ? (statuses.get(errorOf(answered).code) ?? 200) : 200;
}
