// What every store promises. store.test.ts runs the same promises over every driver.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { ChangeFeed } from "../change-feed.ts";

/** Declared resources, their history, who did what, and one number that grows with every commit. */
export interface Store extends AsyncDisposable {
  /** Random, made with the store; tells two stores apart whose revisions look alike. */
  readonly uid: string;

  /**
   * Applies all changes or none, and writes one line of the audit trail with them. A change that alters nothing is left out of
   * the result; when nothing is left there is no new revision and the present one is returned.
   * Throws StoreError: `conflict` when an expectation does not hold, `repeated`, `unavailable`, `uncertain`.
   */
  commit(changes: readonly Change[], options: CommitOptions): Promise<Commit>;

  /** One resource with its output fields filled in; undefined when there is none of that name. */
  get(name: string): Promise<Resource | undefined>;

  /** Everything, sorted by name, and the revision it was read at. */
  list(): Promise<Listing>;

  /**
   * Commits after `revision`, oldest first, at most `limit`; of one revision: `changesSince(revision - 1n, 1)`.
   * Throws StoreError: `compacted` when some of them are no longer kept or the revision lies in the future.
   */
  changesSince(revision: bigint, limit: number): Promise<Commit[]>;

  /**
   * Every commit after `revision`, whoever made it, until the signal aborts or the store closes. A watcher holds no queue: it
   * reads from the history at its own pace, and one that falls behind what is kept gets StoreError `compacted` and lists again.
   * While the medium is away it waits, and then goes on where it was.
   */
  watch(revision: bigint, signal: AbortSignal): AsyncIterable<Commit>;

  /** Newest first; with `before` only revisions below it. */
  history(range: HistoryRange): Promise<Revision[]>;

  /** What was answered to the request of this id; undefined when that is not known, or was more than an hour ago. */
  answered(requestId: string): Promise<Answered | undefined>;

  /** Adds a line to the audit trail for an attempt that was refused. One that is committed has its line from the commit. */
  audit(denied: DeniedAttempt): Promise<void>;

  /** Lines after `id`, oldest first, at most `limit`; their ids have no gaps. */
  auditTrail(id: bigint, limit: number): Promise<AuditTrail>;

  /** For what only one control plane may do at a time. */
  readonly leases: Leases;

  /** What control planes remember beside what is declared, such as the certificates they issued: it has no revision, and no proxy gets it. */
  readonly records: Records;

  /** What backends offer, as proxies last saw it: it has no revision, because nobody declares it. */
  readonly catalogs: CatalogShelf;

  /** What control planes tell each other of themselves and their proxies. It has no revision and no history. */
  readonly peers: Peers;
}

/** Small texts by kind and id, that change together or not at all. */
export interface Records {
  /** Undefined: there is none. */
  get(kind: string, id: string): Promise<StoredRecord | undefined>;
  /** All of a kind, sorted by id. Who writes them bounds them. */
  list(kind: string): Promise<StoredRecord[]>;
  /** Makes all changes or none, and writes one line of the audit trail with them. Throws StoreError `conflict` when a version is another. */
  change(changes: readonly RecordChange[], by: Attempt): Promise<void>;
}

export interface StoredRecord {
  readonly kind: string;
  readonly id: string;
  /** Counts from 1 with every change of this record. */
  readonly version: bigint;
  readonly body: string;
}

export interface RecordChange extends Pick<StoredRecord, "kind" | "id"> {
  /** Undefined deletes. */
  readonly body: string | undefined;
  /** Refused when it is another by now; 0: when there is one. Undefined: not checked. */
  readonly expectedVersion?: bigint | undefined;
}

/** One entry for each name; the last that was put there. */
export interface CatalogShelf {
  /** All of them, sorted by name. */
  list(): Promise<CatalogEntry[]>;
  /** Which there are, and which version of each; without what they hold. */
  versions(): Promise<ReadonlyMap<string, bigint>>;
  /** Undefined: there is none. */
  get(name: string): Promise<CatalogEntry | undefined>;
  /**
   * Puts one in the place of the version that is named (0: of none), with lines of the audit trail; gives its own version.
   * Throws StoreError `conflict` when another is there by now.
   */
  put(entry: Pick<CatalogEntry, "name" | "body">, options: PutOptions): Promise<bigint>;
  /** Takes away those that are there. */
  remove(names: readonly string[]): Promise<void>;
  /** Resolves when one may have been put or removed, here or by another control plane, or when the signal aborts. */
  changed(signal: AbortSignal): Promise<void>;
}

export interface CatalogEntry {
  readonly name: string;
  /** Counts from 1 with every change. */
  readonly version: bigint;
  readonly body: Uint8Array;
  /** When it was put there. */
  readonly timeMs: number;
}

export interface PutOptions {
  readonly expectedVersion: bigint;
  readonly lines: readonly UncommittedChange[];
}

/** Something that is no commit, for the audit trail. */
export interface UncommittedChange extends Attempt {
  /** What became of it, for machines. Default: `OK`. */
  readonly code?: string;
  readonly targets: readonly string[];
}

export interface Change {
  readonly name: string;
  /** The new content; output fields and etag are ignored. Undefined deletes. */
  readonly resource: Resource | undefined;
  /** The commit fails when the stored etag differs. Undefined: not checked. */
  readonly expectedEtag?: string | undefined;
}

