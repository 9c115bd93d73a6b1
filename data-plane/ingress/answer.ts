// How a POST is answered: as one JSON body, or, as soon as something must be said before the answer, as an event stream.
import type { ServerResponse } from "node:http";

const queueBytesMax = 256 * 1024;

export interface Answer {
  /** Sends a message before the answer. Dropped when the client does not take event streams or does not read. */
  notify(message: Buffer): void;
  /** Sends the answer; nothing after it. */
  respond(message: Buffer): void;
  /** Ends without an answer: the client cancelled. */
  close(): void;
}

/** `headers` go with whatever is sent. */
export function createAnswer(
  response: ServerResponse,
  options: { takesEvents: boolean; headers?: Record<string, string> },
): Answer {
  let isStreaming = false;

  function startStream(): void {
    if (isStreaming) return;
    isStreaming = true;
    response.writeHead(200, { ...options.headers, ...eventStreamHeaders });
  }

  return {
    notify(message) {
      if (!options.takesEvents || response.destroyed || response.writableEnded || response.writableLength > queueBytesMax) return;
      startStream();
      response.write(toEvent(message));
    },
    respond(message) {
      if (response.destroyed) return;
      if (isStreaming) response.end(toEvent(message));
      else
        response
          .writeHead(200, { ...options.headers, "content-type": "application/json", "content-length": message.length })
          .end(message);
    },
    close() {
      if (response.destroyed) return;
      if (options.takesEvents) {
        startStream();
        response.end();
      } else response.writeHead(202).end();
    },
  };
}

/** Proxies must not hold events back or keep them. */
export const eventStreamHeaders = { "content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no" };

const dataField = Buffer.from("data: ");
const eventEnd = Buffer.from("\n\n");

/** One event with a JSON text as data. A text with line breaks takes several data lines; they are white space in JSON. */
export function toEvent(message: Buffer): Buffer {
  if (!message.includes(0x0a) && !message.includes(0x0d)) return Buffer.concat([dataField, message, eventEnd]);
  const lines = message.toString().split(/\r\n|\n|\r/);
  return Buffer.from(`${lines.map((line) => `data: ${line}`).join("\n")}\n\n`);
}
