// A real MCP server of the stateless era (2026-07-28) that a test scripts, as `backend.ts` is one of the era with sessions:
// what it sends is raw JSON text. It refuses what a good server refuses, so that a request which it answers was well formed.
// Longer than most files here, because the envelope, the headers and the streams are one promise: being such a server.
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { type RpcMessage, readRpc } from "./json.ts";

/** What the server offers and how it behaves; every text is raw JSON. Parts may be replaced while it runs, through `set`. */
export interface StatelessScript {
  readonly tools?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceTemplates?: readonly string[];
  readonly prompts?: readonly string[];
  /** Items per list page. Default: all on one. */
  readonly pageSize?: number;
  /** By tool name. */
  readonly calls?: Readonly<Record<string, StatelessHandler>>;
  /** By URI. */
  readonly reads?: Readonly<Record<string, StatelessHandler>>;
  /** By prompt name. */
  readonly gets?: Readonly<Record<string, StatelessHandler>>;
  /** Default: no values. */
  readonly complete?: StatelessHandler;
  /** The Tasks extension; without it those methods are unknown. */
  readonly tasks?: Readonly<Partial<Record<"get" | "update" | "cancel", StatelessHandler>>>;
  /** Any other method, or one that the script wants to answer itself; not `subscriptions/listen`. */
  readonly methods?: Readonly<Record<string, StatelessHandler>>;
  /** Raw result of `server/discover`. Default: every capability with listChanged, and what the next four say. */
  readonly discover?: string;
  /** Versions that are served and named. Default 2026-07-28 alone. */
  readonly versions?: readonly string[];
  readonly instructions?: string;
  /** Raw, of lists and `server/discover`. Default 0. */
  readonly ttlMs?: string;
  /** Raw, of lists and `server/discover`. Default "private". */
  readonly cacheScope?: string;
  /** What a listen asks for → what it gets. Default: everything. */
  readonly honor?: (filter: ListenFilter) => ListenFilter;
  /** How requests are answered. A notification during a call makes that answer a stream in any case. Default json. */
  readonly answers?: "json" | "sse";
  /** Waited before every answer. */
  readonly delayMs?: number;
  /** What is not checked. Default: everything is. */
  readonly unchecked?: readonly Check[];
  /** By method, or `*` for each: what its requests get instead of an answer. */
  readonly faults?: Readonly<Record<string, Fault>>;
}

/** `accept`: media types. `envelope`: `_meta`. `tasks`: that the client declared them. The others: that header, against the body. */
export type Check = "accept" | "envelope" | "version" | "method" | "name" | "params" | "tasks";

/** A bare HTTP answer; or nothing, ever; or a stream that breaks in the middle of an event. */
export type Fault =
  | { readonly status: number; readonly body?: string; readonly headers?: Record<string, string> }
  | "hang"
  | "cut";

/** Gives the whole raw result, `resultType` and all, or `rawError(…)`. */
export type StatelessHandler = (call: StatelessCall) => string | StatelessError | Promise<string | StatelessError>;

/** A request as its handler sees it. */
export interface StatelessCall {
  readonly message: RpcMessage;
  /** Parsed params. */
  readonly params: Record<string, unknown>;
  /** Parsed `_meta`. */
  readonly meta: Record<string, unknown>;
  readonly headers: IncomingHttpHeaders;
  /** Aborts when the client goes before it has its answer. */
  readonly signal: AbortSignal;
  /** Sends a raw notification (or anything) on the stream of this request. */
  notify(raw: string): void;
}

export interface StatelessError {
  readonly rawError: string;
  readonly status: number;
}

/** An error answer, from the raw text of the error object; -32021 goes with status 400. */
export const rawError = (error: string, status = 200): StatelessError => ({ rawError: error, status });

/** A complete tool result of one text. */
export const completeText = (value: string): string =>
  JSON.stringify({ resultType: "complete", content: [{ type: "text", text: value }] });

export interface ListenFilter {
  readonly toolsListChanged?: boolean;
  readonly promptsListChanged?: boolean;
  readonly resourcesListChanged?: boolean;
  readonly resourceSubscriptions?: readonly string[];
  readonly taskIds?: readonly string[];
}

