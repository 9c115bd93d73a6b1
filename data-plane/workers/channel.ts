// Asks and answers between two processes, over the channel that Node opens between them. Who asks gets an answer or an error within
// a deadline; nothing waits for a process that has gone.
import { reasonOf } from "../backends/errors.ts";

/** What one side answers: by name, with arguments and results that can be copied (structured clone). */
export type Answers<T> = { readonly [K in keyof T]: (...args: never[]) => unknown };

type Arguments<T, K extends keyof T> = T[K] extends (...args: infer A) => unknown ? A : never;
type Result<T, K extends keyof T> = T[K] extends (...args: never[]) => infer R ? Awaited<R> : never;

export interface Channel<Theirs, Ours> {
  /** What is answered from now on. */
  serve(ours: Ours): void;
  /** Rejects with ChannelError. */
  ask<K extends keyof Theirs & string>(name: K, ...args: Arguments<Theirs, K>): Promise<Result<Theirs, K>>;
  /** The same with a deadline of its own, milliseconds. */
  askWithin<K extends keyof Theirs & string>(ms: number, name: K, ...args: Arguments<Theirs, K>): Promise<Result<Theirs, K>>;
  /** Nobody is there any more: everything that waits is rejected. */
  close(): void;
}

/** A child process, or this one where it is a child. */
export interface Port {
  readonly connected: boolean;
  send?(message: unknown, handle: undefined, options: undefined, callback: (error: Error | null) => void): boolean;
  on(event: "message", listener: (message: unknown) => void): unknown;
}

/** No answer came. */
export class ChannelError extends Error {
  override name = "ChannelError";
  /** `failed`: the other side answered with an error. `late`: it did not answer in time. `gone`: it never will. */
  readonly kind: "failed" | "late" | "gone";
  /** Of the error that the other side answered with, when it has one, such as EADDRINUSE. */
  readonly code: string | undefined;

  constructor(kind: ChannelError["kind"], message: string, code?: string) {
    super(message);
    this.kind = kind;
    this.code = code;
  }
}

type Message =
  | { readonly type: "ask"; readonly id: number; readonly name: string; readonly args: readonly unknown[] }
  | { readonly type: "answer"; readonly id: number; readonly value: unknown }
  | { readonly type: "error"; readonly id: number; readonly reason: string; readonly code: string | undefined };

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: ChannelError) => void;
  readonly timer: NodeJS.Timeout;
}

const deadlineMs = 2_000;
const waitingMax = 10_000;

/** Asks that come before there is something to answer are answered with an error. */
export function openChannel<Theirs extends Answers<Theirs>, Ours extends Answers<Ours>>(port: Port): Channel<Theirs, Ours> {
  let answers: Partial<Ours> = {};
  const waiting = new Map<number, Waiting>();
  let asked = 0;

  port.on("message", (message) => {
    const read = message as Message;
    if (read.type === "ask") void answer(read);
    else settle(read);
  });

  function post(message: Message, onError: () => void = () => undefined): void {
    if (!port.connected) return onError();
    port.send?.(message, undefined, undefined, (error) => error && onError());
  }

  async function answer({ id, name, args }: Extract<Message, { type: "ask" }>): Promise<void> {
    try {
      const found = answers[name as keyof Ours];
      if (!found) throw new Error(`nobody answers "${name}" here`);
      const value = await found(...(args as never[]));
      post({ type: "answer", id, value });
    } catch (error) {
      post({ type: "error", id, reason: reasonOf(error), code: (error as { code?: string }).code });
    }
  }

  function settle(message: Exclude<Message, { type: "ask" }>): void {
    const one = take(message.id);
    if (message.type === "answer") one?.resolve(message.value as never);
    else one?.reject(new ChannelError("failed", message.reason, message.code));
  }

  function take(id: number): Waiting | undefined {
    const one = waiting.get(id);
    waiting.delete(id);
    clearTimeout(one?.timer);
    return one;
  }

  function askWithin<K extends keyof Theirs & string>(
    ms: number,
    name: K,
    ...args: Arguments<Theirs, K>
  ): Promise<Result<Theirs, K>> {
    return new Promise((resolve, reject) => {
      if (waiting.size >= waitingMax) return reject(new ChannelError("late", "too much waits for the other process"));
      const id = ++asked;
      const timer = setTimeout(
        () => take(id)?.reject(new ChannelError("late", `the other process did not answer "${name}"`)),
        ms,
      );
      waiting.set(id, { resolve, reject, timer });
      post({ type: "ask", id, name, args }, () => take(id)?.reject(gone()));
    });
  }

  return {
    serve(ours) {
      answers = ours;
    },
    ask: (name, ...args) => askWithin(deadlineMs, name, ...args),
    askWithin,
    close() {
      for (const id of [...waiting.keys()]) take(id)?.reject(gone());
    },
  };
}

const gone = (): ChannelError => new ChannelError("gone", "the other process has gone");
