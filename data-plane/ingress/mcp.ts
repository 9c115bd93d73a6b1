// The MCP endpoint of one virtual server, for both eras: POST, and for sessions GET and DELETE.
// Source: MCP 2025-11-25 and 2026-07-28, transports, streamable HTTP.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Identity } from "../incoming-auth/identity.ts";
import { isSessionVersion } from "../mcp/versions.ts";
import type { Session } from "../session/session.ts";
import type { SessionStore } from "../session/store.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { createAnswer } from "./answer.ts";
import { createBatchAnswers } from "./batch.ts";
import { classify } from "./classify.ts";
import { answerRequest, takeMessage } from "./dispatch.ts";
import { openSession } from "./open-session.ts";
import { readBody } from "./read-body.ts";
import { type ReadMessage, readRequest } from "./read-request.ts";
import { refuse } from "./refuse.ts";
import { openCallLog, serveStream } from "./session-streams.ts";
import { type StatelessOptions, serveStateless } from "./stateless.ts";

// How long a call may say nothing before it is answered as a stream.
const silentMs = 10_000;

export interface McpOptions extends StatelessOptions {
  readonly sessions: SessionStore;
  readonly bodyBytesMax: number;
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
  if (!/^application\/json\s*(;|$)/i.test(request.headers["content-type"] ?? "")) {
    return refuse(response, 415, "Content-Type must be application/json");
  }
  if (!accepts(request, "application/json") || !accepts(request, "text/event-stream")) {
    return refuse(response, 406, "Accept must name application/json and text/event-stream");
  }
  const body = await readBody(request, exchange.bodyBytesMax).catch(() => Buffer.alloc(0));
  if (!body) return refuse(response, 413, `the body is larger than ${exchange.bodyBytesMax} bytes`);
  const read = readRequest(body);
  if ("status" in read) return refuse(response, read.status, read.message, { code: read.code });
  const kind = classify(read, request.headers);
  if (kind.era === "refused") {
    const { status, message, ...error } = kind.refusal;
    return refuse(response, status, message, { ...error, id: Array.isArray(read) ? undefined : read.message.id });
  }
  if (kind.era === "stateless-notification") return void response.writeHead(202).end(); // none of them means anything
  if (kind.era === "stateless") {
    const stateless = { ...exchange, prefersStream: prefersStream(request), silentMs };
    return serveStateless(stateless, read as ReadMessage, kind.envelope, body);
  }
  if (!Array.isArray(read) && read.message.method === "initialize" && read.message.id !== undefined)
    return openSession(exchange, read);
  const session = await findSession(exchange, body);
  if (!session) return;
  if (Array.isArray(read)) return postBatch(exchange, session, read);
  if (isRequest(read)) {
    const answer = createAnswer(response, {
      openStream: () => openCallLog(session),
      prefersStream: prefersStream(request),
      silentMs,
    });
    return answerRequest({ ...exchange, session }, read, answer);
  }
  const refusal = takeMessage({ ...exchange, session }, read);
  if (refusal !== undefined) return refuse(response, 400, refusal);
  response.writeHead(202).end();
}

async function postBatch(exchange: Exchange, session: Session, batch: readonly ReadMessage[]): Promise<void> {
  const { response } = exchange;
  if (session.protocolVersion !== "2025-03-26") return refuse(response, 400, `MCP ${session.protocolVersion} has no batches`);
  const place = { ...exchange, session };
  const requests = batch.filter(isRequest);
  for (const read of batch) if (!isRequest(read)) takeMessage(place, read);
  if (requests.length === 0) return void response.writeHead(202).end();
  const answer = createBatchAnswers(response, requests.length, () => openCallLog(session));
  await Promise.all(requests.map((read) => answerRequest(place, read, answer)));
}

function isRequest({ message }: ReadMessage): boolean {
  return message.method !== undefined && message.id !== undefined;
}

async function get(exchange: Exchange): Promise<void> {
  const { request, response, server } = exchange;
  if (!accepts(request, "text/event-stream")) return refuse(response, 406, "Accept must name text/event-stream");
  const session = await findSession(exchange);
  if (!session) return;
  serveStream(session, request, response);
  for (const backend of server.backends.values()) void backend.follow(session);
}

async function remove(exchange: Exchange): Promise<void> {
  const session = await findSession(exchange);
  if (!session) return;
  exchange.sessions.end(session);
  exchange.response.writeHead(204).end();
}

/** The session of a request; without one the request is answered here: refused, or by the replica that has the session. */
async function findSession(exchange: Exchange, body?: Buffer): Promise<Session | undefined> {
  const { server, identity, request, response, sessions, owners } = exchange;
  const version = request.headers["mcp-protocol-version"];
  if (version !== undefined && !isSessionVersion(version))
    return void refuse(response, 400, `MCP-Protocol-Version ${JSON.stringify(version)} is not supported`);
  const id = request.headers["mcp-session-id"];
  if (typeof id !== "string" || id === "") return void refuse(response, 400, "Mcp-Session-Id is missing; initialize first");
  const session = sessions.find(id, server.name);
  const owner = session || owners.isForwarded(request) ? undefined : sessions.ownerOf(id, server.name);
  if (owner !== undefined) return void (await owners.forward(owner, request, response, body));
  // Somebody else's session answers like an unknown one.
  if (!session || session.identity.issuer !== identity.issuer || session.identity.subject !== identity.subject) {
    return void refuse(response, 404, "no such session; initialize a new one");
  }
  return session;
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
