// A real MCP server over streamable HTTP that a test scripts. Whatever it sends is raw JSON text, so that tests can show what
// becomes of integers beyond 2^53, odd spellings of numbers and members that no schema knows; an SDK server could not send them.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { type RpcMessage, readRpc } from "./json.ts";

/** What the server offers and how it behaves; every text is raw JSON. Parts may be replaced while it runs, through `set`. */
export interface BackendScript {
  readonly tools?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceTemplates?: readonly string[];
  readonly prompts?: readonly string[];
  /** Items per list page. Default: all on one. */
  readonly pageSize?: number;
  /** By tool name. */
  readonly calls?: Readonly<Record<string, Handler>>;
  /** By URI. */
  readonly reads?: Readonly<Record<string, Handler>>;
  /** By prompt name. */
  readonly gets?: Readonly<Record<string, Handler>>;
  /** Any other method, or one that the script wants to answer itself. */
  readonly methods?: Readonly<Record<string, Handler>>;
  /** Raw result of `initialize`. Default: every capability with listChanged, protocol 2025-11-25. */
  readonly initialize?: string;
  /** Ignored with `initialize`. */
  readonly instructions?: string;
  /** How requests are answered. A notification during a call makes that answer a stream in any case. Default json. */
  readonly answers?: "json" | "sse";
  /** Waited before every answer. */
  readonly delayMs?: number;
  /** Keeps none of the requests, of which there will be very many. */
  readonly isForgetful?: boolean;
  /** Without sessions, as servers may be. */
  readonly isSessionless?: boolean;
  /** What every request gets instead of an answer: a status, or a body that is no MCP message. */
  readonly fault?: { readonly status: number; readonly body?: string } | undefined;
}

/** Gives the raw result, or `rawError(…)`. */
export type Handler = (call: Call) => string | RawError | Promise<string | RawError>;

/** A request as its handler sees it. */
export interface Call {
  readonly message: RpcMessage;
  /** Parsed params. */
  readonly params: Record<string, unknown>;
  /** State of the session that asks; gone with it. */
  readonly session: Map<string, unknown>;
  /** Sends a raw notification (or anything) on the stream of this request. */
  notify(raw: string): void;
}

export interface RawError {
  readonly rawError: string;
}

/** An error answer, from the raw text of the error object. */
export const rawError = (text: string): RawError => ({ rawError: text });

/** A tool result of one text. */
export const textResult = (value: string): string => JSON.stringify({ content: [{ type: "text", text: value }] });

/** A plain tool without arguments. */
export const plainTool = (name: string, description = `does ${name}`): string =>
  JSON.stringify({ name, description, inputSchema: { type: "object" } });

/** Counts its calls within a session: two sessions that see each other's count are one session. */
export const counter = {
  tool: plainTool("counter"),
  call: (({ session }) => {
    const count = Number(session.get("count") ?? 0) + 1;
    session.set("count", count);
    return textResult(String(count));
  }) satisfies Handler,
};

/** One HTTP request as it came. */
export interface ReceivedRequest {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** Undefined for GET and DELETE. */
  readonly message: RpcMessage | undefined;
}

export interface Backend extends AsyncDisposable {
  /** Of the MCP endpoint. */
  readonly url: string;
  readonly port: number;
  /** Everything received, oldest first. */
  readonly requests: readonly ReceivedRequest[];
  /** Raw bodies of one JSON-RPC method. */
  bodies(rpcMethod: string): string[];
  /** Ids of the living sessions. */
  sessions(): string[];
  /** GET streams that are open. */
  streams(): number;
  /** Changes the script. */
  set(changes: Partial<BackendScript>): void;
  /** Says `notifications/<what>/list_changed` on every GET stream. */
  announce(what: "tools" | "prompts" | "resources"): void;
  /** Sends a raw message on every GET stream. */
  push(raw: string): void;
  /** Forgets every session: their next request gets 404. */
  dropSessions(): void;
  /** Ends every GET stream, as a proxy on the way might. */
  cutStreams(): void;
  /** Stops listening and cuts every connection. */
  down(): Promise<void>;
  /** Listens again, on the same port. */
  up(): Promise<void>;
}

interface Session {
  readonly state: Map<string, unknown>;
  readonly streams: Set<ServerResponse>;
}

const capabilities = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true },
  logging: {},
  completions: {},
};

