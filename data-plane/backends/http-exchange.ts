// Makes one answer of the bytes of one HTTP response, JSON or event stream.
import { createEventParser, type EventParser } from "../mcp/event-stream.ts";
import { errorCodes, type Message, readMessage, withId } from "../mcp/json-rpc.ts";
import { isUnreadable, splice } from "../mcp/scan.ts";
import { metaKeys, statelessErrors } from "../mcp/stateless.ts";
import { BackendError, reasonOf, refusedWith } from "./errors.ts";
import type { Hear } from "./leg.ts";

/** Largest answer, and largest event of a stream. */
export const answerBytesMax = 10 * 1024 * 1024;

const retryMsDefault = 1_000;

/** The reading of one answer. */
export interface Exchange {
  start(status: number, contentType: string): void;
  /** The awaited response or why there can be none, once it is known before the end. */
  data(chunk: Buffer): Message | BackendError | undefined;
  end(): Message | BackendError | undefined;
  /** How long the response should not be read any further, because the client is slow. Asked once per chunk. */
  pressure(): Promise<void> | undefined;
  /** Where to go on when the stream was cut before the answer; undefined when it can't be. */
  resumption(): { readonly lastEventId: string; readonly retryMs: number } | undefined;
}

export interface ExchangeOptions {
  readonly awaited: Message | undefined;
  readonly onMessage: Hear;
  readonly hasSession: boolean;
}

/** Makes one answer of the bytes of one HTTP response. */
export function createExchange(options: ExchangeOptions): Exchange {
  return new OneExchange(options);
}

// A class, because closures would be a tenth of what is allocated for a call.
class OneExchange implements Exchange {
  readonly #options: ExchangeOptions;
  readonly #chunks: Buffer[] = [];
  #events: EventParser | undefined; // for an answer that is an event stream
  #bytes = 0;
  #status = 0;
  #answer: Message | undefined;
  #taken: Promise<void> | undefined;

  constructor(options: ExchangeOptions) {
    this.#options = options;
  }

  start(status: number, contentType: string): void {
    this.#status = status;
    if (status < 300 && /^text\/event-stream\b/i.test(contentType)) this.#events = createEventParser(answerBytesMax);
  }

  data(chunk: Buffer): Message | BackendError | undefined {
    try {
      return this.#take(chunk);
    } catch (error) {
      return asBadAnswer(error);
    }
  }

  end(): Message | BackendError | undefined {
    try {
      return this.#finish();
    } catch (error) {
      return asBadAnswer(error);
    }
  }

  pressure(): Promise<void> | undefined {
    const wait = this.#taken;
    this.#taken = undefined;
    return wait;
  }

  resumption(): ReturnType<Exchange["resumption"]> {
    if (this.#answer || this.#events?.lastEventId === undefined) return undefined;
    return { lastEventId: this.#events.lastEventId, retryMs: this.#events.retryMs ?? retryMsDefault };
  }

  #take(chunk: Buffer): Message | undefined {
    if (this.#events) {
      for (const event of this.#events.push(chunk)) if (event.data.length > 0 && !this.#answer) this.#read(event.data);
      return this.#answer;
    }
    this.#bytes += chunk.length;
    if (this.#bytes > answerBytesMax)
      throw new BackendError("bad_answer", "unknown", `the answer is larger than ${answerBytesMax} bytes`);
    this.#chunks.push(chunk);
    return undefined;
  }

  #read(json: Buffer): void {
    const { awaited } = this.#options;
    const message = readMessage(json);
    if (message.method !== undefined) this.#hear(message);
    else if (awaited && isSameId(message.id, awaited.id)) this.#answer ??= withId(message, awaited.id as string);
    else throw new BackendError("bad_answer", "unknown", `answered with id ${message.id}, asked with ${awaited?.id}`);
  }

  /** What nobody can make sense of is no fault of the answer that it comes before. */
  #hear(message: Message): void {
    try {
      this.#taken = this.#options.onMessage(message) ?? this.#taken;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
    }
  }

  #finish(): Message | undefined {
    const status = this.#status;
    const { awaited, hasSession } = this.#options;
    if (this.#events) {
      if (!this.#answer) throw new BackendError("bad_answer", "unknown", "the event stream ended before the answer");
      return this.#answer;
    }
    if (status === 401 || status === 403) throw new BackendError("unauthorized", "not_executed", `answered HTTP ${status}`);
    const [first = Buffer.alloc(0)] = this.#chunks;
    const body = this.#chunks.length < 2 ? first : Buffer.concat(this.#chunks);
    if (hasSession && isSessionRefusal(status, body))
      throw new BackendError("session_gone", "not_executed", "the session is gone");
    if (!awaited && status < 300) return undefined;
    if (body.length > 0 && awaited) {
      if (status < 300) this.#read(body);
      else this.#answer = readErrorBody(body, awaited);
    }
    if (this.#answer) return status < 300 ? this.#answer : { ...this.#answer, httpStatus: status };
    if (status >= 400 && status < 500) throw refusedWith(status);
    if (status >= 500) throw new BackendError("unavailable", "unknown", `answered HTTP ${status}`);
    throw new BackendError("bad_answer", "unknown", `answered HTTP ${status} without a JSON-RPC response`);
  }
}

/** Servers may write an id in other words: `"a\\/b"` for `"a/b"`, `1` for `1.0`. */
function isSameId(a: string | undefined, b: string | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && JSON.parse(a) === JSON.parse(b));
}

// 404 is what the specification says; widely used servers answer 400 with a text about the session, and those that know no
// sessions (any more) with the codes of the stateless era, or miss its envelope.
//
// What is refused so is sent again, so it must be sure that it did not run: an error that may be a tool's own is not enough.
function isSessionRefusal(status: number, body: Buffer): boolean {
  if (status !== 400) return status === 404;
  const text = body.toString("utf8", 0, 1_000);
  const code = Number(/"code"\s*:\s*(-?\d+)/.exec(text)?.[1] ?? Number.NaN);
  if (Number.isNaN(code)) return isAboutSessions.test(text);
  if (code === errorCodes.invalidParams) return text.includes(metaKeys.protocolVersion) || /\b_meta\b/.test(text);
  const isTransports = code === errorCodes.invalidRequest || (code <= -32000 && code > -32020);
  return (
    code === statelessErrors.headerMismatch ||
    code === statelessErrors.unsupportedVersion ||
    (isTransports && isAboutSessions.test(text))
  );
}

const isAboutSessions =
  /\bsession[- ]?id\b|\b(no|invalid|unknown|missing|expired)( valid)? session\b|\bsession (was |is |has )?(not found|expired|terminated|gone|unknown|invalid)\b|\bnot initialized\b/i;

// An HTTP error may carry a JSON-RPC error; servers often leave the id out of it.
function readErrorBody(body: Buffer, awaited: Message): Message | undefined {
  try {
    const message = readMessage(body);
    if (!message.error || (message.id !== undefined && !isSameId(message.id, awaited.id))) return undefined;
    if (message.id !== undefined) return withId(message, awaited.id as string);
    const start = body.indexOf("{") + 1;
    const edit = message.idSpan
      ? { ...message.idSpan, text: awaited.id ?? "" }
      : { start, end: start, text: `"id":${awaited.id},` };
    return readMessage(splice(body, [edit]));
  } catch {
    return undefined;
  }
}

function asBadAnswer(error: unknown): BackendError {
  if (error instanceof BackendError) return error;
  return new BackendError("bad_answer", "unknown", `the answer is not MCP: ${reasonOf(error)}`, error);
}
