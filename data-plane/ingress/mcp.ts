// The MCP endpoint of one virtual server, session era: POST, GET and DELETE.
// Source: MCP 2025-11-25, transports, streamable HTTP.
import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { reasonOf } from "../backends/errors.ts";
import { createLimit } from "../backends/limit.ts";
import type { Identity } from "../incoming-auth/identity.ts";
import { errorCodes, errorResponse, type Message, readMessage, resultResponse } from "../mcp/json-rpc.ts";
import { member, withoutMembers } from "../mcp/scan.ts";
import { isSessionVersion, negotiate } from "../mcp/versions.ts";
import type { Call } from "../methods/call.ts";
import { initializeResult } from "../methods/initialize.ts";
import { methods } from "../methods/registry.ts";
import type { Relay } from "../relay/relay.ts";
import type { Session } from "../session/session.ts";
import type { SessionStore } from "../session/store.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { createAnswer, respondJson } from "./answer.ts";
import { readBody } from "./read-body.ts";
import { refuse } from "./refuse.ts";
import { openCallLog, serveStream } from "./session-streams.ts";

// A call that says nothing for so long is answered as a stream, which keeps connections alive and can be resumed.
const silentMs = 10_000;
const joinMs = 2_000;

export interface McpOptions {
  readonly sessions: SessionStore;
  readonly relay: Relay;
  readonly bodyBytesMax: number;
  readonly log: Log;
}

