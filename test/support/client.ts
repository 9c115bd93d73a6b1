// The two clients of the tests: the real SDK client, and a raw one that sees status, headers and the exact bytes.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import type { ClientCapabilities } from "@modelcontextprotocol/sdk/types.js";
import { type Dispatcher, request as httpRequest } from "undici";
import { eventually } from "./eventually.ts";
import { readRpc } from "./json.ts";

/** A connected SDK client; closing it ends its session. */
export interface SdkClient extends AsyncDisposable {
  readonly client: Client;
  readonly sessionId: string;
  /** Methods of the notifications that came without being asked for, oldest first. */
  readonly notifications: string[];
  toolNames(): Promise<string[]>;
  /** Calls a tool and gives its first text; throws what the client throws. */
  call(name: string, args?: Record<string, unknown>): Promise<string>;
}

/** Headers of a client's requests, as they are when one is sent: a test changes them there. */
export type SentHeaders = Record<string, string>;

/** What shows a bearer token. */
export const bearer = (token: string): SentHeaders => ({ authorization: `Bearer ${token}` });

/** Connects the real client to a streamable HTTP endpoint. */
export async function openClient(
  url: string,
  capabilities: ClientCapabilities = {},
  headers: SentHeaders = {},
): Promise<SdkClient> {
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    fetch: (target, init) => fetch(target, { ...init, headers: [...new Headers(init?.headers), ...Object.entries(headers)] }),
  });
  const client = new Client({ name: "test-client", version: "1.0.0" }, { capabilities });
  const notifications: string[] = [];
  client.fallbackNotificationHandler = async ({ method }) => void notifications.push(method);
  // The SDK's own types disagree under exactOptionalPropertyTypes.
  await client.connect(transport as Transport);
  return {
    client,
    sessionId: transport.sessionId ?? "",
    notifications,
    toolNames: async () => {
      const names: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await client.listTools(cursor === undefined ? undefined : { cursor });
        names.push(...page.tools.map(({ name }) => name));
        cursor = page.nextCursor;
      } while (cursor !== undefined);
      return names;
    },
    call: async (name, args = {}) => {
      const { content } = await client.callTool({ name, arguments: args });
      return (content as { text?: string }[])[0]?.text ?? "";
    },
    [Symbol.asyncDispose]: async () => {
      await transport.terminateSession().catch(() => undefined);
      await client.close();
    },
  };
}

/** One HTTP answer. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: Dispatcher.ResponseData["headers"];
  readonly body: string;
  /** Every JSON-RPC message in it, raw: one for JSON, all of a stream for SSE. */
  readonly messages: readonly string[];
}

export interface RawOptions {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
}

/** One HTTP request, exactly as given. `Host` may be set. */
export async function send(url: string, { method = "GET", headers = {}, body }: RawOptions = {}): Promise<RawAnswer> {
  const signal = AbortSignal.timeout(30_000);
  const answer = await httpRequest(url, {
    method: method as Dispatcher.HttpMethod,
    headers,
    signal,
    ...(body === undefined ? {} : { body }),
  });
  const text = await answer.body.text();
  const isStream = String(answer.headers["content-type"]).startsWith("text/event-stream");
  const messages = isStream ? eventData(text) : text ? [text] : [];
  return { status: answer.statusCode, headers: answer.headers, body: text, messages };
}

/** The data of every event of a finished stream; priming events, which have none, are left out. */
function eventData(text: string): string[] {
  const blocks = text.split(/\r?\n\r?\n/).map((block) => block.split(/\r?\n/).filter((line) => line.startsWith("data:")));
  return blocks.map((lines) => lines.map((line) => line.replace(/^data: ?/, "")).join("\n")).filter((data) => data !== "");
}

export const mcpHeaders = { "content-type": "application/json", accept: "application/json, text/event-stream" };

/** A session of our own making. */
export interface RawSession {
  readonly id: string;
  readonly initializeAnswer: RawAnswer;
  /** The notifications that came on the GET stream, raw. Opens it at the first use. */
  stream(): Promise<RawStream>;
  /** Sends a request; `params` is raw JSON. Gives the whole answer. */
  ask(method: string, params?: string, id?: string): Promise<RawAnswer>;
  /** As `ask`, and gives the raw message that answers it. */
  result(method: string, params?: string, id?: string): Promise<string>;
  post(body: string | Buffer, headers?: Record<string, string>): Promise<RawAnswer>;
  delete(): Promise<RawAnswer>;
}

export interface RawStream extends AsyncDisposable {
  readonly messages: string[];
  /** The next message that has the method. */
  next(method: string, ms?: number): Promise<string>;
}

/** Initializes a session by hand. */
export async function openRawSession(url: string, version = "2025-11-25", headers: SentHeaders = {}): Promise<RawSession> {
  const info = `{"name":"raw","version":"1"}`;
  const body = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"${version}","capabilities":{},"clientInfo":${info}}}`;
  const initializeAnswer = await send(url, { method: "POST", headers: { ...mcpHeaders, ...headers }, body });
  const id = initializeAnswer.headers["mcp-session-id"];
  if (typeof id !== "string") throw new Error(`no session: ${initializeAnswer.status} ${initializeAnswer.body}`);
  const session = { "mcp-session-id": id, "mcp-protocol-version": version };
  const post = (text: string | Buffer, more = {}) =>
    send(url, { method: "POST", headers: { ...mcpHeaders, ...session, ...headers, ...more }, body: text });
  await post(`{"jsonrpc":"2.0","method":"notifications/initialized"}`);
  let asked = 0;

  const ask: RawSession["ask"] = (method, params, requestId = String(++asked)) =>
    post(`{"jsonrpc":"2.0","id":${requestId},"method":"${method}"${params ? `,"params":${params}` : ""}}`);
  return {
    id,
    initializeAnswer,
    ask,
    result: async (method, params, requestId = String(++asked)) => {
      const answer = await ask(method, params, requestId);
      const found = answer.messages.find((message) => readRpc(message)?.id === requestId);
      if (found === undefined) throw new Error(`no answer to ${method}: ${answer.status} ${answer.body}`);
      return found;
    },
    post,
    stream: () => openStream(url, { ...session, ...headers }),
    delete: () => send(url, { method: "DELETE", headers: { ...session, ...headers } }),
  };
}

async function openStream(url: string, session: Record<string, string>): Promise<RawStream> {
  const abort = new AbortController();
  const { body } = await httpRequest(url, { headers: { accept: "text/event-stream", ...session }, signal: abort.signal });
  const messages: string[] = [];
  let rest = "";
  body.on("data", (chunk: Buffer) => {
    rest += chunk.toString();
    const end = rest.lastIndexOf("\n\n");
    if (end < 0) return;
    messages.push(...eventData(rest.slice(0, end)));
    rest = rest.slice(end + 2);
  });
  body.on("error", () => undefined); // aborted by us, or cut by the server: either way the messages so far are what there is
  return {
    messages,
    next: (method, ms = 10_000) =>
      eventually(
        `a ${method} on the stream`,
        () => {
          const at = messages.findIndex((message) => readRpc(message)?.method === method);
          return at < 0 ? undefined : messages.splice(0, at + 1).at(-1);
        },
        ms,
      ),
    [Symbol.asyncDispose]: async () => abort.abort(),
  };
}
