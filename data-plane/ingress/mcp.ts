// The MCP endpoint of one virtual server, session era: POST, GET and DELETE.
// Source: MCP 2025-11-25, transports, streamable HTTP.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Log } from "../../common/log.ts";
import type { Identity } from "../incoming-auth/identity.ts";
import { errorCodes, errorResponse, type Message, readMessage, resultResponse } from "../mcp/json-rpc.ts";
import { member } from "../mcp/scan.ts";
import { isSessionVersion, negotiate } from "../mcp/versions.ts";
import type { Call } from "../methods/call.ts";
import { initializeResult } from "../methods/initialize.ts";
import { methods } from "../methods/registry.ts";
import { attachStream, type Session } from "../session/session.ts";
import type { SessionStore } from "../session/store.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { createAnswer } from "./answer.ts";
import { openClientStream } from "./client-stream.ts";
import { readBody } from "./read-body.ts";
import { refuse } from "./refuse.ts";

export interface McpOptions {
  readonly sessions: SessionStore;
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
  if (message.method === undefined) return void response.writeHead(202).end(); // an answer to a question that nobody asked
  if (message.id === undefined) {
    takeNotification(session, message.method, params);
    return void response.writeHead(202).end();
  }
  return callMethod(exchange, session, message, params);
}

async function callMethod(
  { server, response, log }: Exchange,
  session: Session,
  message: Message,
  params: Record<string, unknown>,
): Promise<void> {
  const id = message.id as string;
  const answer = createAnswer(response, { takesEvents: true });
  const method = methods.get(message.method as string);
  if (!method)
    return answer.respond(errorResponse(id, { code: errorCodes.methodNotFound, message: `unknown method: ${message.method}` }));
  if (session.calls.has(id))
    return answer.respond(errorResponse(id, { code: errorCodes.invalidRequest, message: "a request with this id is in flight" }));
  const limit = new AbortController();
  session.calls.set(id, limit);
  const call: Call = { message, id, params, session, server, limit, notify: answer.notify };
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

function initialize(
  { server, identity, sessions, response }: Exchange,
  { json, params: span }: Message,
  id: string,
  params: Record<string, unknown>,
): void {
  const answer = (message: Buffer) => createAnswer(response, { takesEvents: false }).respond(message);
  const { protocolVersion, clientInfo } = params;
  if (typeof protocolVersion !== "string" || typeof clientInfo !== "object" || clientInfo === null) {
    return answer(
      errorResponse(id, { code: errorCodes.invalidParams, message: "initialize needs protocolVersion and clientInfo" }),
    );
  }
  const version = negotiate(protocolVersion);
  const info = span && member(json, span.start, "clientInfo");
  const session = sessions.create({
    virtualServer: server.name,
    identity,
    protocolVersion: version,
    clientInfo: json.toString("utf8", info?.start, info?.end),
  });
  if (!session) return refuse(response, 503, "too many sessions", { headers: { "retry-after": "1" } });
  const body = resultResponse(id, initializeResult(server, version));
  createAnswer(response, { takesEvents: false, headers: { "mcp-session-id": session.id } }).respond(body);
}

function takeNotification(session: Session, method: string, params: Record<string, unknown>): void {
  if (method !== "notifications/cancelled") return;
  session.calls.get(JSON.stringify(params.requestId))?.abort(new Error("cancelled by the client"));
}

function get(exchange: Exchange): void {
  const { request, response } = exchange;
  if (!accepts(request, "text/event-stream")) return refuse(response, 406, "Accept must name text/event-stream");
  const session = findSession(exchange);
  if (!session) return;
  const stream = openClientStream(response, () => {
    if (session.stream === stream) session.stream = undefined;
    session.usedAtMs = performance.now();
  });
  attachStream(session, stream);
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
