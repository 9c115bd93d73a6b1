// A session over Streamable HTTP (MCP 2025-03-26 and later), on undici's dispatch: the cheapest client Node has.
import { Pool } from "undici";
import type { Log } from "../../common/log.ts";
import { createEventParser, type EventParser } from "../mcp/event-stream.ts";
import { type Message, readMessage } from "../mcp/json-rpc.ts";
import { splice } from "../mcp/scan.ts";
import type { ShowCredential } from "../outgoing-auth/strategy.ts";
import { BackendError, reasonOf } from "./errors.ts";
import {
  answerServerRequest,
  type ClientFacts,
  cancelled,
  initializedNotification,
  initializeRequest,
  type Leg,
  type RequestOptions,
  readServerFacts,
} from "./leg.ts";

const answerBytesMax = 10 * 1024 * 1024;
const closeMs = 2_000;
const lingerMs = 1_000;

/** Connections to one server, shared by all its sessions. */
export interface HttpEndpoint {
  openLeg(client: ClientFacts, signal: AbortSignal): Promise<Leg>;
  /** Drops every connection. */
  close(): Promise<void>;
}

/** Prepares connections; nothing is opened before the first leg. */
export function createHttpEndpoint(options: { url: string; credential: ShowCredential; log: Log }): HttpEndpoint {
  const { origin, pathname, search } = new URL(options.url);
  // Timeouts of calls are ours (one deadline per call), so undici's are off; connecting has its own, short one.
  const settings = { connect: { timeout: 2_000 }, headersTimeout: 0, bodyTimeout: 0, pipelining: 1, keepAliveTimeout: 4_000 };
  const calls = new Pool(origin, { ...settings, connections: 128 });
  const streams = new Pool(origin, settings); // a stream holds its connection for hours: it must not starve calls
  const path = pathname + search;

  async function openLeg(client: ClientFacts, signal: AbortSignal): Promise<Leg> {
    const headers: Record<string, string> = {
      accept: "application/json, text/event-stream",
      "content-type": "application/json",
      ...(await options.credential()),
    };
    let postHeaders = Object.entries(headers).flat(); // as undici writes them, made once
    let closedBy: string | undefined;
    let sessionId: string | undefined;

    /** Sends one POST; resolves with the response to `awaited`, or with nothing when none is awaited. */
    function post(
      body: Buffer,
      awaited: Message | undefined,
      { signal, onMessage }: RequestOptions,
    ): Promise<Message | undefined> {
      return new Promise((resolve, reject) => {
        let isSent = false;
        const exchange = createExchange({ awaited, onMessage: receive, hasSession: sessionId !== undefined });
        const request = { path, method: "POST", headers: postHeaders, body } as const;

        function receive(message: Message): void {
          if (message.method !== undefined && message.id !== undefined) {
            notify(answerServerRequest(message), signal).catch((error) =>
              options.log.debug({ reason: reasonOf(error) }, "could not answer a backend's request"),
            );
          } else onMessage?.(message);
        }
        if (signal.aborted) return reject(signal.reason);
        let abort: (() => void) | undefined;
        let linger: NodeJS.Timeout | undefined;
        const settle = (): void => {
          if (abort) signal.removeEventListener("abort", abort);
          abort = undefined;
        };
        calls.dispatch(request, {
          onRequestStart: (controller) => {
            abort = () => {
              controller.abort(signal.reason as Error);
              reject(signal.reason);
            };
            if (signal.aborted) abort();
            else signal.addEventListener("abort", abort, { once: true });
          },
          onBodySent: () => {
            isSent = true;
          },
          onResponseStart: (_controller, status, responseHeaders) => {
            isSent = true;
            const minted = responseHeaders["mcp-session-id"];
            if (awaited?.method === "initialize" && typeof minted === "string") sessionId = minted;
            exchange.start(status, String(responseHeaders["content-type"] ?? ""));
          },
          onResponseData: (controller, chunk) => {
            const outcome = exchange.data(chunk);
            if (!outcome || linger) return;
            settle();
            // The answer ends the stream; a server that keeps it open all the same does not keep our connection.
            linger = setTimeout(() => controller.abort(new Error("the stream outlived its answer")), lingerMs);
            if (outcome instanceof Error) {
              reject(outcome);
              controller.abort(outcome);
            } else resolve(outcome);
          },
          onResponseEnd: () => {
            settle();
            clearTimeout(linger);
            const outcome = exchange.end();
            if (outcome instanceof Error) reject(outcome);
            else resolve(outcome);
          },
          onResponseError: (_controller, error) => {
            settle();
            clearTimeout(linger);
            reject(
              signal.aborted
                ? signal.reason
                : new BackendError("unavailable", isSent ? "unknown" : "not_executed", reasonOf(error), error),
            );
          },
        });
      });
    }

    async function notify(message: Buffer, signal: AbortSignal): Promise<void> {
      await post(message, undefined, { signal });
    }

    const initialize = initializeRequest(client);
    const facts = readServerFacts((await post(initialize.json, initialize, { signal })) as Message);
    headers["mcp-protocol-version"] = facts.protocolVersion;
    if (sessionId !== undefined) headers["mcp-session-id"] = sessionId;
    postHeaders = Object.entries(headers).flat();
    await notify(initializedNotification, signal);

    return {
      facts,
      get closedBy() {
        return closedBy;
      },
      async request(message, requestOptions) {
        try {
          return (await post(message.json, message, requestOptions)) as Message;
        } catch (error) {
          if (error instanceof BackendError && error.code === "session_gone") closedBy = error.message;
          // A closed connection is no cancellation in this era (MCP 2025-11-25, transports): it has to be said.
          if (requestOptions.signal.aborted) notify(cancelled(message), AbortSignal.timeout(closeMs)).catch(() => undefined);
          throw error;
        }
      },
      notify,
      listen: (onMessage, signal) => listen(headers, onMessage, signal),
      async close() {
        if (closedBy !== undefined) return;
        closedBy = "it was closed";
        if (sessionId !== undefined) await send("DELETE", headers, AbortSignal.timeout(closeMs)).catch(() => undefined);
      },
    };
  }

  /** Sends a request without a body and gives the status; the body is read away. */
  async function send(method: "DELETE", headers: Record<string, string>, signal: AbortSignal): Promise<number> {
    const response = await calls.request({ path, method, headers, signal });
    await response.body.dump();
    return response.statusCode;
  }

  async function listen(
    headers: Record<string, string>,
    onMessage: (message: Message) => void,
    signal: AbortSignal,
  ): Promise<boolean> {
    const response = await streams.request({ path, method: "GET", headers: { ...headers, accept: "text/event-stream" }, signal });
    if (response.statusCode !== 200 || !String(response.headers["content-type"]).startsWith("text/event-stream")) {
      await response.body.dump();
      return false;
    }
    const parser = createEventParser(answerBytesMax);
    for await (const chunk of response.body) {
      for (const event of parser.push(chunk as Buffer)) if (event.data.length > 0) onMessage(readMessage(event.data));
    }
    return true;
  }

  return {
    openLeg,
    async close() {
      await Promise.all([calls.destroy(), streams.destroy()]);
    },
  };
}

