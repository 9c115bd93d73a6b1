// Sessions as operators see them.
import type { StoredRecord } from "./record-store.ts";
import type { Session } from "./session.ts";

/** What is looked for; the filters hold together, and an empty text lets all through. */
export interface SessionFilter {
  readonly virtualServer: string;
  readonly subject: string;
  readonly keyPrefix: string;
}

/** A session as operators see it. */
export interface ListedSession {
  readonly key: string;
  readonly virtualServer: string;
  readonly issuer: string;
  readonly subject: string;
  /** JSON text of the client's clientInfo. */
  readonly clientInfo: string;
  readonly protocolVersion: string;
  /** Milliseconds since 1970; undefined when not known. */
  readonly createTimeMs: number | undefined;
  /** The same; of one that is not held here, when it was created. */
  readonly lastUseTimeMs: number;
  /** Whether this replica has it in hand. */
  readonly isHeld: boolean;
  /** Open streams of this replica to the client. */
  readonly streams: number;
  /** Calls in flight in this replica. */
  readonly calls: number;
}

export const everything: SessionFilter = { virtualServer: "", subject: "", keyPrefix: "" };

type Held = Pick<ListedSession, "isHeld" | "streams" | "calls"> & { readonly lastUseTimeMs?: number };

export function isAsked(session: ListedSession, { virtualServer, subject, keyPrefix }: SessionFilter): boolean {
  return (
    (virtualServer || session.virtualServer) === session.virtualServer &&
    (subject || session.subject) === session.subject &&
    session.key.startsWith(keyPrefix)
  );
}

/** What is known here of the use of a session. */
export function listedAs(session: Session | undefined): Held {
  if (!session) return { isHeld: false, streams: 0, calls: 0 };
  const lastUseTimeMs = Math.round(Date.now() - (performance.now() - session.usedAtMs));
  return { isHeld: true, streams: session.stream === undefined ? 0 : 1, calls: session.calls.size, lastUseTimeMs };
}

export function factsOf(key: string, { record, createdMs }: StoredRecord) {
  const { virtualServer, issuer, subject, clientInfo, protocolVersion } = record;
  return { key, virtualServer, issuer, subject, clientInfo, protocolVersion, createTimeMs: createdMs };
}
