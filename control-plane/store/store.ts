// What every store promises. store.test.ts runs the same promises over every driver.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";

/** Declared resources, their history, and one number that grows with every commit. */
export interface Store extends AsyncDisposable {
  /** Random, made with the store; tells two stores apart whose revisions look alike. */
  readonly uid: string;

  /**
   * Applies all changes or none. A change that alters nothing is left out of the result; when nothing is left there is no new
   * revision and the present one is returned.
   * Throws StoreError: `conflict` when an expectation does not hold, `unavailable` when the medium fails.
   */
  commit(changes: readonly Change[], options: CommitOptions): Promise<Commit>;

  /** One resource with its output fields filled in; undefined when there is none of that name. */
  get(name: string): Promise<Resource | undefined>;

  /** Everything, sorted by name, and the revision it was read at. */
  list(): Promise<Listing>;

  /**
   * Commits after `revision`, oldest first, at most `limit`.
   * Throws StoreError: `compacted` when some of them are no longer kept or the revision lies in the future.
   */
  changesSince(revision: bigint, limit: number): Promise<Commit[]>;

  /**
   * Every commit after `revision`, until the signal aborts or the store closes. A watcher holds no queue: it reads from the
   * history at its own pace, and one that falls behind what is kept gets StoreError `compacted` and lists again.
   */
  watch(revision: bigint, signal: AbortSignal): AsyncIterable<Commit>;

  /** Newest first. */
  history(limit: number): Promise<Revision[]>;
}

export interface Change {
  readonly name: string;
  /** The new content; output fields and etag are ignored. Undefined deletes. */
  readonly resource: Resource | undefined;
  /** The commit fails when the stored etag differs. Undefined: not checked. */
  readonly expectedEtag?: string | undefined;
}

export interface CommitOptions {
  /** Who and why; kept in the history, cut at 1,000 characters. */
  readonly reason: string;
  /** The commit fails when the store has moved on: what was validated would not be what is committed. */
  readonly expectedRevision?: bigint | undefined;
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

export interface Revision {
  readonly revision: bigint;
  readonly reason: string;
  readonly timeMs: number;
}

export type StoreErrorCode = "conflict" | "compacted" | "unavailable";

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
