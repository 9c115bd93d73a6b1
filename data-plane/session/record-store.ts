// Where the records of sessions are, and how replicas tell each other of changes.
import type { SessionRecord } from "./record.ts";

export interface RecordStore extends AsyncDisposable {
  /** Other replicas have the same records. */
  readonly isShared: boolean;
  /** Whatever others change is told: what was read stays true until then. Else it may be lost. */
  readonly tellsAll: boolean;
  /** Keeps a new record. Throws StoreUnavailableError, as everything here. */
  create(
    key: string,
    record: SessionRecord,
    times: { readonly pendingMs: number; readonly absoluteMs: number },
  ): Promise<StoredRecord>;
  /** Undefined when there is none, it has expired, or it is not as we wrote it. */
  read(key: string): Promise<StoredRecord | undefined>;
  /** Replaces the record if it is still of this version, and tells the others. */
  write(key: string, before: StoredRecord, record: SessionRecord): Promise<"written" | "changed" | "gone">;
  /** It is in use: lives `idleMs` from now, but never beyond its end. False when there is none. */
  touch(key: string, idleMs: number): Promise<boolean>;
  /** Ends it, and tells the others. */
  remove(key: string): Promise<void>;
  /**
   * Counts a session to its owner's, of whom `owner` is an opaque name, or marks it as used; gives the keys of those beyond `max`,
   * unused for longest first.
   */
  enlist(owner: string, key: string, max: number): Promise<readonly string[]>;
  /** Keys of up to `max` sessions that live, in no order. */
  keys(max: number): Promise<readonly string[]>;
  /** Tells the other replicas; not waited for, and lost when nobody listens. */
  publish(event: StoreEvent): void;
  /** Says where this replica is, under its short name; keeps saying so. */
  announce(replica: string, address: string): void;
  /** Says no more where it is. */
  withdraw(replica: string): Promise<void>;
  /** Where a replica is; undefined when it is gone. */
  addressOf(replica: string): Promise<string | undefined>;
}

export interface StoredRecord {
  readonly record: SessionRecord;
  /** Grows with every write. */
  readonly version: number;
  /** When it was created and when it ends at the latest, milliseconds since 1970, by the store's clock. */
  readonly createdMs: number;
  readonly endMs: number;
  /** How long it lives if nobody uses it, milliseconds from when it was read. */
  readonly idleLeftMs: number;
  /** How long it can live at most, milliseconds from when it was read. */
  readonly leftMs: number;
}

/** What replicas tell each other. `key`: of a session. */
export type StoreEvent =
  | { readonly type: "changed" | "ended"; readonly key: string }
  /** Its client has opened a stream elsewhere. */
  | { readonly type: "streaming"; readonly key: string }
  /** Its client wants no answer to a request any more; `request` is the raw text of the request's id. */
  | { readonly type: "cancelled"; readonly key: string; readonly request: string };

/** Nobody knows whether there is such a session: it is not to be assumed valid, nor to be gone. */
export class StoreUnavailableError extends Error {
  override name = "StoreUnavailableError";
}