interface Exchange {
  start(status: number, contentType: string): void;
  /** The awaited response or why there can be none, once it is known before the end. */
  data(chunk: Buffer): Message | BackendError | undefined;
  end(): Message | BackendError | undefined;
}

/** Makes one answer of the bytes of one HTTP response. */
function createExchange(options: {
  awaited: Message | undefined;
  onMessage: (message: Message) => void;
  hasSession: boolean;
}): Exchange {
  const { awaited } = options;
  const chunks: Buffer[] = [];
  let events: EventParser | undefined; // for an answer that is an event stream
  let bytes = 0;
  let status = 0;
  let answer: Message | undefined;

  function read(json: Buffer): void {
    const message = readMessage(json);
    if (message.method !== undefined) options.onMessage(message);
    else if (awaited && message.id === awaited.id) answer ??= message;
    else throw new BackendError("bad_answer", "unknown", `answered with id ${message.id}, asked with ${awaited?.id}`);
  }

  function take(chunk: Buffer): Message | BackendError | undefined {
    if (events) {
      for (const event of events.push(chunk)) if (event.data.length > 0 && !answer) read(event.data);
      return answer;
    }
    bytes += chunk.length;
    if (bytes > answerBytesMax)
      throw new BackendError("bad_answer", "unknown", `the answer is larger than ${answerBytesMax} bytes`);
    chunks.push(chunk);
    return undefined;
  }

  function finish(): Message | undefined {
    if (events) {
      if (!answer) throw new BackendError("bad_answer", "unknown", "the event stream ended before the answer");
      return answer;
    }
    if (status === 401 || status === 403) throw new BackendError("unauthorized", "not_executed", `answered HTTP ${status}`);
    const body = Buffer.concat(chunks);
    if (options.hasSession && isSessionRefusal(status, body))
      throw new BackendError("session_gone", "not_executed", "the session is gone");
    if (!awaited && status < 300) return undefined;
    if (bytes > 0 && awaited) {
      if (status < 300) read(body);
      else answer = readErrorBody(body, awaited);
    }
    if (answer) return answer;
    if (status >= 500) throw new BackendError("unavailable", "unknown", `answered HTTP ${status}`);
    throw new BackendError("bad_answer", "unknown", `answered HTTP ${status} without a JSON-RPC response`);
  }

  return {
    start(responseStatus, contentType) {
      status = responseStatus;
      if (status < 300 && /^text\/event-stream\b/i.test(contentType)) events = createEventParser(answerBytesMax);
    },
    data: (chunk) => guarded(() => take(chunk)),
    end: () => guarded(finish),
  };
}

// 404 is what the specification says; widely used servers answer 400 with a text about the session.
function isSessionRefusal(status: number, body: Buffer): boolean {
  return status === 404 || (status === 400 && /\bsession\b/i.test(body.toString("utf8", 0, 1_000)));
}

// An HTTP error may carry a JSON-RPC error; servers often leave the id out of it.
function readErrorBody(body: Buffer, awaited: Message): Message | undefined {
  try {
    const message = readMessage(body);
    if (!message.error || (message.id !== undefined && message.id !== awaited.id)) return undefined;
    if (message.id !== undefined) return message;
    const start = body.indexOf("{") + 1;
    const edit = message.idSpan
      ? { ...message.idSpan, text: awaited.id ?? "" }
      : { start, end: start, text: `"id":${awaited.id},` };
    return readMessage(splice(body, [edit]));
  } catch {
    return undefined;
  }
}

function guarded<T>(read: () => T): T | BackendError {
  try {
    return read();
  } catch (error) {
    return error instanceof BackendError
      ? error
      : new BackendError("bad_answer", "unknown", `the answer is not MCP: ${reasonOf(error)}`, error);
  }
}
