// One POST to a server and the one answer that comes of it, JSON or event stream, on undici's dispatch: the cheapest client
// Node has.
import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher } from "undici";
import type { Message } from "../mcp/json-rpc.ts";
import { BackendError, reasonOf } from "./errors.ts";
import { createExchange, type Exchange } from "./http-exchange.ts";
import type { HttpPool } from "./http-target.ts";
import type { Hear } from "./leg.ts";
import type { CallSignal } from "./limit.ts";

export interface Post {
  readonly path: string;
  /** Names and values in turn, as undici writes them. */
  readonly headers: string[];
  readonly body: Buffer;
  /** The request whose answer is waited for; undefined for notifications and answers. */
  readonly awaited: Message | undefined;
  readonly signal: CallSignal;
  /** Hears what comes before the answer. */
  readonly onMessage: Hear;
  /** Whether a 404 means that the session is gone. */
  readonly hasSession: boolean;
  /** Hears how the response begins. */
  readonly onStart?: (status: number, headers: Readonly<Record<string, string | string[] | undefined>>) => void;
  /** Goes on with a stream that ended before the answer. Without it such a call is lost. */
  readonly resume?: (exchange: Exchange) => Promise<Message>;
}

const lingerMs = 1_000;

/** Resolves with the answer, or with nothing when none is awaited; rejects with BackendError or the signal's reason. */
export function post(pool: HttpPool, sent: Post): Promise<Message | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<Message | undefined>();
  const { signal, path, headers, body } = sent;
  if (signal.aborted) reject(signal.reason);
  else pool.dispatch({ path, method: "POST", headers, body }, new Posting(sent, pool.isPlain, resolve, reject));
  return promise;
}

/** What undici tells of one POST; a class, as in `http-exchange.ts`. */
class Posting implements Dispatcher.DispatchHandler {
  readonly #sent: Post;
  readonly #isPlain: boolean;
  readonly #resolve: (answer: Message | undefined | Promise<Message>) => void;
  readonly #reject: (reason: unknown) => void;
  readonly #exchange: Exchange;
  #isSent = false;
  #isOver = false; // the answer is known, whatever becomes of the rest
  #abort: (() => void) | undefined;
  #linger: NodeJS.Timeout | undefined;

  constructor(
    sent: Post,
    isPlain: boolean,
    resolve: (answer: Message | undefined | Promise<Message>) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#sent = sent;
    this.#isPlain = isPlain;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#exchange = createExchange(sent);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    const { signal } = this.#sent;
    const abort = (): void => {
      controller.abort(signal.reason as Error);
      this.#reject(signal.reason);
    };
    if (signal.aborted) return abort();
    this.#abort = abort;
    signal.addEventListener("abort", abort, { once: true });
  }

  onBodySent(): void {
    this.#isSent = true;
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    this.#isSent = true;
    this.#sent.onStart?.(status, headers);
    this.#exchange.start(status, String(headers["content-type"] ?? ""));
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    const outcome = this.#exchange.data(chunk);
    const pressure = this.#exchange.pressure();
    if (pressure !== undefined) {
      controller.pause();
      void pressure.then(() => controller.resume());
    }
    if (!outcome || this.#isOver) return;
    this.#isOver = true;
    this.#settle();
    // The answer ends the stream; a server that keeps it open all the same does not keep our connection.
    this.#linger = setTimeout(() => controller.abort(new Error("the stream outlived its answer")), lingerMs);
    if (outcome instanceof Error) {
      this.#reject(outcome);
      controller.abort(outcome);
    } else this.#resolve(outcome);
  }

  onResponseEnd(): void {
    this.#settle();
    if (this.#isOver) return;
    const resumed = this.#resumed();
    if (resumed !== undefined) return this.#resolve(resumed);
    const outcome = this.#exchange.end();
    if (outcome instanceof Error) this.#reject(outcome);
    else this.#resolve(outcome);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#settle();
    if (this.#isOver) return;
    const { signal } = this.#sent;
    if (signal.aborted) return this.#reject(signal.reason);
    const resumed = this.#resumed();
    if (resumed !== undefined) return this.#resolve(resumed);
    const hasLeft = this.#isSent && !(this.#isPlain && isWriteRefused(error));
    this.#reject(new BackendError("unavailable", hasLeft ? "unknown" : "not_executed", reasonOf(error), error));
  }

  #resumed(): Promise<Message> | undefined {
    return this.#exchange.resumption() && this.#sent.resume?.(this.#exchange);
  }

  #settle(): void {
    if (this.#abort) this.#sent.signal.removeEventListener("abort", this.#abort);
    this.#abort = undefined;
    clearTimeout(this.#linger);
  }
}

/**
 * The system refused to take the request, because the server had reset a connection that we took to be idle. Head and body are
 * one write, so the server did not get the end of the message, and usually not its beginning. A connection that the server
 * closed in order takes the write: then nobody can tell whether it was read. With TLS a write is not the request's alone.
 */
function isWriteRefused(error: Error): boolean {
  return (error as NodeJS.ErrnoException).syscall === "write";
}