/** Starts it on a free port of 127.0.0.1. */
export async function startBackend(initial: BackendScript = {}): Promise<Backend> {
  let script = initial;
  const requests: ReceivedRequest[] = [];
  const sessions = new Map<string, Session>();
  const anonymous: Session = { state: new Map(), streams: new Set() };
  const server = createServer((request, response) => {
    serve(request, response).catch((error: Error) => response.destroy(error));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    const message = request.method === "POST" ? readRpc(body) : undefined;
    if (!script.isForgetful) requests.push({ method: request.method ?? "", headers: request.headers, body, message });
    const { fault } = script;
    if (fault) return void response.writeHead(fault.status, { "content-type": "application/json" }).end(fault.body);
    if (message?.method === "initialize") return initialize(message, response);
    const id = request.headers["mcp-session-id"];
    const session = script.isSessionless ? anonymous : sessions.get(String(id));
    if (!session) return void response.writeHead(id === undefined ? 400 : 404).end();
    if (request.method === "GET") return openStream(session, response);
    if (request.method === "DELETE") return end(String(id), response);
    if (!message?.id || !message.method) return void response.writeHead(202).end();
    return answer(message, session, response);
  }

  function initialize(message: RpcMessage, response: ServerResponse): void {
    const id = randomUUID();
    if (!script.isSessionless) sessions.set(id, { state: new Map(), streams: new Set() });
    const { instructions } = script;
    const serverInfo = { name: "scripted", version: "1.0.0" };
    const standard = { protocolVersion: "2025-11-25", capabilities, serverInfo, instructions };
    const headers = { "content-type": "application/json", ...(script.isSessionless ? {} : { "mcp-session-id": id }) };
    response.writeHead(200, headers).end(envelope(message.id, script.initialize ?? JSON.stringify(standard)));
  }

  function openStream(session: Session, response: ServerResponse): void {
    session.streams.add(response);
    response.on("close", () => session.streams.delete(response));
    response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
  }

  function end(id: string, response: ServerResponse): void {
    for (const stream of sessions.get(id)?.streams ?? []) stream.end();
    sessions.delete(id);
    response.writeHead(200).end();
  }

  async function answer(message: RpcMessage, session: Session, response: ServerResponse): Promise<void> {
    const stream = () => {
      if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream" });
      return response;
    };
    const notify = (raw: string) => void stream().write(event(raw));
    if (script.delayMs) await sleep(script.delayMs);
    const outcome = await handle({ message, params: message.params, session: session.state, notify });
    const raw = envelope(message.id, outcome);
    if (script.answers === "sse" || response.headersSent) stream().end(event(raw));
    else response.writeHead(200, { "content-type": "application/json" }).end(raw);
  }

  async function handle(call: Call): Promise<string | RawError> {
    const { method } = call.message;
    const own = script.methods?.[method ?? ""];
    if (own) return own(call);
    const { name, uri } = call.params as { name: string; uri: string };
    switch (method) {
      case "tools/list":
        return page("tools", script.tools, call);
      case "resources/list":
        return page("resources", script.resources, call);
      case "resources/templates/list":
        return page("resourceTemplates", script.resourceTemplates, call);
      case "prompts/list":
        return page("prompts", script.prompts, call);
      case "tools/call":
        return script.calls?.[name]?.(call) ?? rawError(`{"code":-32602,"message":"Unknown tool: ${name}"}`);
      case "resources/read":
        return script.reads?.[uri]?.(call) ?? rawError(`{"code":-32002,"message":"Resource not found"}`);
      case "prompts/get":
        return script.gets?.[name]?.(call) ?? rawError(`{"code":-32602,"message":"Unknown prompt: ${name}"}`);
      case "ping":
      case "logging/setLevel":
        return "{}";
      default:
        return rawError(`{"code":-32601,"message":"Method not found"}`);
    }
  }

  function page(key: string, items: readonly string[] = [], { params }: Call): string {
    const { pageSize = items.length } = script;
    const start = Number(params.cursor ?? 0);
    const next = start + pageSize < items.length ? `,"nextCursor":"${start + pageSize}"` : "";
    return `{"${key}":[${items.slice(start, start + pageSize).join(",")}]${next}}`;
  }

  function push(raw: string): void {
    for (const { streams } of [...sessions.values(), anonymous]) for (const stream of streams) stream.write(event(raw));
  }

  async function down(): Promise<void> {
    if (!server.listening) return;
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
    sessions.clear();
  }

  return {
    url: `http://127.0.0.1:${port}/mcp`,
    port,
    requests,
    bodies: (rpcMethod) => requests.filter(({ message }) => message?.method === rpcMethod).map(({ body }) => body),
    sessions: () => [...sessions.keys()],
    streams: () => [...sessions.values(), anonymous].reduce((sum, { streams }) => sum + streams.size, 0),
    set: (changes) => {
      script = { ...script, ...changes };
    },
    announce: (what) => push(`{"jsonrpc":"2.0","method":"notifications/${what}/list_changed"}`),
    push,
    dropSessions: () => sessions.clear(),
    cutStreams: () => {
      for (const { streams } of [...sessions.values(), anonymous])
        for (const stream of streams) {
          streams.delete(stream);
          stream.end();
        }
    },
    down,
    up: async () => {
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
    },
    [Symbol.asyncDispose]: down,
  };
}

function envelope(id: string | undefined, outcome: string | RawError): string {
  const member = typeof outcome === "string" ? `"result":${outcome}` : `"error":${outcome.rawError}`;
  return `{"jsonrpc":"2.0","id":${id},${member}}`;
}

const event = (raw: string) => `event: message\ndata: ${raw}\n\n`;
