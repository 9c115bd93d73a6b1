// A raw client of the stateless era: it writes the envelope and the headers, and sees status, headers and the exact bytes.
import { type Dispatcher, request as httpRequest } from "undici";
import { mcpHeaders, type RawAnswer, send } from "./client.ts";
import { eventually } from "./eventually.ts";

export const statelessVersion = "2026-07-28";
export const tasksExtension = "io.modelcontextprotocol/tasks";
/** Everything that a server may ask for. */
export const able = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };
/** Knows tasks. */
export const taskable = { extensions: { [tasksExtension]: {} } };

export interface AskOptions {
  /** Raw JSON text. Default 1. */
  readonly id?: string;
  /** Declared in the envelope. Default: none. */
  readonly capabilities?: object;
  /** Further members of `_meta`, or raw text of the whole. */
  readonly meta?: object | string;
  /** Added to the right ones, or put in their place; undefined leaves one out. */
  readonly headers?: Readonly<Record<string, string | undefined>>;
}

export interface InputRequest {
  readonly method: string;
  readonly params?: Readonly<Record<string, unknown>>;
}

export interface RpcResult extends Readonly<Record<string, unknown>> {
  readonly resultType?: string;
  readonly content?: readonly { readonly text?: string }[];
  readonly inputRequests?: Readonly<Record<string, InputRequest>>;
  readonly requestState?: string;
  readonly nextCursor?: string;
}

export interface RpcError {
  readonly code: number;
  readonly message: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** An HTTP answer, with the last message in it parsed. */
export interface StatelessAnswer extends RawAnswer {
  readonly id: unknown;
  readonly result: RpcResult;
  readonly error: RpcError | undefined;
  /** The first text of a tool's result. */
  readonly text: string;
}

/** The body of a request; `params` as an object, or as the raw text of one without `_meta`. */
export function requestText(method: string, params: object | string = {}, options: AskOptions = {}): string {
  const { id = "1", capabilities = {}, meta = {} } = options;
  const envelope = {
    "io.modelcontextprotocol/protocolVersion": statelessVersion,
    "io.modelcontextprotocol/clientInfo": { name: "raw", version: "1" },
    "io.modelcontextprotocol/clientCapabilities": capabilities,
  };
  const metaText = typeof meta === "string" ? meta : JSON.stringify({ ...envelope, ...meta });
  const text = typeof params === "string" ? params : JSON.stringify(params);
  const rest = text.slice(1) === "}" ? "}" : `,${text.slice(1)}`;
  return `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)},"params":{"_meta":${metaText}${rest}}`;
}

const nameParams: Readonly<Record<string, string>> = {
  "tools/call": "name",
  "prompts/get": "name",
  "resources/read": "uri",
  "tasks/get": "taskId",
  "tasks/update": "taskId",
  "tasks/cancel": "taskId",
};

/** The headers that go with it. */
export function headersFor(method: string, params: object | string = {}, { headers = {} }: AskOptions = {}) {
  const given = (typeof params === "string" ? JSON.parse(params) : params) as Record<string, string>;
  const named = given[nameParams[method] ?? ""];
  const all: Record<string, string | undefined> = {
    ...mcpHeaders,
    "mcp-protocol-version": statelessVersion,
    "mcp-method": method,
    ...(named === undefined ? {} : { "mcp-name": headerText(named) }),
    ...headers,
  };
  return Object.fromEntries(Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined));
}

/** As headers have it: Base64 unless it is plain. */
export function headerText(text: string): string {
  return /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !text.startsWith("=?base64?") ? text : base64Header(text);
}

export const base64Header = (text: string): string => `=?base64?${Buffer.from(text).toString("base64")}?=`;

/** Sends a request and gives the whole answer. */
export async function ask(
  url: string,
  method: string,
  params: object | string = {},
  options: AskOptions = {},
): Promise<StatelessAnswer> {
  const body = requestText(method, params, options);
  return read(await send(url, { method: "POST", headers: headersFor(method, params, options), body }));
}

/** Calls a tool. */
export const callTool = (url: string, name: string, args: object = {}, options: AskOptions = {}): Promise<StatelessAnswer> =>
  ask(url, "tools/call", { name, arguments: args }, options);

export function read(answer: RawAnswer): StatelessAnswer {
  const { id, result = {}, error } = JSON.parse(answer.messages.at(-1) ?? "{}") as Partial<StatelessAnswer>;
  return { ...answer, id, result, error, text: result.content?.[0]?.text ?? "" };
}

export interface Notice {
  readonly method?: string;
  readonly id?: unknown;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: RpcResult;
  readonly error?: RpcError;
}

/** A response that is read as it comes. */
export interface OpenAsk extends AsyncDisposable {
  readonly status: number;
  readonly headers: Dispatcher.ResponseData["headers"];
  /** All so far. */
  readonly messages: readonly Notice[];
  /** The same as raw text. */
  readonly texts: readonly string[];
  /** The first message, present or future, that has the method or passes the test. */
  next(test: string | ((message: Notice) => boolean), ms?: number): Promise<Notice>;
  /** Settles when the other side ended or cut the stream; rejects after 10 s. */
  readonly ended: Promise<unknown>;
  /** Goes away. */
  abort(): void;
}

/** Sends a request whose answer may take its time; settles with the head of the response. */
export function openAsk(url: string, method: string, params: object | string = {}, options: AskOptions = {}): Promise<OpenAsk> {
  return openPost(url, headersFor(method, params, options), requestText(method, params, options));
}

/** The same with any headers and body, of either era. */
export async function openPost(url: string, headers: Record<string, string>, body: string): Promise<OpenAsk> {
  const gone = new AbortController();
  const answer = await httpRequest(url, { method: "POST", headers, body, signal: gone.signal });
  const messages: Notice[] = [];
  const texts: string[] = [];
  let rest = "";
  let isEnded = false;
  answer.body.on("data", (chunk: Buffer) => {
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop() ?? "";
    const lines = blocks.flatMap((block) => block.split("\n").find((line) => /^data: ./.test(line)) ?? []);
    texts.push(...lines.map((line) => line.slice(6)));
    messages.push(...lines.map((line) => JSON.parse(line.slice(6)) as Notice));
  });
  answer.body.on("error", () => undefined); // cut, by us or by them: "close" follows
  answer.body.on("close", () => {
    isEnded = true;
  });
  return {
    status: answer.statusCode,
    headers: answer.headers,
    messages,
    texts,
    next: (test, ms) => {
      const isIt = typeof test === "string" ? (message: Notice) => message.method === test : test;
      return eventually(`${test} on the stream`, () => messages.find(isIt), ms);
    },
    get ended() {
      return eventually("the end of the stream", () => isEnded);
    },
    abort: () => gone.abort(),
    [Symbol.asyncDispose]: async () => gone.abort(),
  };
}

/** Opens a listen; settles when it is acknowledged. */
export async function listen(
  url: string,
  notifications: object,
  options: AskOptions = {},
): Promise<OpenAsk & { readonly honored: Readonly<Record<string, unknown>> }> {
  const stream = await openAsk(url, "subscriptions/listen", { notifications }, options);
  const { params = {} } = await stream.next("notifications/subscriptions/acknowledged");
  return Object.assign(stream, { honored: params.notifications as Record<string, unknown> });
}
