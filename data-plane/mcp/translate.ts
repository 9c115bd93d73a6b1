// Answers of one era as clients of the other can read them. Everything that need not change keeps its bytes.
// Source: MCP 2026-07-28, results, caching and errors; MCP 2025-11-25 for what stands there instead.
import { errorCodes, errorResponse, type Message, parseSpan, readMessage } from "./json-rpc.ts";
import { elements, isEmpty, member, parseValue, type Span, splice, withMembers, withoutMembers } from "./scan.ts";
import { metaKeys, statelessErrors } from "./stateless.ts";

/** Asks the client to visit a URL first (MCP 2025-11-25); its place in the stateless era is an `input_required` result. */
/** Of errors: a URL has to be visited first (MCP 2025-11-25, elicitation). */
export const urlElicitationRequired = -32042;

/** What a result of the stateless era is: `complete`, `input_required`, or a word of an extension; undefined when it has none. */
export function resultTypeOf({ json, result }: Message): string | undefined {
  if (!result || json[result.start] !== 0x7b) return undefined;
  // A letter can be spelled as \u0054, so only a text without any is what it seems.
  const isPlain = !json.includes("\\u");
  const first = isPlain && startsWith(json, result.start, completeFirst) ? result.start + 1 : -1; // nearly always
  const again = json.indexOf('"resultType"', first + 1);
  if (isPlain && again < 0) return first < 0 ? undefined : "complete";
  const span = member(json, result.start, "resultType");
  const value = span && parseValue(json, span);
  return typeof value === "string" ? value : undefined;
}

const completeFirst = Buffer.from('{"resultType":"complete"');

function startsWith(json: Buffer, start: number, text: Buffer): boolean {
  return json.subarray(start, start + text.length).equals(text);
}

/** An answer from a server of the session era to `method`, for a client of the stateless era. */
export function toStateless(method: string, answer: Message, params: Readonly<Record<string, unknown>>): Message {
  const { json, result, error } = answer;
  if (result) return readMessage(splice(json, [{ ...result, text: completed(method, json.subarray(result.start, result.end)) }]));
  return error ? withoutSessionErrors(method, answer, params) : answer;
}

/** An error answer in the words of the stateless era, which has no code of its own for resources that don't exist. */
export function withoutSessionErrors(method: string, answer: Message, params: Readonly<Record<string, unknown>>): Message {
  const { code, message, data } = errorOf(answer);
  if (code !== errorCodes.resourceNotFound) return answer;
  return failure(answer, errorCodes.invalidParams, message, method === "resources/read" ? { uri: params.uri } : data);
}

/** An error answer that says that no such resource exists, when a server of the session era said so by reading nothing. */
export function withoutEmptyRead(answer: Message, params: Readonly<Record<string, unknown>>): Message {
  const { json, result } = answer;
  const contents = result && json[result.start] === 0x7b && member(json, result.start, "contents");
  if (!contents || json[contents.start] !== 0x5b || elements(json, contents.start).length > 0) return answer;
  return failure(answer, errorCodes.invalidParams, "resource not found", { uri: params.uri });
}

function completed(method: string, result: Buffer): Buffer {
  if (result[0] !== 0x7b) return result;
  const members: Record<string, string> = { resultType: '"complete"' };
  // What a session-era server says of a resource holds for this moment and this caller.
  if (method === "resources/read") Object.assign(members, { ttlMs: "0", cacheScope: '"private"' });
  return withMembers(result, members);
}

const statelessMembers = ["resultType", "ttlMs", "cacheScope"];

/** An answer from a server of the stateless era to `method`, for a client of the session era. */
export function toSession(method: string, answer: Message): Message {
  const { json, result, error } = answer;
  if (result) {
    if (json[result.start] !== 0x7b) return answer;
    const plain = withoutMembers(withoutServerInfo(json.subarray(result.start, result.end)), statelessMembers);
    return readMessage(splice(json, [{ ...result, text: plain }]));
  }
  if (!error) return answer;
  const { code, message, data } = errorOf(answer);
  if (method === "resources/read" && code === errorCodes.invalidParams && hasUri(data))
    return failure(answer, errorCodes.resourceNotFound, message, data);
  if (!isOfTheHop(code)) return answer;
  if (method === "tools/call") return toolFailure(answer, `The server refused the call: ${message}`);
  return failure(answer, errorCodes.internal, message, data);
}