/** Who wants what and why. Kept in the history and in the audit trail; each text is cut at 1,000 characters. */
export interface Attempt {
  readonly actor: string;
  /** What was called, as `ApplyResources`. */
  readonly method: string;
  readonly reason: string;
  readonly requestId: string;
}

export interface CommitOptions extends Attempt {
  /** The commit fails when the store has moved on: what was validated would not be what is committed. */
  readonly expectedRevision?: bigint | undefined;
  /** The commit fails when somebody else has held this lease since. */
  readonly fence?: Fence | undefined;
  /**
   * Keeps the answer to the request, for an hour; of the newest 1,000. Also when nothing is changed. The commit fails with
   * `repeated` when an answer to a request of this id is kept already.
   */
  readonly answer?: Answering | undefined;
}

export interface Answering {
  /** Of the request, unique. */
  readonly id: string;
  /** Tells the request from others. */
  readonly fingerprint: string;
  encode(commit: Commit): Uint8Array;
}

export interface Answered extends Pick<Answering, "fingerprint"> {
  readonly body: Uint8Array;
}

export interface DeniedAttempt extends Attempt {
  /** Why, for machines, as `PERMISSION_DENIED`. */
  readonly code: string;
  /** Names of what should have been changed. */
  readonly targets: readonly string[];
}

export interface Commit {
  readonly revision: bigint;
  readonly changes: readonly Changed[];
}

/** `before` is absent for a new resource, `after` for a deleted one. */
export interface Changed {
  readonly name: string;
  readonly before: Resource | undefined;
  readonly after: Resource | undefined;
}

export interface Listing {
  readonly revision: bigint;
  readonly resources: readonly Resource[];
}

export interface HistoryRange {
  readonly limit: number;
  readonly before?: bigint | undefined;
}

export interface Revision extends Omit<Attempt, "method"> {
  readonly revision: bigint;
  readonly timeMs: number;
  readonly changeCount: number;
}

export interface AuditTrail {
  readonly lines: readonly AuditLine[];
  /** The newest line there is, as the store remembers it beside the trail. */
  readonly head: AuditHead;
}

/** `id` 0 and no hash before the first line. */
export interface AuditHead {
  readonly id: bigint;
  readonly hash: string;
}

/** `entry` is what `hash` is made from; audit.ts reads it. */
export interface AuditLine extends AuditHead {
  readonly entry: string;
}

/** Everything by the clock of the store, so that those of its users do not matter. */
export interface Leases {
  /** Takes what nobody holds, until it runs out. Undefined: somebody holds it. The token is higher than any before it. */
  acquire(name: string, claim: { readonly holder: string; readonly ttlMs: number }): Promise<Fence | undefined>;
  /** Takes or renews those that nobody else holds, for one holder; gives which it holds now. */
  claim(names: readonly string[], claim: { readonly holder: string; readonly ttlMs: number }): Promise<string[]>;
  /** False: it has run out, or somebody else has it. */
  renew(fence: Fence, ttlMs: number): Promise<boolean>;
  /** Does nothing when it is somebody else's by now. */
  release(fence: Fence): Promise<void>;
  /** Lets go of those of these names that the holder claimed. */
  disclaim(names: readonly string[], holder: string): Promise<void>;
}

/** That somebody holds, or has held, a lease. */
export interface Fence {
  readonly lease: string;
  readonly token: bigint;
}

export interface Peers {
  /** Says that a control plane is there, and what it sees. What it told before of other proxies stays. */
  tell(id: string, telling: Telling): Promise<void>;
  /** Everyone who told something that is not forgotten, sorted by id; of proxies what was told with a higher number than `heard` has. */
  hear(heard: ReadonlyMap<string, bigint>): Promise<Peer[]>;
  /** Forgets everyone who has not been there for so long. */
  forget(goneMs: number): Promise<void>;
  /** Wakes when somebody may have told something new, and now and then. */
  readonly changes: Pick<ChangeFeed, "next">;
}

export interface Telling {
  /** Higher than that of the telling before. */
  readonly number: bigint;
  readonly body: Uint8Array;
  /** How long it is there without telling again, by the clock of the store. 0: it goes away. */
  readonly ttlMs: number;
  /** By id. */
  readonly proxies: ReadonlyMap<string, Uint8Array>;
  /** Ids that nothing is to be told of any more. */
  readonly forgotten: readonly string[];
}

export interface Peer extends Pick<Telling, "number" | "body" | "proxies"> {
  readonly id: string;
  readonly isThere: boolean;
  /** When it told something last, by the clock of the store. */
  readonly heardMs: number;
}

/**
 * `unusable`: what opening found does not get better by waiting. `uncertain`: the medium failed while it committed, so the change may
 * have been made.
 */
export type StoreErrorCode = "conflict" | "repeated" | "compacted" | "unavailable" | "unusable" | "uncertain";

/** `resource` names the one that did not fit, when it was one. */
export class StoreError extends Error {
  override readonly name = "StoreError";
  readonly code: StoreErrorCode;
  readonly resource: string | undefined;

  constructor(code: StoreErrorCode, message: string, options: ErrorOptions & { readonly resource?: string } = {}) {
    super(message, options);
    this.code = code;
    this.resource = options.resource;
  }
}