/** A `subscriptions/listen` that is open. */
export interface Listen {
  /** Raw JSON text; the subscription's id on everything it hears. */
  readonly id: string;
  /** Honored. */
  readonly filter: ListenFilter;
}

/** One HTTP request as it came. */
export interface StatelessRequest {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** Undefined when the body is no message. */
  readonly message: RpcMessage | undefined;
  /** The client cut the connection before the answer's end. True of every listen that its client ended. */
  readonly aborted: boolean;
}

export interface StatelessBackend extends AsyncDisposable {
  /** Of the MCP endpoint. */
  readonly url: string;
  readonly port: number;
  /** Everything received, refused or not, oldest first. */
  readonly requests: readonly StatelessRequest[];
  /** The requests of one JSON-RPC method. */
  received(rpcMethod: string): StatelessRequest[];
  /** Those that are open, oldest first. */
  listens(): readonly Listen[];
  /** Changes the script. */
  set(changes: Partial<StatelessScript>): void;
  /** Says `notifications/<what>/list_changed` on the listens that asked for it. */
  announce(what: "tools" | "prompts" | "resources"): void;
  /** Says `notifications/resources/updated` on the listens that asked for the URI. */
  updated(uri: string): void;
  /** Sends what `build` gives on each listen; `tag` is a raw member of `_meta` with the subscription's id. */
  push(build: (tag: string, listen: Listen) => string | undefined): void;
  /** Breaks every listen off, as a proxy on the way might. */
  cutListens(): void;
  /** Ends every listen with its result, as a server does that goes. */
  endListens(): void;
  /** Stops listening and cuts every connection. */
  down(): Promise<void>;
  /** Listens again, on the same port. */
  up(): Promise<void>;
}

const statelessVersion = "2026-07-28";
const tasksExtension = "io.modelcontextprotocol/tasks";
const json = { "content-type": "application/json" };
const capabilities = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
  logging: {},
  completions: {},
};

