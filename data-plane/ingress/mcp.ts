// The MCP endpoint of one virtual server, for both eras: POST, and for sessions GET and DELETE.
// Source: MCP 2025-11-25 and 2026-07-28, transports, streamable HTTP.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Caller } from "../incoming-auth/caller.ts";
import { errorCodes, request as rpcRequest } from "../mcp/json-rpc.ts";
import { isSessionVersion } from "../mcp/versions.ts";
import { UnboundCallerError } from "../session/binding.ts";
import { StoreUnavailableError } from "../session/record-store.ts";
import { notifySession, type Session } from "../session/session.ts";
import type { Sessions } from "../session/sessions.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { type AdmissionOptions, admit, mayCall } from "./admission.ts";
import { createAnswer } from "./answer.ts";
import { createBatchAnswers } from "./batch.ts";
import { type Classified, classify } from "./classify.ts";
import { answerRequest, type Place, takeMessage } from "./dispatch.ts";
import { openSession } from "./open-session.ts";
import { readBody } from "./read-body.ts";
import { type ReadMessage, readRequest } from "./read-request.ts";
import { refuse } from "./refuse.ts";
import { openCallLog, resumedFrom, serveStream } from "./session-streams.ts";
import { hasRoomForStream, isShedUnread, placeFor, shed } from "./shed.ts";
import { type StatelessOptions, serveStateless } from "./stateless.ts";

// How long a call may say nothing before it is answered as a stream.
const silentMs = 10_000;

export interface McpOptions extends StatelessOptions, AdmissionOptions {
  readonly sessions: Sessions;
  /** Where another replica is, by its short name; undefined when it is gone. */
  readonly addressOf: (replica: string) => Promise<string | undefined>;
  readonly bodyBytesMax: number;
}

