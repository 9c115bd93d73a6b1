// How event streams to clients are written, whatever they carry. Source: WHATWG HTML, 9.2 Server-sent events.
import type { ServerResponse } from "node:http";

export const eventStreamHeaders = {
  "content-type": "text/event-stream",
  // Proxies must not hold events back or keep them.
  "cache-control": "no-store",
  "x-accel-buffering": "no",
} as const;

/** Says nothing, so that nobody on the way takes a silent connection for a dead one. */
export const comment = Buffer.from(": keep-alive\n\n");
export const keepAliveMs = 15_000;

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const space = 0x20;
const eventEnd = Buffer.from("\n\n");

/** A message as an event that begins with these lines. Line breaks would end its data; in JSON text spaces are as good. */
export function toEvent(message: Buffer, lines: string): Buffer {
  const head = Buffer.from(`${lines}data: `);
  const event = Buffer.concat([head, message, eventEnd]);
  if (!message.includes(lineFeed) && !message.includes(carriageReturn)) return event;
  for (let i = head.length; i < event.length - eventEnd.length; i++)
    if (event[i] === lineFeed || event[i] === carriageReturn) event[i] = space;
  return event;
}

/** Settles when a client has read what was sent, or is gone. */
export function untilRead(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off("drain", done).off("close", done);
      resolve();
    };
    response.once("drain", done).once("close", done);
  });
}
