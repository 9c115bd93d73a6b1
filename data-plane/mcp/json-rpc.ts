// JSON-RPC 2.0 messages as MCP uses them: bytes, plus where their parts stand.
import { type Edit, endOfValue, isAtEnd, JsonTextError, readMembers, type Span, splice } from "./scan.ts";

/** One message. Spans point into `json`; a message has a method (request, notification) or a result or error (response). */
export interface Message {
  readonly json: Buffer;
  /** Raw JSON text of the id; undefined for notifications. */
  readonly id: string | undefined;
  /** Where the id stands; a response's may be null. */
  readonly idSpan: Span | undefined;
  readonly method: string | undefined;
  readonly params: Span | undefined;
  readonly result: Span | undefined;
  readonly error: Span | undefined;
  /** Of an answer that came with an HTTP error. */
  readonly httpStatus?: number;
}

/** Codes of JSON-RPC 2.0 and of MCP up to 2025-11-25. */
export const errorCodes = {
  parse: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internal: -32603,
  resourceNotFound: -32002,
} as const;

/** Reads one message; throws JsonTextError when it is not JSON or not a JSON-RPC 2.0 object. Of a member that comes twice the last counts. */
export function readMessage(json: Buffer): Message {
  const parts: Record<Part, Span | undefined> = { ...noParts };
  const end = readMembers(json, 0, (key, start) => {
    const span = { start, end: endOfValue(json, start) };
    if (Object.hasOwn(parts, key)) parts[key as Part] = span;
    return span.end;
  });
  const { jsonrpc, id: idSpan, method: methodSpan, params, result, error } = parts;
  if (textOf(json, jsonrpc) !== '"2.0"') throw new JsonTextError('"jsonrpc" is not "2.0"');
  if (!isAtEnd(json, end)) throw new JsonTextError("more than one value");
  const idText = textOf(json, idSpan);
  const id = idText === "null" ? undefined : idText; // some servers send null for "no id"
  if (id !== undefined && !/^("|-?\d)/.test(id)) throw new JsonTextError('"id" is neither a string nor a number');
  const method = readMethod(textOf(json, methodSpan));
  if (method === undefined && !result && !error) throw new JsonTextError("neither a request nor a response");
  return { json, id, idSpan, method, params, result, error };
}

type Part = "jsonrpc" | "id" | "method" | "params" | "result" | "error";

const noParts: Readonly<Record<Part, undefined>> = {
  jsonrpc: undefined,
  id: undefined,
  method: undefined,
  params: undefined,
  result: undefined,
  error: undefined,
};

const textOf = (json: Buffer, span: Span | undefined): string | undefined => span && json.toString("utf8", span.start, span.end);

/** The message with parts inside its values exchanged: what stands outside moves along and is not read again. */
export function edited(message: Message, edits: readonly Edit[]): Message {
  if (edits.length === 0) return message;
  const growth = (until: number): number => {
    let sum = 0;
    for (const { start, end, text } of edits) if (end <= until) sum += Buffer.byteLength(text) - (end - start);
    return sum;
  };
  const moved = (span: Span | undefined): Span | undefined =>
    span && { start: span.start + growth(span.start), end: span.end + growth(span.end) };
  const { json, idSpan, params, result, error } = message;
  return {
    ...message,
    json: splice(json, edits),
    ...{ idSpan: moved(idSpan), params: moved(params), result: moved(result), error: moved(error) },
  };
}

function readMethod(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  try {
    const method: unknown = JSON.parse(text);
    if (typeof method === "string") return method;
  } catch {
    // falls through: not a string either way
  }
  throw new JsonTextError('"method" is not a string');
}

/** The message under another id; a copy only when it differs. */
export function withId(message: Message, id: string): Message {
  const { idSpan } = message;
  if (!idSpan || message.id === id) return message;
  const delta = Buffer.byteLength(id) - (idSpan.end - idSpan.start);
  const moved = (span: Span | undefined) =>
    span && span.start > idSpan.start ? { start: span.start + delta, end: span.end + delta } : span;
  return {
    json: splice(message.json, [{ ...idSpan, text: id }]),
    id,
    idSpan: { start: idSpan.start, end: idSpan.end + delta },
    method: message.method,
    params: moved(message.params),
    result: moved(message.result),
    error: moved(message.error),
  };
}

/** A request or, without an id, a notification. `params` is JSON text. */
export function request(method: string, params: string | undefined, id?: string): Buffer {
  return Buffer.from(
    `{"jsonrpc":"2.0"${id === undefined ? "" : `,"id":${id}`},"method":${JSON.stringify(method)}${params ? `,"params":${params}` : ""}}`,
  );
}

/** A response with a prepared result, whole or in pieces. */
export function resultResponse(id: string, ...result: readonly (Buffer | string)[]): Buffer {
  const pieces = result.map((piece) => (typeof piece === "string" ? Buffer.from(piece) : piece));
  return Buffer.concat([Buffer.from(`{"jsonrpc":"2.0","id":${id},"result":`), ...pieces, closing]);
}
const closing = Buffer.from("}");

/** A message to be written: whole, or in pieces one after the other, so that what is large and prepared is not copied for each. */
export type Written = Buffer | readonly Buffer[];

/** The same as `resultResponse`, of a large piece that was prepared. */
export function resultAround(id: string, before: string, prepared: Buffer, after: string): Written {
  if (prepared.length < piecesFrom) return resultResponse(id, before, prepared, after);
  return [Buffer.from(`{"jsonrpc":"2.0","id":${id},"result":${before}`), prepared, Buffer.from(`${after}}`)];
}
// What is smaller costs less to copy than to be written in three.
const piecesFrom = 16 * 1024;

export function whole(message: Written): Buffer {
  return Buffer.isBuffer(message) ? message : Buffer.concat(message as readonly Buffer[]);
}

export function lengthOf(message: Written): number {
  return Buffer.isBuffer(message) ? message.length : (message as readonly Buffer[]).reduce((sum, { length }) => sum + length, 0);
}

/** An error response. Without an id when the request could not be read (`id: null` is not valid MCP). */
export function errorResponse(id: string | undefined, { code, message, data }: RpcError): Buffer {
  return Buffer.from(
    `{"jsonrpc":"2.0"${id === undefined ? "" : `,"id":${id}`},"error":${JSON.stringify({ code, message, data })}}`,
  );
}

/** An error that a client is answered with. */
export interface RpcError {
  readonly code: number;
  readonly message: string;
  readonly data?: unknown;
}

/** The parsed members of a span; throws SyntaxError. */
export function parseSpan(message: Message, span: Span | undefined): unknown {
  return span ? JSON.parse(message.json.toString("utf8", span.start, span.end)) : undefined;
}