interface Exchange extends McpOptions {
  readonly server: VirtualServer;
  readonly caller: Caller;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** Serves one HTTP request. What it rejects with is our own fault. */
export async function serveMcp(
  server: VirtualServer,
  request: IncomingMessage,
  response: ServerResponse,
  options: McpOptions,
): Promise<void> {
  const admitting = admit({ publicUrl: options.publicUrl, server, request, response });
  const caller = admitting instanceof Promise ? await admitting : admitting;
  if (!caller) return;
  const exchange = { ...options, server, caller, request, response };
  if (request.method === "POST") await post(exchange);
  else if (request.method === "GET") await get(exchange);
  else if (request.method === "DELETE") await remove(exchange);
  else refuse(response, 405, "only POST, GET and DELETE", { headers: { allow: "POST, GET, DELETE" } });
}

async function post(exchange: Exchange): Promise<void> {
  const { request, response } = exchange;
  if (!/^application\/json\s*(;|$)/i.test(request.headers["content-type"] ?? "")) {
    return refuse(response, 415, "Content-Type must be application/json");
  }
  if (!accepts(request, "application/json") || !accepts(request, "text/event-stream")) {
    return refuse(response, 406, "Accept must name application/json and text/event-stream");
  }
  if (isShedUnread(exchange)) return;
  const body = await readBody(request, exchange.bodyBytesMax).catch(() => Buffer.alloc(0));
  if (!body) return refuse(response, 413, `the body is larger than ${exchange.bodyBytesMax} bytes`);
  const read = readRequest(body);
  if ("status" in read) return refuse(response, read.status, read.message, { code: read.code });
  const kind = classify(read, request.headers);
  if (kind.era === "refused") {
    const { status, message, ...error } = kind.refusal;
    return refuse(response, status, message, { ...error, id: Array.isArray(read) ? undefined : read.message.id });
  }
  if (!mayCall(exchange, exchange.caller, read)) return;
  if (kind.era === "stateless-notification") return void response.writeHead(202).end(); // none of them means anything
  const requests = Array.isArray(read) ? read.filter(isRequest).length : Number(isRequest(read));
  if (requests === 0) return take(exchange, read, kind, body);
  // A stream is no call, and lasts.
  if (!Array.isArray(read) && kind.era === "stateless" && read.message.method === "subscriptions/listen")
    return hasRoomForStream(exchange, { id: read.message.id as string }) ? take(exchange, read, kind, body) : undefined;
  const entering = placeFor(exchange, read, requests);
  const place = entering instanceof Promise ? await entering : entering;
  if (!place) return;
  try {
    await take(exchange, read, kind, body);
  } finally {
    exchange.overload.leave(place);
  }
}

/** Takes what was read and let in. */
function take(
  exchange: Exchange,
  read: ReadMessage | ReadMessage[],
  kind: Exclude<Classified, { era: "refused" | "stateless-notification" }>,
  body: Buffer,
): Promise<void> | void {
  const { request } = exchange;
  if (kind.era === "stateless") {
    const stateless = { ...exchange, prefersStream: prefersStream(request), silentMs };
    return serveStateless(stateless, read as ReadMessage, kind.envelope, body);
  }
  if (!Array.isArray(read) && read.message.method === "initialize" && read.message.id !== undefined)
    return initialize(exchange, read);
  const finding = findSession(exchange);
  if (finding instanceof Promise) return finding.then((session) => session && takeIn(session, exchange, read, body));
  return finding && takeIn(finding, exchange, read, body);
}

function takeIn(session: Session, exchange: Exchange, read: ReadMessage | ReadMessage[], body: Buffer): Promise<void> | void {
  const { request, response, owners } = exchange;
  if (Array.isArray(read)) return postBatch(exchange, session, read);
  if (isRequest(read)) {
    const answer = createAnswer(response, {
      openStream: () => openCallLog(session, replicaOf(exchange)),
      prefersStream: prefersStream(request),
      silentMs,
    });
    return answerRequest(placeOf(exchange, session), read, answer);
  }
  const takeHere = (): void => {
    const refusal = takeMessage(placeOf(exchange, session), read);
    if (refusal !== undefined) return refuse(response, 400, refusal);
    response.writeHead(202).end();
  };
  // Who asked goes on with the call when it is answered; when that replica is gone, its backend may still wait.
  const asker = read.message.method === undefined ? exchange.relay.askedBy(session, read.message) : undefined;
  if (asker === undefined || owners.isForwarded(request)) return takeHere();
  return owners.forward(asker, request, response, body, { onLost: takeHere });
}

async function initialize(exchange: Exchange, read: ReadMessage): Promise<void> {
  const { sessions, response, overload } = exchange;
  if (overload.isClosedTo("sessions")) return shed(exchange, "under_pressure", read.message.id);
  try {
    await openSession({ ...exchange, open: sessions.open }, read);
  } catch (error) {
    if (error instanceof UnboundCallerError) return refuse(response, 403, error.message);
    if (!(error instanceof StoreUnavailableError)) throw error;
    refuseUnavailable(response);
  }
}

function placeOf({ server, caller, request, relay, tokens, tap, log, sessions }: Exchange, session: Session): Place {
  return { server, session, caller, headers: request.headers, relay, tokens, tap, log, tellCancelled: sessions.tellCancelled };
}

/** What names of streams begin with here. */
function replicaOf({ self }: Exchange): string {
  return self().replica;
}

async function postBatch(exchange: Exchange, session: Session, batch: readonly ReadMessage[]): Promise<void> {
  const { response } = exchange;
  if (session.protocolVersion !== "2025-03-26") return refuse(response, 400, `MCP ${session.protocolVersion} has no batches`);
  const place = placeOf(exchange, session);
  const requests = batch.filter(isRequest);
  for (const read of batch) if (!isRequest(read)) takeMessage(place, read);
  if (requests.length === 0) return void response.writeHead(202).end();
  const answer = createBatchAnswers(response, requests.length, () => openCallLog(session, replicaOf(exchange)));
  await Promise.all(requests.map((read) => answerRequest(place, read, answer)));
}

function isRequest({ message }: ReadMessage): boolean {
  return message.method !== undefined && message.id !== undefined;
}

async function get(exchange: Exchange): Promise<void> {
  const { request, response, server, sessions, owners } = exchange;
  if (!accepts(request, "text/event-stream")) return refuse(response, 406, "Accept must name text/event-stream");
  const session = await findSession(exchange);
  if (!session) return;
  if (!hasRoomForStream(exchange, { isResumed: request.headers["last-event-id"] !== undefined })) return;
  const replica = replicaOf(exchange);
  const open = (): void => {
    serveStream(session, replica, request, response);
    sessions.tellStreaming(session);
    for (const backend of server.backends.values()) void backend.follow(session);
  };
  const other = resumedFrom(request, replica);
  if (other === undefined || owners.isForwarded(request)) return open();
  const address = await exchange.addressOf(other).catch(() => undefined);
  if (address !== undefined) return owners.forward(address, request, response, undefined, { onLost: openAnew });
  openAnew();

  /** What was said on a stream that went with its replica is not known: the client is told to look again. */
  function openAnew(): void {
    const { view } = server;
    open();
    for (const kind of ["tools", ...["prompts", "resources"].filter((offer) => view.offers.has(offer))]) {
      const method = `notifications/${kind}/list_changed`;
      notifySession(session as Session, method, rpcRequest(method, undefined));
    }
  }
}

async function remove(exchange: Exchange): Promise<void> {
  const { sessions, server, response } = exchange;
  const session = await findSession(exchange);
  if (!session) return;
  // Sessions with backends end with it, also those that other replicas opened.
  await Promise.all([...server.backends.values()].map((backend) => backend.adopt(session)));
  try {
    await sessions.end(session);
  } catch (error) {
    if (!(error instanceof StoreUnavailableError)) throw error;
    return refuseUnavailable(response);
  }
  response.writeHead(204).end();
}

/** The session of a request, at once when it is known; without one the request is refused here. Never throws. */
function findSession(exchange: Exchange): Session | undefined | Promise<Session | undefined> {
  const { server, caller, request, response, sessions } = exchange;
  const version = request.headers["mcp-protocol-version"];
  if (version !== undefined && !isSessionVersion(version))
    return void refuse(response, 400, `MCP-Protocol-Version ${JSON.stringify(version)} is not supported`);
  const id = request.headers["mcp-session-id"];
  if (typeof id !== "string" || id === "") return void refuse(response, 400, "Mcp-Session-Id is missing; initialize first");
  const found = sessions.find(id, { virtualServer: server.name, identity: caller.identity, caller });
  if (!(found instanceof Promise)) return joined(exchange, found);
  return found.then(
    (session) => joined(exchange, session),
    (error) => {
      if (!(error instanceof StoreUnavailableError)) throw error;
      return void refuseUnavailable(response);
    },
  );
}

function joined({ server, response }: Exchange, session: Session | undefined): Session | undefined | Promise<Session> {
  // Somebody else's session answers like an unknown one.
  if (!session) return void refuse(response, 404, "no such session; initialize a new one");
  return server.join(session)?.then(() => session) ?? session;
}

/** Neither valid nor unknown: a client that was told 404 would open another session, and all of them at once. */
function refuseUnavailable(response: ServerResponse): void {
  const data = { reason: "session_store_unavailable", retryable: true, outcome: "not_executed" };
  refuse(response, 503, "the session store is not available; try again", {
    code: errorCodes.internal,
    data,
    headers: { "retry-after": "1" },
  });
}

/** Whether a client names event streams before JSON. Most name JSON first, which is cheaper for both sides. */
function prefersStream({ headers: { accept = "" } }: IncomingMessage): boolean {
  const stream = accept.indexOf("text/event-stream");
  return stream >= 0 && stream < accept.indexOf("application/json");
}

function accepts({ headers }: IncomingMessage, type: string): boolean {
  const accept = headers.accept?.toLowerCase() ?? "*/*";
  return accept.includes(type) || accept.includes("*/*") || accept.includes(`${type.split("/")[0]}/*`);
}