/** A tool's result that says why there is none: what a model can read. */
export function toolFailure({ id }: Message, text: string): Message {
  const result = JSON.stringify({ content: [{ type: "text", text }], isError: true });
  return readMessage(Buffer.from(`{"jsonrpc":"2.0","id":${id},"result":${result}}`));
}

/** Whether an error code speaks of the hop between a client and its server, so that nobody behind it can use it. */
export function isOfTheHop(code: unknown): boolean {
  return (Object.values(statelessErrors) as unknown[]).includes(code);
}

/** The URLs that a client is to visit before it calls again; undefined when the answer asks for none. */
function urlElicitationsOf(answer: Message): readonly { readonly message: string; readonly url: string }[] | undefined {
  if (!answer.error || !answer.json.includes(String(urlElicitationRequired))) return undefined;
  const { code, data } = errorOf(answer);
  const { elicitations } = Object(data) as { elicitations?: unknown };
  if (code !== urlElicitationRequired) return undefined;
  return (Array.isArray(elicitations) ? elicitations : []).flatMap((one: unknown) => {
    const { message, url } = Object(one) as { message?: unknown; url?: unknown };
    return typeof url === "string" ? [{ message: typeof message === "string" ? message : "", url }] : [];
  });
}

/**
 * "Visit this URL first" in the words of the stateless era: the caller visits it and calls again. A caller that can't is told
 * what it lacks. Any other answer comes back as it is.
 */
export function withUrlRequests(answer: Message, capabilities: Readonly<Record<string, unknown>>): Message {
  const elicitations = urlElicitationsOf(answer);
  if (!elicitations) return answer;
  if (elicitations.length === 0) return failure(answer, errorCodes.internal, "it wants a URL visited first, and names none");
  const { elicitation } = capabilities as { elicitation?: { url?: unknown } };
  if (!elicitation?.url)
    return failure(answer, statelessErrors.missingCapability, "a URL has to be visited first", {
      requiredCapabilities: { elicitation: { url: {} } },
    });
  const requests = elicitations.map((params, i) => [
    `url${i + 1}`,
    { method: "elicitation/create", params: { mode: "url", ...params } },
  ]);
  const result = JSON.stringify({ resultType: "input_required", inputRequests: Object.fromEntries(requests) });
  return readMessage(Buffer.from(`{"jsonrpc":"2.0","id":${answer.id},"result":${result}}`));
}

/** The parts of an error answer. */
export function errorOf(answer: Message): { readonly code: number; readonly message: string; readonly data: unknown } {
  const { code, message, data } = readObject(answer, answer.error);
  return {
    code: typeof code === "number" ? code : errorCodes.internal,
    message: typeof message === "string" ? message : "",
    data,
  };
}

/** Parsed; empty when it is no object. */
export function readObject(message: Message, span: Span | undefined): Record<string, unknown> {
  try {
    return Object(parseSpan(message, span)) as Record<string, unknown>;
  } catch {
    return {}; // the scanner lets pass what no parser reads
  }
}

/** The same answer as another error. */
export function failure({ id }: Message, code: number, message: string, data?: unknown): Message {
  return readMessage(errorResponse(id, { code, message, data }));
}

function hasUri(data: unknown): boolean {
  return typeof (Object(data) as { uri?: unknown }).uri === "string";
}

function withoutServerInfo(result: Buffer): Buffer {
  const meta = member(result, 0, "_meta");
  if (!meta || result[meta.start] !== 0x7b) return result;
  const before = result.subarray(meta.start, meta.end);
  const plain = withoutMembers(before, [metaKeys.serverInfo]);
  if (plain === before) return result;
  if (isEmpty(plain)) return withoutMembers(result, ["_meta"]);
  return splice(result, [{ ...meta, text: plain }]);
}
