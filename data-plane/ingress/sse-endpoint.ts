// The endpoint for clients of the older HTTP+SSE transport: a GET opens the stream that everything comes on, and its first
// event says where to POST. The session lives as long as the stream. Source: MCP 2024-11-05, transports, HTTP with SSE.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Caller } from "../incoming-auth/caller.ts";
import type { Identity } from "../incoming-auth/identity.ts";
import { errorCodes, errorResponse } from "../mcp/json-rpc.ts";
import type { LocalSessions, SessionFacts } from "../session/local-sessions.ts";
import { attachStream, type Session } from "../session/session.ts";
import type { StreamIds } from "../session/stream-ids.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { admit, mayCall } from "./admission.ts";
import { answerRequest, takeMessage } from "./dispatch.ts";
import type { McpOptions } from "./mcp.ts";
import { createSession } from "./open-session.ts";
import { readBody } from "./read-body.ts";
import { type ReadMessage, readRequest } from "./read-request.ts";
import { refuse } from "./refuse.ts";
import { hasRoomForStream, placeFor, shed } from "./shed.ts";
import { createSseStream, type SseStream } from "./sse-stream.ts";

export interface SseEndpoint {
  /** Serves `GET <prefix>/sse`; never rejects. */
  open(server: VirtualServer, request: IncomingMessage, response: ServerResponse, prefix: string): Promise<void>;
  /** Serves `POST <prefix>/messages?sessionId=…`; never rejects. */
  take(server: VirtualServer, request: IncomingMessage, response: ServerResponse): Promise<void>;
  /** Ends every stream once the calls on it are answered. */
  end(): void;
}

type Shared = Pick<McpOptions, "publicUrl" | "relay" | "overload" | "owners" | "tokens" | "tap" | "bodyBytesMax" | "log">;

export interface SseOptions extends Shared {
  readonly ids: StreamIds;
  /** A session here lives as long as its stream, which is a connection to this replica: no other one could go on with it. */
  readonly sessions: LocalSessions;
  /** Streams at a time, with a session or still without. */
  readonly streamsMax: number;
  /** A stream on which nobody initialized for so long is ended, milliseconds. Default 60,000. */
  readonly initializeMs?: number;
}

interface Connection {
  readonly virtualServer: string;
  readonly identity: Identity;
  readonly stream: SseStream;
  session: Session | undefined;
  isOpening: boolean;
}

