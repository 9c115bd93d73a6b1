// One POST to a server and the one answer that comes of it, JSON or event stream, on undici's dispatch: the cheapest client
// Node has.
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
export function post(pool: HttpPool, { path, headers, body, awaited, signal, ...options }: Post): Promise<Message | undefined> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const exchange = createExchange({ awaited, onMessage: options.onMessage, hasSession: options.hasSession });
    let isSent = false;
    let isOver = false; // the answer is known, whatever becomes of the rest
    let abort: (() => void) | undefined;
    let linger: NodeJS.Timeout | undefined;
    const settle = (): void => {
      if (abort) signal.removeEventListener("abort", abort);
      abort = undefined;
      clearTimeout(linger);
    };
    const canResume = () => !isOver && options.resume !== undefined && exchange.resumption() !== undefined;

    pool.dispatch(
      { path, method: "POST", headers, body },
      {
        onRequestStart(controller) {
          abort = () => {
            controller.abort(signal.reason as Error);
            reject(signal.reason);
          };
          if (signal.aborted) abort();
          else signal.addEventListener("abort", abort, { once: true });
        },
        onBodySent() {
          isSent = true;
        },
        onResponseStart(_controller, status, responseHeaders) {
          isSent = true;
          options.onStart?.(status, responseHeaders);
          exchange.start(status, String(responseHeaders["content-type"] ?? ""));
        },
        onResponseData(controller, chunk) {
          const outcome = exchange.data(chunk);
          const pressure = exchange.pressure();
          if (pressure !== undefined) {
            controller.pause();
            void pressure.then(() => controller.resume());
          }
          if (!outcome || linger) return;
          isOver = true;
          settle();
          // The answer ends the stream; a server that keeps it open all the same does not keep our connection.
          linger = setTimeout(() => controller.abort(new Error("the stream outlived its answer")), lingerMs);
          if (outcome instanceof Error) {
            reject(outcome);
            controller.abort(outcome);
          } else resolve(outcome);
        },
        onResponseEnd() {
          settle();
          if (canResume()) return resolve(options.resume?.(exchange));
          const outcome = exchange.end();
          if (outcome instanceof Error) reject(outcome);
          else resolve(outcome);
        },
        onResponseError(_controller, error) {
          settle();
          if (signal.aborted) reject(signal.reason);
          else if (canResume()) resolve(options.resume?.(exchange));
          else {
            const hasLeft = isSent && !(pool.isPlain && isWriteRefused(error));
            reject(new BackendError("unavailable", hasLeft ? "unknown" : "not_executed", reasonOf(error), error));
          }
        },
      },
    );
  });
}

/**
 * The system refused to take the request, because the server had reset a connection that we took to be idle. Head and body are
 * one write, so the server did not get the end of the message, and usually not its beginning. A connection that the server
 * closed in order takes the write: then nobody can tell whether it was read. With TLS a write is not the request's alone.
 */
function isWriteRefused(error: Error): boolean {
  return (error as NodeJS.ErrnoException).syscall === "write";
}