/** Starts it on a free port of 127.0.0.1. */
export async function startStatelessBackend(initial: StatelessScript = {}): Promise<StatelessBackend> {
  let script = initial;
  const requests: (StatelessRequest & { aborted: boolean })[] = [];
  const listens = new Map<ServerResponse, Listen>();
  let isGoingDown = false;
  const server = createServer((request, response) => {
    serve(request, response).catch((error: Error) => response.destroy(error));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "", headers } = request;
    const body = await text(request);
    const message = method === "POST" ? readRpc(body) : undefined;
    const received = { method, headers, body, message, aborted: false };
    requests.push(received);
    const gone = new AbortController();
    response.on("close", () => {
      listens.delete(response);
      if (response.writableFinished || response.errored || isGoingDown) return;
      received.aborted = true;
      gone.abort();
    });
    const fault = script.faults?.[message?.method ?? ""] ?? script.faults?.["*"];
    if (fault) return fail(fault, response);
    if (method !== "POST") return void response.writeHead(405, { allow: "POST" }).end();
    const id = message?.id;
    const refusal = mistakeOf({ headers, body, message }, script);
    if (refusal) return void response.writeHead(refusal.status, json).end(envelope(id, refusal));
    if (!message || id === undefined) return void response.writeHead(202).end();
    if (script.delayMs) await sleep(script.delayMs);
    if (message.method === "subscriptions/listen") return listen(id, message, response);
    return answer(message, headers, gone.signal, response);
  }

  function listen(id: string, { params }: RpcMessage, response: ServerResponse): void {
    const asked = (params.notifications ?? {}) as ListenFilter;
    const filter = script.honor?.(asked) ?? asked;
    listens.set(response, { id, filter });
    const acknowledged = `{"_meta":{${tagOf(id)}},"notifications":${JSON.stringify(filter)}}`;
    openStream(response).write(event(notification("notifications/subscriptions/acknowledged", acknowledged)));
  }

  async function answer(
    message: RpcMessage,
    headers: IncomingHttpHeaders,
    signal: AbortSignal,
    response: ServerResponse,
  ): Promise<void> {
    const { params } = message;
    const meta = metaOf(message);
    const notify = (raw: string) => void openStream(response).write(event(raw));
    const outcome = await handle({ message, params, meta, headers, signal, notify });
    if (response.destroyed) return; // the client is gone
    const raw = envelope(message.id, outcome);
    if (script.answers === "sse" || response.headersSent) openStream(response).end(event(raw));
    else response.writeHead(typeof outcome === "string" ? 200 : outcome.status, json).end(raw);
  }

  async function handle(call: StatelessCall): Promise<string | StatelessError> {
    const method = call.message.method ?? "";
    const own = script.methods?.[method];
    if (own) return own(call);
    const { name, uri } = call.params as { name: string; uri: string };
    switch (method) {
      case "server/discover":
        return script.discover ?? discover();
      case "tools/list":
        return page("tools", script.tools, call);
      case "resources/list":
        return page("resources", script.resources, call);
      case "resources/templates/list":
        return page("resourceTemplates", script.resourceTemplates, call);
      case "prompts/list":
        return page("prompts", script.prompts, call);
      case "tools/call":
        return script.calls?.[name]?.(call) ?? mistake(-32602, `Unknown tool: ${name}`, 200);
      case "resources/read":
        return script.reads?.[uri]?.(call) ?? mistake(-32602, "Resource not found", 200, { uri });
      case "prompts/get":
        return script.gets?.[name]?.(call) ?? mistake(-32602, `Unknown prompt: ${name}`, 200);
      case "completion/complete":
        return script.complete?.(call) ?? `{"resultType":"complete","completion":{"values":[]}}`;
      default:
        return taskHandler(method, script)?.(call) ?? mistake(-32601, "Method not found", 404);
    }
  }

  function discover(): string {
    const offered = script.tasks ? { ...capabilities, extensions: { [tasksExtension]: {} } } : capabilities;
    const { instructions } = script;
    const said = JSON.stringify({ supportedVersions: versionsOf(script), capabilities: offered, instructions });
    const info = `"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"stateless","version":"1.0.0"}}`;
    return `{"resultType":"complete",${caching()},${info},${said.slice(1)}`;
  }

  function page(key: string, items: readonly string[] = [], { params }: StatelessCall): string {
    const { pageSize = items.length } = script;
    const start = Number(params.cursor ?? 0);
    const next = start + pageSize < items.length ? `,"nextCursor":"${start + pageSize}"` : "";
    return `{"resultType":"complete",${caching()},"${key}":[${items.slice(start, start + pageSize).join(",")}]${next}}`;
  }

  const caching = () => `"ttlMs":${script.ttlMs ?? "0"},"cacheScope":${script.cacheScope ?? '"private"'}`;

  function push(build: (tag: string, listen: Listen) => string | undefined): void {
    for (const [stream, open] of listens) {
      const raw = build(tagOf(open.id), open);
      if (raw !== undefined) stream.write(event(raw));
    }
  }

  async function down(): Promise<void> {
    if (!server.listening) return;
    isGoingDown = true;
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  }

  return {
    url: `http://127.0.0.1:${port}/mcp`,
    port,
    requests,
    received: (rpcMethod) => requests.filter(({ message }) => message?.method === rpcMethod),
    listens: () => [...listens.values()],
    set: (changes) => {
      script = { ...script, ...changes };
    },
    announce: (what) =>
      push((tag, { filter }) => {
        const isAsked = filter[`${what}ListChanged`] === true;
        return isAsked ? notification(`notifications/${what}/list_changed`, `{"_meta":{${tag}}}`) : undefined;
      }),
    updated: (uri) =>
      push((tag, { filter }) => {
        if (!filter.resourceSubscriptions?.includes(uri)) return undefined;
        return notification("notifications/resources/updated", `{"_meta":{${tag}},"uri":${JSON.stringify(uri)}}`);
      }),
    push,
    cutListens: () => {
      for (const stream of listens.keys()) breakOff(stream);
    },
    endListens: () => {
      for (const [stream, { id }] of listens) {
        listens.delete(stream);
        stream.end(event(envelope(id, `{"resultType":"complete","_meta":{${tagOf(id)}}}`)));
      }
    },
    down,
    up: async () => {
      isGoingDown = false;
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
    },
    [Symbol.asyncDispose]: down,
  };
}

