// The answer to one request as an event stream: what comes before it, and it. It ends with its connection; in the stateless era
// nothing is resumed, and a client that was cut off asks again.
import type { ServerResponse } from "node:http";
import type { AnswerStream } from "./answer.ts";
import { comment, eventStreamHeaders, keepAliveMs, toEvent, untilRead } from "./sse.ts";
import { cutWhenStalled } from "./stall-watch.ts";

const queueBytesMax = 64 * 1024;

/** Attached to no client yet. */
export function createResponseStream(): AnswerStream {
  let carrier: ServerResponse | undefined;
  let reading: Promise<void> | undefined;

  function send(bytes: Buffer): Promise<void> | undefined {
    if (!carrier || carrier.destroyed || carrier.writableEnded) return undefined;
    carrier.write(bytes);
    if (carrier.writableLength > queueBytesMax)
      reading ??= untilRead(carrier).then(() => {
        reading = undefined;
      });
    return reading;
  }

  return {
    write: (message) => send(toEvent(message, "")),
    end: () => void carrier?.end(),
    attach(response) {
      if (response.destroyed) return;
      carrier = response;
      response.writeHead(200, eventStreamHeaders).flushHeaders();
      cutWhenStalled(response);
      const keepAlive = setInterval(() => send(comment), keepAliveMs);
      response.once("close", () => clearInterval(keepAlive));
    },
  };
}
