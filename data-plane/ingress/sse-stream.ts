// The one stream of a client of the HTTP+SSE transport: answers, notifications and questions all come on it.
import type { ServerResponse } from "node:http";
import type { ClientStream } from "../session/session.ts";
import type { Answer } from "./answer.ts";

export interface SseStream extends ClientStream {
  /** The answer to one request; the stream does not end before it. */
  expect(): Answer;
  /** Ends the stream once what is expected has been answered. */
  end(): void;
  /** Whether it takes no more requests. */
  readonly isEnding: boolean;
}

const keepAliveMs = 15_000;
const flushMs = 10_000;

// How much may wait for a client that does not read, besides one message of any size. Answers have more room: a client that
// asked for several large ones at once reads, but not at once.
const queueBytesMax = { unasked: 256 * 1024, answers: 4 * 1024 * 1024 };

/** Opens it on a response; `endpoint` is where the client posts to. A client that does not read is cut off. */
export function createSseStream(response: ServerResponse, endpoint: string): SseStream {
  const closed = new AbortController();
  const queuedBytes = { unasked: 0, answers: 0 };
  let expected = 0;
  let isEnding = false;

  function write(bytes: Buffer, kind: keyof typeof queuedBytes): void {
    if (response.destroyed || response.writableEnded) return;
    if (queuedBytes[kind] > queueBytesMax[kind]) return void response.destroy();
    queuedBytes[kind] += bytes.length;
    response.write(bytes, () => {
      queuedBytes[kind] -= bytes.length;
    });
  }

  function endWhenAnswered(): void {
    if (!isEnding || expected > 0 || response.writableEnded) return;
    response.end();
    setTimeout(() => response.destroy(), flushMs).unref(); // what is queued may never be read
  }

  function settle(): void {
    expected--;
    endWhenAnswered();
  }

  response.writeHead(200, eventStreamHeaders);
  response.write(`event: endpoint\ndata: ${endpoint}\n\n`);
  const keepAlive = setInterval(() => write(comment, "unasked"), keepAliveMs);
  response.once("close", () => {
    clearInterval(keepAlive);
    closed.abort();
  });

  return {
    closed: closed.signal,
    send: (message) => write(toEvent(message), "unasked"),
    expect() {
      expected++;
      return {
        notify: (message) => write(toEvent(message), "unasked"),
        respond(message) {
          write(toEvent(message), "answers");
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

const comment = Buffer.from(": keep-alive\n\n");

const eventStreamHeaders = {
  "content-type": "text/event-stream",
  // Proxies must not hold events back or keep them.
  "cache-control": "no-store",
  "x-accel-buffering": "no",
  // Nothing comes on this connection after the stream, and a process that stops would wait for it.
  connection: "close",
};

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const space = 0x20;

/** A message as an event. Line breaks would end its data; in JSON text they are white space, and spaces are as good. */
function toEvent(message: Buffer): Buffer {
  const event = Buffer.concat([eventStart, message, eventEnd]);
  if (!message.includes(lineFeed) && !message.includes(carriageReturn)) return event;
  for (let i = eventStart.length; i < event.length - eventEnd.length; i++)
    if (event[i] === lineFeed || event[i] === carriageReturn) event[i] = space;
  return event;
}
const eventStart = Buffer.from("event: message\ndata: ");
const eventEnd = Buffer.from("\n\n");