function fail(fault: Fault, response: ServerResponse): void {
  if (fault === "hang") return;
  if (fault !== "cut") return void response.writeHead(fault.status, { ...json, ...fault.headers }).end(fault.body);
  openStream(response).write(`event: message\ndata: {"jsonrpc":`, () => breakOff(response));
}

/** Ends it as no server means to; the error tells our cut from the client's. */
const breakOff = (response: ServerResponse) => response.destroy(new Error("cut"));

function openStream(response: ServerResponse): ServerResponse {
  if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream", "x-accel-buffering": "no" });
  return response;
}

interface Posted {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly message: RpcMessage | undefined;
}

/** What is wrong with a request, in the order in which servers look. */
function mistakeOf({ headers, body, message }: Posted, script: StatelessScript): StatelessError | undefined {
  const isChecked = (check: Check) => !script.unchecked?.includes(check);
  if (isChecked("accept")) {
    if (mediaType(headers["content-type"]) !== "application/json") return mistake(-32600, "not application/json", 415);
    const accepted = (headers.accept ?? "").split(",").map(mediaType);
    const wanted = ["application/json", "text/event-stream"];
    if (!wanted.every((type) => accepted.includes(type))) return mistake(-32600, `Accept lacks one of ${wanted}`, 406);
  }
  if (!isJson(body)) return mistake(-32700, "Parse error");
  if (message?.method === undefined) return mistake(-32600, "neither a request nor a notification");
  if (message.id === undefined) return undefined; // a notification: this era has none from clients, and they are dropped
  return (
    (isChecked("envelope") ? envelopeMistake(message) : undefined) ??
    (isChecked("version") ? versionMistake(headers, message, script) : undefined) ??
    (isChecked("method") ? headerMistake(headers, "mcp-method", message.method) : undefined) ??
    (isChecked("name") ? nameMistake(headers, message) : undefined) ??
    (isChecked("params") ? paramMistake(headers, message, script) : undefined) ??
    (isChecked("tasks") ? taskMistake(message, script) : undefined)
  );
}

function envelopeMistake(message: RpcMessage): StatelessError | undefined {
  const meta = metaOf(message);
  const version = meta["io.modelcontextprotocol/protocolVersion"];
  // Whoever shakes hands has no envelope, and learns which versions there are instead; see versionMistake.
  if (message.method === "initialize" && version === undefined) return undefined;
  if (typeof version !== "string") return mistake(-32602, "_meta lacks io.modelcontextprotocol/protocolVersion");
  if (!isObject(meta["io.modelcontextprotocol/clientCapabilities"])) {
    return mistake(-32602, "_meta lacks io.modelcontextprotocol/clientCapabilities");
  }
  return undefined;
}

function versionMistake(headers: IncomingHttpHeaders, message: RpcMessage, script: StatelessScript): StatelessError | undefined {
  const enveloped = metaOf(message)["io.modelcontextprotocol/protocolVersion"];
  const version = enveloped ?? message.params.protocolVersion;
  const disagreement = enveloped === undefined ? undefined : headerMistake(headers, "mcp-protocol-version", String(enveloped));
  if (disagreement) return disagreement;
  const supported = versionsOf(script);
  if (supported.includes(String(version))) return undefined;
  return mistake(-32022, "Unsupported protocol version", 400, { supported, requested: version });
}

const nameSources: Readonly<Record<string, string>> = {
  "tools/call": "name",
  "prompts/get": "name",
  "resources/read": "uri",
  "tasks/get": "taskId",
  "tasks/update": "taskId",
  "tasks/cancel": "taskId",
};

function nameMistake(headers: IncomingHttpHeaders, { method = "", params }: RpcMessage): StatelessError | undefined {
  const source = nameSources[method];
  return source === undefined ? undefined : headerMistake(headers, "mcp-name", params[source]);
}

