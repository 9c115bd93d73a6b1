// Reads an event stream that is opened with GET, straight from undici's parser: what a slow reader leaves unread waits in
// the kernel, not in buffers of ours.
import type { Pool } from "undici";
import { BackendError } from "./errors.ts";
import type { Refusals } from "./shown.ts";

export interface StreamReader {
  /** The server has taken the stream. */
  onOpen?(): void;
  /** A promise is how long the stream should not be read any further. `stop` ends it. */
  onChunk(chunk: Buffer, stop: () => void): Promise<void> | undefined;
}

/**
 * Resolves when the stream has ended: false when the server offers none. Rejects when it breaks, when the server believes that
 * an earlier one is still open, when it refuses the credential (BackendError "unauthorized"), or with the signal's reason.
 */
export function readStream(
  pool: Pool,
  request: {
    readonly path: string;
    /** Names and values in turn. */
    readonly headers: readonly string[];
    readonly signal: AbortSignal;
    readonly refusals?: Refusals;
  },
  reader: StreamReader,
): Promise<boolean> {
  const { path, headers, signal, refusals } = request;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    let isStream = false;
    let isStopped = false;
    let fault: Error | undefined;
    let abort: (() => void) | undefined;

    function settle(error?: Error): void {
      if (abort) signal.removeEventListener("abort", abort);
      if (signal.aborted) reject(signal.reason);
      else if (error && !isStopped) reject(error);
      else resolve(isStream);
    }

    pool.dispatch(
      { path, method: "GET", headers: [...headers, "accept", "text/event-stream"] },
      {
        onRequestStart(controller) {
          abort = () => controller.abort(signal.reason as Error);
          if (signal.aborted) abort();
          else signal.addEventListener("abort", abort, { once: true });
        },
        onResponseStart(_controller, status, responseHeaders) {
          refusals?.noteStart(status, responseHeaders);
          isStream = status === 200 && /^text\/event-stream\b/i.test(String(responseHeaders["content-type"]));
          if (isStream) reader.onOpen?.();
          if (status === 409) fault = new Error("another stream is open");
          if (status === 401) fault = new BackendError("unauthorized", "not_executed", "answered HTTP 401");
        },
        onResponseData(controller, chunk) {
          if (!isStream || isStopped) return;
          const stop = (): void => {
            isStopped = true;
            controller.abort(new Error("read enough"));
          };
          let wait: Promise<void> | undefined;
          try {
            wait = reader.onChunk(chunk, stop);
          } catch (error) {
            return controller.abort(error as Error);
          }
          if (wait === undefined) return;
          controller.pause();
          void wait.finally(() => controller.resume());
        },
        onResponseEnd: () => settle(fault),
        onResponseError: (_controller, error) => settle(error),
      },
    );
  });
}
