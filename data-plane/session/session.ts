// A client session of the era that opens with `initialize`; for callers of the other era, what stands for one.
import type { Identity } from "../incoming-auth/identity.ts";
import type { Era, SessionVersion } from "../mcp/versions.ts";
import type { HandedOut } from "./handed-out.ts";

/** What a session is. */
export interface Session {
  readonly id: string;
  /** Name of the virtual server it was opened on; its id is void on any other. */
  readonly virtualServer: string;
  readonly identity: Identity;
  readonly era: Era;
  /** The revision the client speaks; of callers without sessions, the one that servers of the session era are met with. */
  readonly protocolVersion: SessionVersion;
  /** JSON text of the client's clientInfo. */
  readonly clientInfo: string;
  /** JSON text of what the client declared it can do. */
  readonly capabilities: string;
  /** Level of `logging/setLevel`, as JSON text; undefined until the client set one. */
  logLevel: string | undefined;
  /** The client's open stream for messages outside of calls. */
  stream: ClientStream | undefined;
  /** Notifications by method that wait for a stream; one of a kind is enough. */
  readonly waiting: Map<string, Buffer>;
  /** Resources the client wants to hear of: its URI → who owns it. */
  readonly subscriptions: Map<string, { readonly backend: string; readonly original: string }>;
  /** Tasks the client wants to hear of: backend and its id → the id the client knows. */
  readonly tasks: Map<string, string>;
  /** URIs that backends gave this client in results. */
  readonly handedOut: HandedOut;
  /** Questions of backends that the client has not answered: backend and its id → the id the client knows. */
  readonly questions: Map<string, Question>;
  /** When it was last used, milliseconds of the monotonic clock. */
  usedAtMs: number;
  /** Calls in flight, by the raw text of their id, or by a symbol; a session with any is not reaped. */
  readonly calls: Map<string | symbol, { abort(reason: Error): void }>;
  readonly hasEnded: boolean;
  /** Runs once when the session ends, whyever; at once when it has ended. Gives what takes that back. */
  onEnd(close: () => void): () => void;
}

/** A question of a backend, on its way. */
export interface Question {
  /** The id the client knows, as JSON text. */
  readonly id: string;
  /** Called when the answer has come. */
  readonly onAnswer: (() => void) | undefined;
}

/** Where messages outside of calls go. */
export interface ClientStream {
  /** When the client is slow: a promise to wait for before the next. */
  send(message: Buffer): Promise<void> | undefined;
  end(): void;
  /** Fires when the client is gone or another stream took over. */
  readonly closed: AbortSignal;
}

/** Sends a notification on the session's stream, or keeps it until there is one. */
export function notifySession(session: Session, method: string, message: Buffer): void {
  if (session.stream) void session.stream.send(message);
  else session.waiting.set(method, message);
}

/** Makes `stream` the session's own: the newest wins, and gets what waited. */
export function attachStream(session: Session, stream: ClientStream): void {
  session.stream?.end();
  session.stream = stream;
  for (const message of session.waiting.values()) void stream.send(message);
  session.waiting.clear();
}
