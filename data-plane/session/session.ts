// A client session of the era that opens with `initialize`; for callers of the other era, what stands for one.
import type { Caller } from "../incoming-auth/caller.ts";
import type { Identity } from "../incoming-auth/identity.ts";
import type { Era, SessionVersion } from "../mcp/versions.ts";
import type { SessionState } from "./record.ts";
import { endWithToken } from "./stream-expiry.ts";

/** What a session is. */
export interface Session {
  readonly id: string;
  /** What it is called in logs, lists and stores: the id can't be found from it. */
  readonly key: string;
  /** Name of the virtual server it was opened on; its id is void on any other. */
  readonly virtualServer: string;
  readonly identity: Identity;
  /** Whoever used it last here, with what they showed: the newest credential that stands for the session. */
  caller: Caller | undefined;
  readonly era: Era;
  /** The revision the client speaks; of callers without sessions, the one that servers of the session era are met with. */
  readonly protocolVersion: SessionVersion;
  /** JSON text of the client's clientInfo. */
  readonly clientInfo: string;
  /** JSON text of what the client declared it can do. */
  readonly capabilities: string;
  /** What every replica knows of it, as last seen here. */
  readonly state: SessionState;
  /**
   * Changes that, for every replica. The edit may run more than once, and gives the state it got when nothing is to be changed.
   * Throws StoreUnavailableError, or SessionEndedError when there is no such session any more.
   */
  change(edit: (state: SessionState) => SessionState): Promise<void>;
  /** Looks what other replicas made of it. Throws StoreUnavailableError. */
  refresh(): Promise<void>;
  /** The client's open stream for messages outside of calls. */
  stream: ClientStream | undefined;
  /** Notifications by method that wait for a stream; one of a kind is enough. */
  readonly waiting: Map<string, Buffer>;
  /** Tasks the client wants to hear of: backend and its id → the id the client knows. */
  readonly tasks: Map<string, string>;
  /** Questions of backends that the client has not answered: backend and its id → the id the client knows. */
  readonly questions: Map<string, Question>;
  /** When it was last used, milliseconds of the monotonic clock. */
  usedAtMs: number;
  /** Calls in flight, by the raw text of their id, or by a symbol; a session with any is not reaped. */
  readonly calls: Map<string | symbol, { abort(reason: Error): void }>;
  readonly hasEnded: boolean;
  /** Runs once when the session ends here, whyever; at once when it has ended. Gives what takes that back. */
  onEnd(close: (ending: Ending) => void): () => void;
}

/** `over`: there is no such session any more. `elsewhere`: other replicas, or this one later, go on with it. */
export type Ending = "over" | "elsewhere";

/** There is no such session any more. */
export class SessionEndedError extends Error {
  override name = "SessionEndedError";
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
  endWithToken(session, stream);
  for (const message of session.waiting.values()) void stream.send(message);
  session.waiting.clear();
}