interface Exchange extends McpOptions {
  readonly server: VirtualServer;
  readonly identity: Identity;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** Serves one HTTP request; never rejects. */
export async function serveMcp(
  server: VirtualServer,
  request: IncomingMessage,
  response: ServerResponse,
  options: McpOptions,
): Promise<void> {
  const identity = server.authenticate(request.headers);
  if (!identity) return refuse(response, 401, "authentication is required", { headers: { "www-authenticate": "Bearer" } });
  const exchange = { ...options, server, identity, request, response };
  if (request.method === "POST") return post(exchange);
  if (request.method === "GET") return get(exchange);
  if (request.method === "DELETE") return remove(exchange);
  refuse(response, 405, "only POST, GET and DELETE", { headers: { allow: "POST, GET, DELETE" } });
}

async function post(exchange: Exchange): Promise<void> {
  const { request, response } = exchange;
  if (!/^application\/json\s*(;|$)/i.test(request.headers["content-type"] ?? ""))
    return refuse(response, 415, "Content-Type must be application/json");
  if (!accepts(request, "application/json") || !accepts(request, "text/event-stream")) {
    return refuse(response, 406, "Accept must name application/json and text/event-stream");
  }
  const body = await readBody(request, exchange.bodyBytesMax).catch(() => Buffer.alloc(0));
  if (!body) return refuse(response, 413, `the body is larger than ${exchange.bodyBytesMax} bytes`);
  const read = readRequest(body);
  if ("refusal" in read) return refuse(response, 400, read.refusal, { code: read.code });
  const { message, params } = read;
  if (message.method === "initialize" && message.id !== undefined) return initialize(exchange, message, message.id, params);

  const session = findSession(exchange);
  if (!session) return;
  if (message.method === undefined) {
    if (!exchange.relay.answer(session, exchange.server.backends, message))
      return refuse(response, 400, "this answers no question of ours");
    return void response.writeHead(202).end();
  }
  if (message.id === undefined) {
    takeNotification(exchange, session, message, params);
    return void response.writeHead(202).end();
  }
  return callMethod(exchange, session, message, params);
}

async function callMethod(
  exchange: Exchange,
  session: Session,
  message: Message,
  params: Record<string, unknown>,
): Promise<void> {
  const { server, response, relay, log } = exchange;
  const id = message.id as string;
  const answer = createAnswer(response, { openLog: () => openCallLog(session), silentMs });
  const method = methods.get(message.method as string);
  if (!method)
    return answer.respond(errorResponse(id, { code: errorCodes.methodNotFound, message: `unknown method: ${message.method}` }));
  if (session.calls.has(id))
    return answer.respond(errorResponse(id, { code: errorCodes.invalidRequest, message: "a request with this id is in flight" }));
  const limit = createLimit();
  session.calls.set(id, limit);
  const call: Call = {
    message,
    id,
    params,
    session,
    server,
    view: server.viewOf(session.capabilities),
    limit,
    relay,
    notify: answer.notify,
  };
  try {
    answer.respond(await method(call));
  } catch (error) {
    if (limit.signal.aborted) return answer.close();
    log.error({ err: error, method: message.method, virtualServer: server.name }, "a request failed");
    answer.respond(errorResponse(id, { code: errorCodes.internal, message: "internal error" }));
  } finally {
    session.calls.delete(id);
    session.usedAtMs = performance.now();
  }
}

async function initialize(
  { server, identity, sessions, response }: Exchange,
  { json, params: span }: Message,
  id: string,
  params: Record<string, unknown>,
): Promise<void> {
  const { protocolVersion, clientInfo } = params;
  if (typeof protocolVersion !== "string" || typeof clientInfo !== "object" || clientInfo === null) {
    return respondJson(
      response,
      errorResponse(id, { code: errorCodes.invalidParams, message: "initialize needs protocolVersion and clientInfo" }),
    );
  }
  const version = negotiate(protocolVersion);
  const info = span && member(json, span.start, "clientInfo");
  const abilities =
    typeof params.capabilities === "object" && params.capabilities !== null && span
      ? member(json, span.start, "capabilities")
      : undefined;
  const session = sessions.create({
    virtualServer: server.name,
    identity,
    protocolVersion: version,
    clientInfo: json.toString("utf8", info?.start, info?.end),
    capabilities: abilities ? inOrder(withoutMembers(json.subarray(abilities.start, abilities.end), ["tasks"])) : "{}",
  });
  if (!session) return refuse(response, 503, "too many sessions", { headers: { "retry-after": "1" } });
  // Backends that list more for a client like this get a moment to do so, the first time one comes.
  const joined = Promise.all([...server.backends.values()].map((backend) => backend.join(session)));
  await Promise.race([joined, sleep(joinMs, undefined, { ref: false })]);
  const body = resultResponse(id, initializeResult(server, session));
  respondJson(response, body, { "mcp-session-id": session.id });
}

function takeNotification({ server, log }: Exchange, session: Session, message: Message, params: Record<string, unknown>): void {
  if (message.method === "notifications/cancelled") {
    session.calls.get(JSON.stringify(params.requestId))?.abort(new Error("cancelled by the client"));
  } else if (message.method === "notifications/roots/list_changed") {
    for (const backend of server.backends.values()) {
      backend
        .tell(session, message.json)
        .catch((error) => log.debug({ reason: reasonOf(error) }, "a backend was not told of new roots"));
    }
  }
}

function get(exchange: Exchange): void {
  const { request, response, server } = exchange;
  if (!accepts(request, "text/event-stream")) return refuse(response, 406, "Accept must name text/event-stream");
  const session = findSession(exchange);
  if (!session) return;
  serveStream(session, request, response);
  for (const backend of server.backends.values()) backend.follow(session);
}

function remove(exchange: Exchange): void {
  const session = findSession(exchange);
  if (!session) return;
  exchange.sessions.end(session);
  exchange.response.writeHead(204).end();
}

/** The session of a request; refuses the request and gives undefined when there is none. */
function findSession({ server, identity, request, response, sessions }: Exchange): Session | undefined {
  const version = request.headers["mcp-protocol-version"];
  if (version !== undefined && !isSessionVersion(version))
    return void refuse(response, 400, `MCP-Protocol-Version ${JSON.stringify(version)} is not supported`);
  const id = request.headers["mcp-session-id"];
  if (typeof id !== "string" || id === "") return void refuse(response, 400, "Mcp-Session-Id is missing; initialize first");
  const session = sessions.find(id, server.name);
  // Somebody else's session answers like an unknown one.
  if (!session || session.identity.issuer !== identity.issuer || session.identity.subject !== identity.subject) {
    return void refuse(response, 404, "no such session; initialize a new one");
  }
  return session;
}

/** Capabilities in one order, so that clients that declare the same are known to be alike. */
function inOrder(capabilities: Buffer): string {
  const members = Object.entries(JSON.parse(capabilities.toString()) as object);
  return JSON.stringify(Object.fromEntries(members.sort(([a], [b]) => (a < b ? -1 : 1))));
}

type ReadRequest = { message: Message; params: Record<string, unknown> } | { refusal: string; code: number };

function readRequest(body: Buffer): ReadRequest {
  let parsed: { params?: unknown };
  try {
    parsed = JSON.parse(body.toString()) as typeof parsed; // the scanner alone would let small mistakes pass
  } catch {
    return { refusal: "the body is not JSON", code: errorCodes.parse };
  }
  try {
    const message = readMessage(body);
    const { params = {} } = parsed;
    if (typeof params !== "object" || params === null || Array.isArray(params)) {
      return { refusal: '"params" is not an object', code: errorCodes.invalidRequest };
    }
    return { message, params: params as Record<string, unknown> };
  } catch (error) {
    return { refusal: `the body is not one JSON-RPC 2.0 message: ${(error as Error).message}`, code: errorCodes.invalidRequest };
  }
}

function accepts({ headers }: IncomingMessage, type: string): boolean {
  const accept = headers.accept?.toLowerCase() ?? "*/*";
  return accept.includes(type) || accept.includes("*/*") || accept.includes(`${type.split("/")[0]}/*`);
}
