// The one stream of a client of the HTTP+SSE transport: answers, notifications and questions all come on it.
import type { ServerResponse } from "node:http";
import { whole } from "../mcp/json-rpc.ts";
import type { ClientStream } from "../session/session.ts";
import type { Answer } from "./answer.ts";
import { comment, eventStreamHeaders, keepAliveMs, toEvent, untilRead } from "./sse.ts";
import { cutWhenStalled } from "./stall-watch.ts";

export interface SseStream extends ClientStream {
  /** The answer to one request; the stream does not end before it. */
  expect(): Answer;
  /** Ends the stream once what is expected has been answered. */
  end(): void;
  /** Whether it takes no more requests. */
  readonly isEnding: boolean;
}

export interface SseStreamOptions {
  /** Where the client posts to. */
  readonly endpoint: string;
  /** A client that takes nothing of what waits for it for so long is cut off, milliseconds. Default 30,000. */
  readonly stalledMs?: number;
}

// When this much waits for a client, whoever can wait is asked to.
const slowBytes = 128 * 1024;

// How much may wait at all, besides one message of any size; beyond it the client is cut off. Answers have more room: nobody
// asked them to wait, and a client that asked for several large ones at once reads, but not at once.
const queueBytesMax = { unasked: 256 * 1024, answers: 4 * 1024 * 1024 };

/** Opens it on a response. */
export function createSseStream(response: ServerResponse, { endpoint, stalledMs = 30_000 }: SseStreamOptions): SseStream {
  const closed = new AbortController();
  const queuedBytes = { unasked: 0, answers: 0 };
  let taken: Promise<void> | undefined;
  let expected = 0;
  let isEnding = false;

  function write(bytes: Buffer, kind: keyof typeof queuedBytes): Promise<void> | undefined {
    if (response.destroyed || response.writableEnded) return undefined;
    if (queuedBytes[kind] > queueBytesMax[kind]) return void response.destroy();
    queuedBytes[kind] += bytes.length;
    response.write(bytes, () => {
      queuedBytes[kind] -= bytes.length;
    });
    // One promise for all who wait: a listener each would be many.
    if (response.writableLength > slowBytes)
      taken ??= untilRead(response).then(() => {
        taken = undefined;
      });
    return taken;
  }

  function endWhenAnswered(): void {
    if (isEnding && expected === 0) response.end();
  }

  function settle(): void {
    expected--;
    endWhenAnswered();
  }

  response.writeHead(200, headers);
  cutWhenStalled(response);
  response.write(`event: endpoint\ndata: ${endpoint}\n\n`);
  const keepAlive = setInterval(() => write(comment, "unasked"), keepAliveMs);
  // The timer of the socket starts anew whenever anything moves, and watches what is left after the end too.
  response.setTimeout(stalledMs, () => {
    if (response.writableLength > 0) response.destroy();
  });
  response.once("close", () => {
    clearInterval(keepAlive);
    closed.abort();
  });

  return {
    closed: closed.signal,
    send: (message) => write(toEvent(message, typed), "unasked"),
    expect() {
      expected++;
      return {
        notify: (message) => write(toEvent(message, typed), "unasked"),
        respond(message) {
          void write(toEvent(whole(message), typed), "answers");
          settle();
        },
        close: settle,
      };
    },
    end() {
      isEnding = true;
      endWhenAnswered();
    },
    get isEnding() {
      return isEnding;
    },
  };
}

// Nothing comes on this connection after the stream, and a process that stops would wait for it.
const headers = { ...eventStreamHeaders, connection: "close" };

const typed = "event: message\n";