/** No streams at first. */
export function createSseEndpoint(options: SseOptions): SseEndpoint {
  const { sessions, owners, ids, bodyBytesMax, streamsMax, initializeMs = 60_000 } = options;
  const connections = new Map<string, Connection>();

  async function openHere(facts: Omit<SessionFacts, "era">): Promise<Session | undefined> {
    return sessions.create({ ...facts, era: "session" });
  }

  async function open(server: VirtualServer, request: IncomingMessage, response: ServerResponse, prefix: string): Promise<void> {
    const caller = await identify({ ...options, server, request, response }, "GET");
    if (!caller) return;
    if (connections.size >= streamsMax) return refuse(response, 503, "too many streams", { headers: { "retry-after": "1" } });
    if (!hasRoomForStream({ ...options, caller, request, response })) return;
    const id = ids.mint(contextOf(server));
    const stream = createSseStream(response, { endpoint: `${prefix}/messages?sessionId=${id}` });
    const connection: Connection = {
      virtualServer: server.name,
      identity: caller.identity,
      stream,
      session: undefined,
      isOpening: false,
    };
    connections.set(id, connection);
    const unused = setTimeout(() => {
      if (!connection.session) stream.end();
    }, initializeMs);
    stream.closed.addEventListener("abort", () => {
      clearTimeout(unused);
      connections.delete(id);
      // This transport can't be resumed: what is not delivered now never will be.
      if (connection.session) sessions.end(connection.session);
    });
  }

  async function take(server: VirtualServer, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const arrival = { ...options, server, request, response };
    const caller = await identify(arrival, "POST");
    if (!caller) return;
    if (!/^application\/json\s*(;|$)/i.test(request.headers["content-type"] ?? ""))
      return refuse(response, 415, "Content-Type must be application/json");
    const body = await readBody(request, bodyBytesMax).catch(() => Buffer.alloc(0));
    if (!body) return refuse(response, 413, `the body is larger than ${bodyBytesMax} bytes`);
    const id = new URLSearchParams(request.url?.split("?")[1]).get("sessionId") ?? "";
    const connection = connections.get(id);
    const owner = connection || owners.isForwarded(request) ? undefined : ids.ownerOf(id, contextOf(server));
    if (owner !== undefined) return owners.forward(owner, request, response, body);
    // Somebody else's stream answers like an unknown one.
    if (!connection || connection.virtualServer !== server.name || !isSame(connection.identity, caller.identity))
      return refuse(response, 404, "no such stream; open a new one");
    const read = readRequest(body);
    if ("status" in read) return refuse(response, read.status, read.message, { code: read.code });
    if (!mayCall(arrival, caller, Array.isArray(read) ? read : [read])) return;
    const requests = Array.isArray(read) ? read.filter(isRequest).length : Number(isRequest(read));
    if (requests === 0) return takeInSession(connection, arrival, caller, read);
    const place = await placeFor({ ...arrival, caller }, read, requests);
    if (!place) return;
    try {
      if (!Array.isArray(read) && read.message.method === "initialize") await initialize(connection, arrival, caller, read);
      else await takeInSession(connection, arrival, caller, read);
    } finally {
      options.overload.leave(place);
    }
  }

  async function initialize(
    connection: Connection,
    { server, response }: Arrival,
    caller: Caller,
    read: ReadMessage,
  ): Promise<void> {
    const { stream } = connection;
    if (options.overload.isClosedTo("sessions")) return shed({ ...options, response }, "under_pressure", read.message.id);
    if (connection.isOpening || stream.isEnding) return refuse(response, 400, "this stream has a session already, or had one");
    connection.isOpening = true;
    response.writeHead(202).end();
    const answer = stream.expect();
    const opened = await createSession({ server, caller, open: openHere }, read);
    const session = opened?.session;
    connection.session = session;
    connection.isOpening = session !== undefined;
    answer.respond(opened?.answer ?? errorResponse(read.message.id, tooManySessions));
    if (!session) return;
    if (stream.closed.aborted) return sessions.end(session);
    session.onEnd(stream.end);
    attachStream(session, stream);
    for (const backend of server.backends.values()) void backend.follow(session);
  }

  async function takeInSession(
    { stream, session: opened }: Connection,
    { server, request, response }: Arrival,
    caller: Caller,
    read: ReadMessage | ReadMessage[],
  ): Promise<void> {
    if (!opened) return refuse(response, 400, "this stream has no session; initialize first");
    const session = sessions.find(opened.id, server.name);
    if (!session) return refuse(response, 404, "the session has ended; open a new stream");
    if (Array.isArray(read) && session.protocolVersion !== "2025-03-26")
      return refuse(response, 400, `MCP ${session.protocolVersion} has no batches`);
    session.caller = caller;
    await server.join(session);
    const place = { ...options, server, session, caller, headers: request.headers };
    const messages = Array.isArray(read) ? read : [read];
    const requests = messages.filter(isRequest);
    if (stream.isEnding && requests.length > 0) return refuse(response, 503, "this stream is ending; open a new one");
    const refusals = messages.filter((one) => !isRequest(one)).map((one) => takeMessage(place, one));
    if (!Array.isArray(read) && refusals[0] !== undefined) return refuse(response, 400, refusals[0]);
    response.writeHead(202).end();
    await Promise.all(requests.map((one) => answerRequest(place, one, stream.expect())));
  }

  return {
    open,
    take,
    end() {
      for (const { stream } of connections.values()) stream.end();
    },
  };
}

const tooManySessions = { code: errorCodes.internal, message: "too many sessions; try again later" };

type Arrival = Parameters<typeof admit>[0];

/** Who asks; refuses the request and gives undefined when nobody does, or not with the method of this path. */
async function identify(arrival: Arrival, method: "GET" | "POST"): Promise<Caller | undefined> {
  const caller = await admit(arrival);
  if (!caller || arrival.request.method === method) return caller;
  return void refuse(arrival.response, 405, `only ${method}`, { headers: { allow: method } });
}

/** What stream ids are bound to. No virtual server is named so, so that they are void as session ids. */
function contextOf({ name }: VirtualServer): string {
  return `sse ${name}`;
}

function isSame(one: Identity, other: Identity): boolean {
  return (["issuer", "subject", "client", "confirmation"] as const).every((name) => one[name] === other[name]);
}

function isRequest({ message }: ReadMessage): boolean {
  return message.method !== undefined && message.id !== undefined;
}
