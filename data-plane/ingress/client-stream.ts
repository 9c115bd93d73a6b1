// The stream a client opens with GET, for what a session hears outside of calls.
import type { ServerResponse } from "node:http";
import type { ClientStream } from "../session/session.ts";
import { eventStreamHeaders, toEvent } from "./answer.ts";

const keepAliveMs = 15_000;
const queueBytesMax = 256 * 1024;

/** Starts the stream. A reader that lets more than 256 KB pile up is cut off; it can come back. */
export function openClientStream(response: ServerResponse, onClose: () => void): ClientStream {
  response.writeHead(200, eventStreamHeaders);
  response.flushHeaders();
  const keepAlive = setInterval(() => write(Buffer.from(": keep-alive\n\n")), keepAliveMs);
  response.once("close", () => {
    clearInterval(keepAlive);
    onClose();
  });

  function write(bytes: Buffer): void {
    if (response.destroyed || response.writableEnded) return;
    if (response.writableLength > queueBytesMax) response.destroy();
    else response.write(bytes);
  }

  return { send: (message) => write(toEvent(message)), end: () => void response.end() };
}
