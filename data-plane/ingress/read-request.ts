// The body of a POST → the messages in it.
import { errorCodes, type Message, readMessage } from "../mcp/json-rpc.ts";
import { prescan } from "../mcp/prescan.ts";
import { elements } from "../mcp/scan.ts";

/** One message with its parameters, parsed for looking up. */
export interface ReadMessage {
  readonly message: Message;
  readonly params: Readonly<Record<string, unknown>>;
}

/** Why a body is refused. */
export interface Refusal {
  readonly status: 400 | 413;
  readonly code: number;
  readonly message: string;
}

const batchMax = 100;
/** As the string is written, escapes included. */
const idBytesMax = 256;

/** One message, or, as MCP 2025-03-26 alone has it, a batch of them. */
export function readRequest(body: Buffer): ReadMessage | ReadMessage[] | Refusal {
  const fault = prescan(body);
  if (fault?.kind === "parse") return { status: 400, code: errorCodes.parse, message: `the body is not JSON: ${fault.message}` };
  if (fault) return { status: fault.kind === "too_large" ? 413 : 400, code: errorCodes.invalidRequest, message: fault.message };
  try {
    const parsed: unknown = JSON.parse(body.toString());
    if (!Array.isArray(parsed)) return readOne(body, parsed);
    if (parsed.length === 0 || parsed.length > batchMax) return refusal(`a batch has 1 to ${batchMax} messages`);
    return elements(body).map(({ start, end }, i) => readOne(body.subarray(start, end), parsed[i]));
  } catch (error) {
    return refusal(`the body is not JSON-RPC 2.0: ${(error as Error).message}`);
  }
}

function readOne(json: Buffer, parsed: unknown): ReadMessage {
  const message = readMessage(json);
  if (message.method !== undefined) checkId(message);
  const { params = {} } = parsed as { params?: unknown };
  if (typeof params !== "object" || params === null || Array.isArray(params)) throw new Error('"params" is not an object');
  return { message, params: params as Record<string, unknown> };
}

/**
 * Refuses ids of requests that two readers may take for different ones: the answer could not be told from another's.
 * Answers carry ids of ours. Source: MCP 2025-11-25, base protocol, requests: a string or an integer, not null.
 */
function checkId({ id, idSpan }: Message): void {
  if (!idSpan) return;
  if (id === undefined) throw new Error('"id" is null; a request has one, a notification leaves it out');
  if (id.startsWith('"')) {
    if (Buffer.byteLength(id) - 2 > idBytesMax) throw new Error(`"id" is longer than ${idBytesMax} bytes`);
  } else if (!/^(0|-?[1-9]\d{0,31})$/.test(id)) {
    // However large: it is carried as it is written. But 1.0, 1e0 and -0 are other words for ids that others may have.
    throw new Error('"id" is neither a string nor an integer in plain digits');
  }
}

function refusal(message: string): Refusal {
  return { status: 400, code: errorCodes.invalidRequest, message };
}
