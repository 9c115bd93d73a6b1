// The one stream of a client of the HTTP+SSE transport: answers, notifications and questions all come on it.
import type { ServerResponse } from "node:http";
import type { ClientStream } from "../session/session.ts";
import type { Answer } from "./answer.ts";
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

const keepAliveMs = 15_000;

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
    if (response.writableLength > slowBytes) taken ??= untilTaken();
    return taken;
  }

  /** One promise for all who wait: a listener each would be many. */
  function untilTaken(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        taken = undefined;
        response.off("drain", done).off("close", done);
        resolve();
      };
      response.once("drain", done).once("close", done);
    });
  }

  function endWhenAnswered(): void {
    if (isEnding && expected === 0) response.end();
  }

  function settle(): void {
    expected--;
    endWhenAnswered();
  }

  response.writeHead(200, eventStreamHeaders);
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
    send: (message) => write(toEvent(message), "unasked"),
    expect() {
      expected++;
      return {
        notify: (message) => write(toEvent(message), "unasked"),
        respond(message) {
          void write(toEvent(message), "answers");
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
