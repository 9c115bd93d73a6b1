// One event stream to a client. It outlives the connection that carries it: a client that was cut off comes back with the
// id of the last event it saw, and gets what came after. Source: MCP 2025-11-25, transports, resumability and redelivery.
import type { ServerResponse } from "node:http";
import type { Holder } from "./byte-budget.ts";
import { comment, eventStreamHeaders, keepAliveMs, toEvent, untilRead } from "./sse.ts";
import { cutWhenStalled } from "./stall-watch.ts";

export interface EventLog extends Holder {
  /** Part of every event id. */
  readonly name: string;
  /** Sends a message, now or when the client is back. When the client is slow: a promise to wait for before the next. */
  write(message: Buffer): Promise<void> | undefined;
  /** Nothing comes after; what is kept stays for a client that missed something. */
  end(): void;
  /** Carries the stream on this response from now on, beginning after the event `after`. */
  attach(response: ServerResponse, after?: number): void;
  readonly isAttached: boolean;
  /** When it ended, milliseconds of the monotonic clock; undefined while it goes on. */
  readonly endedAtMs: number | undefined;
  /** Drops what is kept, which nobody can come back for then. What is being sent is not affected. */
  forget(): void;
}

export interface EventLogOptions {
  readonly name: string;
  /** An event with an id and no data comes first, so that the stream can be resumed from the start. */
  readonly hasPriming: boolean;
  /** Hears that no client is attached any more. */
  readonly onDetached?: () => void;
  /** Hears that `keptBytes` is another. */
  readonly onKept?: () => void;
  readonly onEnded?: () => void;
}

const keptBytesMax = 128 * 1024;
// What is larger, and has been sent to its end, is not worth its memory: hardly anybody comes back for what they have.
const sentBytesMax = 256 * 1024;
// An event's object, and what a small one pins of a buffer it shares with others.
const eventOverheadBytes = 128;
const queueBytesMax = 64 * 1024;
const retryMs = 1_000;

/** Empty, and attached to no client yet. */
export function createEventLog(options: EventLogOptions): EventLog {
  return new OneLog(options);
}

// A class, because a call may have one of its own, and a getter in an object literal would outlive it.
class OneLog implements EventLog {
  readonly name: string;
  readonly #options: EventLogOptions;
  readonly #events: { readonly number: number; readonly bytes: Buffer }[] = [];
  #lastNumber = 0;
  #carrier: ServerResponse | undefined;
  #reading: Promise<void> | undefined;
  keptBytes = 0;
  endedAtMs: number | undefined;

  constructor(options: EventLogOptions) {
    this.name = options.name;
    this.#options = options;
  }

  get isAttached(): boolean {
    return this.#carrier !== undefined;
  }

  write(message: Buffer): Promise<void> | undefined {
    if (this.endedAtMs !== undefined) return undefined;
    this.#lastNumber++;
    const bytes = toEvent(message, `id: ${this.name}-${this.#lastNumber}\n`);
    this.#keep(bytes);
    return this.#carry(bytes);
  }

  end(): void {
    if (this.endedAtMs !== undefined) return;
    this.endedAtMs = performance.now();
    this.#carrier?.end();
    this.#options.onEnded?.();
  }

  forget(): void {
    if (this.keptBytes === 0) return;
    this.#events.length = 0;
    this.keptBytes = 0;
    this.#options.onKept?.();
  }

  attach(response: ServerResponse, after?: number): void {
    this.#carrier?.end();
    this.#carrier = response;
    this.#reading = undefined;
    response.writeHead(200, eventStreamHeaders);
    cutWhenStalled(response);
    if (after === undefined && this.#options.hasPriming) response.write(`id: ${this.name}-0\nretry: ${retryMs}\ndata:\n\n`);
    else response.flushHeaders();
    for (const { number, bytes } of this.#events) if (number > (after ?? 0)) response.write(bytes);
    response.once("finish", () => {
      if (this.#carrier === response && this.endedAtMs !== undefined && this.keptBytes > sentBytesMax) this.forget();
    });
    if (this.endedAtMs !== undefined) return void response.end();
    const keepAlive = setInterval(() => this.#carry(comment), keepAliveMs);
    response.once("close", () => {
      clearInterval(keepAlive);
      if (this.#carrier !== response) return;
      this.#carrier = undefined;
      this.#options.onDetached?.();
    });
  }

  #keep(bytes: Buffer): void {
    this.#events.push({ number: this.#lastNumber, bytes });
    this.keptBytes += bytes.length + eventOverheadBytes;
    // The newest is kept whatever its size: it may be the answer.
    while (this.keptBytes > keptBytesMax && this.#events.length > 1)
      this.keptBytes -= (this.#events.shift() as { bytes: Buffer }).bytes.length + eventOverheadBytes;
    this.#options.onKept?.();
  }

  #carry(bytes: Buffer): Promise<void> | undefined {
    const carrier = this.#carrier;
    if (!carrier || carrier.destroyed) return undefined;
    carrier.write(bytes);
    if (carrier.writableLength <= queueBytesMax) return undefined;
    // All writers wait for the same; a client that stops reading is cut off, and the log has what it missed.
    if (!this.#reading) {
      const settled = untilRead(carrier).then(() => {
        if (this.#reading === settled) this.#reading = undefined;
      });
      this.#reading = settled;
    }
    return this.#reading;
  }
}

/** Which log and which event an id names; undefined when it is none of ours. */
export function readEventId(id: string): { name: string; number: number } | undefined {
  const [, name, number] = /^([a-z0-9]{1,32})-(\d{1,15})$/.exec(id) ?? [];
  return name !== undefined ? { name, number: Number(number) } : undefined;
}