/** Of `Mcp-Param-*`, for the properties at the first level of a listed tool's schema. */
function paramMistake(headers: IncomingHttpHeaders, message: RpcMessage, script: StatelessScript): StatelessError | undefined {
  if (message.method !== "tools/call") return undefined;
  const tools = (script.tools ?? []).map((tool) => JSON.parse(tool) as ToolText);
  const properties = tools.find(({ name }) => name === message.params.name)?.inputSchema?.properties ?? {};
  const given = isObject(message.params.arguments) ? message.params.arguments : {};
  for (const [key, { "x-mcp-header": header }] of Object.entries(properties)) {
    const value = given[key];
    if (header === undefined || value === undefined || value === null) continue;
    const problem = headerMistake(headers, `mcp-param-${header.toLowerCase()}`, value);
    if (problem) return problem;
  }
  return undefined;
}

interface ToolText {
  readonly name: string;
  readonly inputSchema?: { readonly properties?: Readonly<Record<string, { readonly "x-mcp-header"?: string }>> };
}

function taskMistake(message: RpcMessage, script: StatelessScript): StatelessError | undefined {
  if (!taskHandler(message.method ?? "", script)) return undefined;
  const declared = metaOf(message)["io.modelcontextprotocol/clientCapabilities"];
  const extensions = isObject(declared) && isObject(declared.extensions) ? declared.extensions : {};
  if (tasksExtension in extensions) return undefined;
  const requiredCapabilities = { extensions: { [tasksExtension]: {} } };
  return mistake(-32021, "Missing required client capability", 400, { requiredCapabilities });
}

function taskHandler(method: string, { tasks }: StatelessScript): StatelessHandler | undefined {
  const [family, verb] = method.split("/");
  return family === "tasks" ? tasks?.[verb as keyof typeof tasks] : undefined;
}

/** A header that must be there and say what the body says; numbers are compared as numbers. */
function headerMistake(headers: IncomingHttpHeaders, name: string, wanted: unknown): StatelessError | undefined {
  const header = headers[name];
  if (header === undefined) return mistake(-32020, `Header mismatch: ${name} is missing`);
  const value = decoded(String(header).trim());
  const isSame = typeof wanted === "number" ? Number(value) === wanted : value === String(wanted);
  return isSame ? undefined : mistake(-32020, `Header mismatch: ${name} is ${header}, and the body says ${wanted}`);
}

/** Undefined when it claims to be Base64 and is not, strictly, UTF-8 in Base64. */
function decoded(header: string): string | undefined {
  const encoded = /^=\?base64\?(.*)\?=$/.exec(header)?.[1];
  if (encoded === undefined) return header;
  const bytes = Buffer.from(encoded, "base64");
  const value = bytes.toString("utf8");
  return bytes.toString("base64") === encoded && Buffer.from(value, "utf8").equals(bytes) ? value : undefined;
}

const mistake = (code: number, message: string, status = 400, data?: unknown): StatelessError =>
  rawError(JSON.stringify({ code, message, data }), status);

const versionsOf = ({ versions = [statelessVersion] }: StatelessScript) => versions;

const metaOf = ({ params }: RpcMessage) => (isObject(params._meta) ? params._meta : {});

const mediaType = (text = "") => text.split(";")[0]?.trim().toLowerCase() ?? "";

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function isJson(body: string): boolean {
  try {
    JSON.parse(body);
    return true;
  } catch {
    return false;
  }
}

/** Without an id when the message has none: MCP knows no null. */
function envelope(id: string | undefined, outcome: string | StatelessError): string {
  const member = typeof outcome === "string" ? `"result":${outcome}` : `"error":${outcome.rawError}`;
  return `{"jsonrpc":"2.0",${id === undefined ? "" : `"id":${id},`}${member}}`;
}

const notification = (method: string, params: string) => `{"jsonrpc":"2.0","method":"${method}","params":${params}}`;

const tagOf = (id: string) => `"io.modelcontextprotocol/subscriptionId":${id}`;

const event = (raw: string) => `event: message\ndata: ${raw}\n\n`;
