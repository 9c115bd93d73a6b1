// How a POST is answered: as one JSON body, or, as soon as something must be said before the answer, as an event stream.
import type { ServerResponse } from "node:http";
import type { EventLog } from "./event-log.ts";
import { cutWhenStalled } from "./stall-watch.ts";

export interface Answer {
  /** Sends a message before the answer. When the client is slow: a promise to wait for before the next. */
  notify(message: Buffer): Promise<void> | undefined;
  /** Sends the answer; nothing after it. */
  respond(message: Buffer): void;
  /** Ends without an answer: the client cancelled. */
  close(): void;
}

export interface AnswerOptions {
  /** Opens the event stream when one is needed. */
  readonly openLog: () => EventLog;
  /** The client would rather have a stream: it gets one at once. */
  readonly prefersStream: boolean;
  /** After so long without an answer there is a stream in any case, which keeps the connection alive and can be resumed. */
  readonly silentMs: number;
}

/** The answer to one request. */
export function createAnswer(response: ServerResponse, options: AnswerOptions): Answer {
  let log: EventLog | undefined;
  const silence = setTimeout(startStream, options.silentMs);

  function startStream(): EventLog {
    clearTimeout(silence);
    if (!log) {
      log = options.openLog();
      if (!response.destroyed) log.attach(response);
    }
    return log;
  }

  if (options.prefersStream) startStream();

  return {
    notify: (message) => startStream().write(message),
    respond(message) {
      clearTimeout(silence);
      if (log) {
        void log.write(message);
        log.end();
      } else respondJson(response, message);
    },
    close() {
      startStream().end();
    },
  };
}

/** Answers with one JSON body. `watch` sees to clients that do not read it. */
export function respondJson(
  response: ServerResponse,
  message: Buffer,
  headers: Record<string, string> = {},
  watch = cutWhenStalled,
): void {
  if (response.destroyed) return;
  response.writeHead(200, { ...headers, "content-type": "application/json", "content-length": message.length }).end(message);
  if (response.writableLength > 0) watch(response); // nearly always the kernel has taken all of it by now
}
