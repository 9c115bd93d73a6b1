// A session over Streamable HTTP (MCP 2025-03-26 and later), on undici's dispatch: the cheapest client Node has.
import { setTimeout as sleep } from "node:timers/promises";
import { Pool } from "undici";
import type { Log } from "../../common/log.ts";
import { createEventParser } from "../mcp/event-stream.ts";
import { type Message, readMessage } from "../mcp/json-rpc.ts";
import type { ShowCredential } from "../outgoing-auth/strategy.ts";
import { BackendError, reasonOf } from "./errors.ts";
import { answerBytesMax, createExchange, type Exchange } from "./http-exchange.ts";
import { readStream } from "./http-stream.ts";
import {
  answerServerRequest,
  type ClientFacts,
  cancelled,
  type Hear,
  initializedNotification,
  initializeRequest,
  isClientRequest,
  type Leg,
  type ListenOptions,
  type RequestOptions,
  readServerFacts,
  type ServerFacts,
} from "./leg.ts";

const closeMs = 2_000;
const lingerMs = 1_000;
const retryMsMin = 250;
const resumptionsMax = 1_000;
const answersMax = 8;

/** Connections to one server, shared by all its sessions. */
export interface HttpEndpoint {
  openLeg(client: ClientFacts, signal: AbortSignal): Promise<Leg>;
  /** There is nothing of ours to start again. */
  restart(): Promise<void>;
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
    let answersOpen = 0;

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

        function receive(message: Message): Promise<void> | undefined {
          if (message.id !== undefined && !(onMessage && isClientRequest(message))) return answerIt(message);
          return onMessage?.(message);
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
            const pressure = exchange.pressure();
            if (pressure !== undefined) {
              controller.pause();
              void pressure.then(() => controller.resume());
            }
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
            if (exchange.resumption) return resolve(resume(exchange, signal));
            const outcome = exchange.end();
            if (outcome instanceof Error) reject(outcome);
            else resolve(outcome);
          },
          onResponseError: (_controller, error) => {
            settle();
            clearTimeout(linger);
            if (signal.aborted) reject(signal.reason);
            else if (exchange.resumption) resolve(resume(exchange, signal));
            else reject(new BackendError("unavailable", isSent ? "unknown" : "not_executed", reasonOf(error), error));
          },
        });
      });
    }

    /** Goes on with a call's stream that ended before the answer, as often as the server ends it (MCP 2025-11-25, resumability). */
    async function resume(exchange: Exchange, signal: AbortSignal): Promise<Message> {
      for (let round = 0; ; round++) {
        const from = exchange.resumption;
        if (!from || round === resumptionsMax)
          throw new BackendError("unavailable", "unknown", "the event stream ended before the answer");
        await sleep(Math.max(from.retryMs, retryMsMin), undefined, { signal }).catch(() => undefined);
        signal.throwIfAborted();
        try {
          let outcome: Message | BackendError | undefined;
          const request = { path, headers: { ...headers, "last-event-id": from.lastEventId }, signal };
          const isOffered = await readStream(streams, request, {
            onChunk(chunk, stop) {
              outcome = exchange.data(chunk);
              if (outcome) stop();
              return exchange.pressure();
            },
          });
          if (outcome instanceof Error) throw outcome;
          if (outcome) return outcome;
          if (!isOffered)
            throw new BackendError("unavailable", "unknown", "the event stream ended before the answer and can't be resumed");
        } catch (error) {
          if (signal.aborted) throw signal.reason;
          if (error instanceof BackendError) throw error;
          // Cut again; but a server that is not there any more has lost the call.
          if (isUnreachable(error)) throw new BackendError("unavailable", "unknown", reasonOf(error), error);
        }
      }
    }

    /** Answers pings on a stream outside of calls. */
    function answering(onMessage: Hear): Hear {
      return (message) => {
        if (message.method === undefined) return undefined; // an answer here is somebody else's stream, resumed
        return message.method === "ping" && message.id !== undefined ? answerIt(message) : onMessage(message);
      };
    }

    /** Answers a backend's request ourselves. One that floods us with them gets few answers, and no queue. */
    function answerIt(message: Message): undefined {
      if (answersOpen >= answersMax) return undefined;
      answersOpen++;
      notify(answerServerRequest(message), AbortSignal.timeout(closeMs))
        .catch((error) => options.log.debug({ reason: reasonOf(error) }, "could not answer a backend's request"))
        .finally(() => {
          answersOpen--;
        });
      return undefined;
    }

    async function notify(message: Buffer, signal: AbortSignal): Promise<void> {
      await post(message, undefined, { signal });
    }

    const facts = await handshake().catch(async (error: unknown) => {
      await endSession(); // the server may hold one already
      throw error;
    });

    async function handshake(): Promise<ServerFacts> {
      const initialize = initializeRequest(client);
      const answered = readServerFacts((await post(initialize.json, initialize, { signal })) as Message);
      headers["mcp-protocol-version"] = answered.protocolVersion;
      if (sessionId !== undefined) headers["mcp-session-id"] = sessionId;
      postHeaders = Object.entries(headers).flat();
      await notify(initializedNotification, signal);
      return answered;
    }

    async function endSession(): Promise<void> {
      if (sessionId !== undefined)
        await send("DELETE", { ...headers, "mcp-session-id": sessionId }, AbortSignal.timeout(closeMs)).catch(() => undefined);
    }

    return {
      facts,
      isShared: false,
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
      listen: (onMessage, options) => listen(headers, answering(onMessage), options),
      async close() {
        if (closedBy !== undefined) return;
        closedBy = "it was closed";
        await endSession();
      },
    };
  }

  /** Sends a request without a body and gives the status; the body is read away. */
  async function send(method: "DELETE", headers: Record<string, string>, signal: AbortSignal): Promise<number> {
    const response = await calls.request({ path, method, headers, signal });
    await response.body.dump();
    return response.statusCode;
  }

  function listen(headers: Record<string, string>, onMessage: Hear, { signal, onOpen }: ListenOptions): Promise<boolean> {
    const parser = createEventParser(answerBytesMax);
    return readStream(
      streams,
      { path, headers, signal },
      {
        ...(onOpen ? { onOpen } : {}),
        onChunk(chunk) {
          let wait: Promise<void> | undefined;
          for (const event of parser.push(chunk)) if (event.data.length > 0) wait = onMessage(readMessage(event.data)) ?? wait;
          return wait;
        },
      },
    );
  }

  return {
    openLeg,
    restart: async () => undefined,
    async close() {
      await Promise.all([calls.destroy(), streams.destroy()]);
    },
  };
}

function isUnreachable(error: unknown): boolean {
  return ["ECONNREFUSED", "EHOSTUNREACH", "ENOTFOUND", "UND_ERR_CONNECT_TIMEOUT", "UND_ERR_DESTROYED"].includes(
    (error as { code?: string }).code ?? "",
  );
}
