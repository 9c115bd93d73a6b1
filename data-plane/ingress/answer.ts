// How a POST is answered: as one JSON body, or, as soon as something must be said before the answer, as an event stream.
import type { ServerResponse } from "node:http";
import { lengthOf, type Written, whole } from "../mcp/json-rpc.ts";
import { cutWhenStalled } from "./stall-watch.ts";

export interface Answer {
  /** Sends a message before the answer. When the client is slow: a promise to wait for before the next. */
  notify(message: Buffer): Promise<void> | undefined;
  /** Sends the answer; nothing after it. */
  respond(message: Written): void;
  /** Ends without an answer: the client cancelled. */
  close(): void;
}

/** What carries messages to a client one by one. */
export interface AnswerStream {
  /** Sends a message, now or when the client is back. When the client is slow: a promise to wait for before the next. */
  write(message: Buffer): Promise<void> | undefined;
  /** Nothing comes after. */
  end(): void;
  /** Carries the stream on this response from now on. */
  attach(response: ServerResponse): void;
}

export interface AnswerOptions {
  /** Opens the event stream when one is needed. */
  readonly openStream: () => AnswerStream;
  /** The client would rather have a stream: it gets one at once. */
  readonly prefersStream: boolean;
  /** After so long without an answer there is a stream in any case, which keeps the connection alive and can be resumed. */
  readonly silentMs: number;
  /** The HTTP status of an answer that is one JSON body. Default 200. */
  readonly statusOf?: (message: Written) => number;
}

/** The answer to one request. */
export function createAnswer(response: ServerResponse, options: AnswerOptions): Answer {
  let stream: AnswerStream | undefined;
  const silence = setTimeout(startStream, options.silentMs);

  function startStream(): AnswerStream {
    clearTimeout(silence);
    if (!stream) {
      stream = options.openStream();
      if (!response.destroyed) stream.attach(response);
    }
    return stream;
  }

  if (options.prefersStream) startStream();

  return {
    notify: (message) => startStream().write(message),
    respond(message) {
      clearTimeout(silence);
      if (stream) {
        void stream.write(whole(message));
        stream.end();
      } else respondJson(response, message, { status: options.statusOf?.(message) ?? 200 });
    },
    close() {
      startStream().end();
    },
  };
}

interface JsonOptions {
  /** Default 200. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sees to clients that do not read it. */
  readonly watch?: (response: ServerResponse) => void;
}

/** Answers with one JSON body. */
export function respondJson(response: ServerResponse, message: Written, options: JsonOptions = {}): void {
  const { status = 200, headers = {}, watch = cutWhenStalled } = options;
  if (response.destroyed) return;
  response.writeHead(status, { ...headers, "content-type": "application/json", "content-length": lengthOf(message) });
  if (Buffer.isBuffer(message)) response.end(message);
  else {
    for (const piece of message as readonly Buffer[]) response.write(piece); // Node puts them into one system call
    response.end();
  }
  if (response.writableLength > 0) watch(response); // nearly always the kernel has taken all of it by now
}
