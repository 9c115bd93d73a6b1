// The one way to change what is declared: validate and compile the whole set as it would be, then commit it as it was validated.

import { snapshotVersion } from "../../common/snapshot-digest.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { blocking, problemLine } from "../compiler/problem-text.ts";
import { type Reconciler, snapshotBytesMax } from "../reconcile.ts";
import { isRevocationName } from "../resource-names.ts";
import { contentBytes, etagOf } from "../store/content.ts";
import {
  type Answering,
  type Attempt,
  type Change,
  type Changed,
  type Commit,
  type Listing,
  type Store,
  StoreError,
} from "../store/store.ts";
import { AdminError, problemsError } from "./errors.ts";

// Edits run one after the other; more than this waiting means that somebody loops.
const waitingMax = 100;

// Each loses only to another control plane that committed meanwhile, so somebody gets on every time.
const attemptsMax = 10;
const buildDeadlineMs = 5_000;

export interface Editor {
  /** Runs `plan` on what is there. Throws AdminError or StoreError; nothing has changed then. */
  edit(plan: Plan, options: EditOptions): Promise<Edited>;
}

/** What to do about what is there. It is asked again when somebody else commits meanwhile. */
export type Plan = (present: Listing) => readonly Change[] | Promise<readonly Change[]>;

export interface EditOptions extends Attempt {
  /** Throws unless whoever asks may make these changes. */
  readonly permit: (changes: readonly Changed[]) => void;
  /** Default false: commit. */
  readonly validateOnly?: boolean;
  /** How problems that the change causes are reported: a delete breaks what refers to it, an apply is itself wrong. */
  readonly onProblems?: "INVALID_RESOURCES" | "IN_USE";
  /** The answer to keep with the commit. Its version is that of the commit by itself, though others may settle with it. */
  readonly answer?: KeptAnswer | undefined;
}

export interface KeptAnswer extends Omit<Answering, "encode"> {
  encode(edited: Edited): Uint8Array;
}

export interface Edited {
  /** Of the commit, or as it would be; the present one when nothing changed. */
  readonly revision: bigint;
  /** Of the snapshot that holds it, or would. */
  readonly version: string;
  readonly changes: readonly Changed[];
  /** Of what was changed. */
  readonly warnings: readonly string[];
}

export function createEditor({ store, reconciler }: { readonly store: Store; readonly reconciler: Reconciler }): Editor {
  let waiting = 0;
  let last: Promise<unknown> = Promise.resolve();

  async function attempt(plan: Plan, options: EditOptions): Promise<Edited> {
    const { validateOnly = false, onProblems = "INVALID_RESOURCES", permit, answer, actor, requestId, method, reason } = options;
    const present = await store.list();
    const changes = await plan(present);
    permit(planned(present, changes));
    const preview = previewOf(present, changes);
    const problems = reconciler.problemsOf(preview.resources);
    const faults = blocking(problems);
    if (faults.length > 0) throw problemsError(onProblems, faults);
    const compiled = reconciler.compile(preview.resources);
    if (compiled.bytes > snapshotBytesMax) throw tooLarge(compiled.bytes);
    const touched = new Set(preview.changes.map(({ name }) => name));
    const warned = [...problems, ...compiled.warnings].filter(({ resource = "" }) => resource === "" || touched.has(resource));
    const warnings = warned.map(problemLine);

    function toEdited({ revision, changes: made }: Commit): Edited {
      const built = reconciler.current();
      const unchanged = built && Buffer.compare(built.digest, compiled.digest) === 0;
      return {
        revision,
        version: unchanged ? built.version : snapshotVersion(revision, compiled.digest),
        changes: made,
        warnings,
      };
    }

    if (validateOnly) return toEdited(preview);
    const kept = answer && { ...answer, encode: (commit: Commit) => answer.encode(toEdited(commit)) };
    const by = { actor, requestId, method, reason };
    return toEdited(await store.commit(changes, { ...by, expectedRevision: present.revision, answer: kept }));
  }

  async function retried(plan: Plan, options: EditOptions): Promise<Edited> {
    for (let attempts = 1; ; attempts++) {
      try {
        return await attempt(plan, options);
      } catch (error) {
        // Another control plane committed in between: what was validated is no longer the whole, so look again.
        const moved = error instanceof StoreError && error.code === "conflict" && error.resource === undefined;
        if (!moved || attempts === attemptsMax) throw error;
      }
    }
  }

  return {
    async edit(plan, options) {
      if (waiting >= waitingMax) throw new AdminError("BUSY", `${waitingMax} changes are waiting already; try again`);
      waiting += 1;
      const turn = last
        .then(() => retried(plan, options))
        .finally(() => {
          waiting -= 1;
        });
      last = turn.catch(() => undefined);
      const edited = await turn;
      if (options.validateOnly) return edited;
      // Commits that settle together become one snapshot, so only the build knows its name.
      const version = await reconciler.versionOf(edited.revision, buildDeadlineMs);
      return { ...edited, version: version ?? edited.version };
    },
  };
}

/** What makes the declared resources exactly these; revocations of sessions stay. */
export function replacement(present: Listing, resources: readonly Resource[]): Change[] {
  return [...resources.map((resource) => ({ name: resource.name, resource })), ...pruned(present, resources)];
}

/** What deletes everything that is declared and not among these; revocations of sessions stay. */
export function pruned(present: Listing, resources: readonly Resource[]): Change[] {
  const kept = new Set(resources.map(({ name }) => name));
  const gone = present.resources.filter(({ name }) => !kept.has(name) && !isRevocationName(name));
  return gone.map(({ name }) => ({ name, resource: undefined }));
}

/** Both sides of every change; the same one twice of those that alter nothing, whose answers show what is there. */
function planned({ resources }: Listing, changes: readonly Change[]): Changed[] {
  const present = new Map(resources.map((resource) => [resource.name, resource]));
  return changes.map(({ name, resource }) => {
    const before = present.get(name);
    const isSame = before !== undefined && resource !== undefined && etagOf(contentBytes(resource)) === before.etag;
    return { name, before, after: isSame ? before : resource };
  });
}

/** The set as it would be, checked against the etags that the changes expect. */
function previewOf(present: Listing, changes: readonly Change[]): Listing & { readonly changes: readonly Changed[] } {
  const resources = new Map(present.resources.map((resource) => [resource.name, resource]));
  const changed: Changed[] = [];
  for (const { name, resource, expectedEtag } of changes) {
    const before = resources.get(name);
    if (expectedEtag !== undefined && expectedEtag !== (before?.etag ?? "")) throw etagMismatch(name, expectedEtag, before);
    if (resource === undefined) {
      if (before) changed.push({ name, before, after: undefined });
      resources.delete(name);
      continue;
    }
    const etag = etagOf(contentBytes(resource));
    if (etag === before?.etag) continue;
    const after: Resource = { ...resource, etag, revision: present.revision + 1n };
    changed.push({ name, before, after });
    resources.set(name, after);
  }
  const sorted = [...resources.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return { revision: changed.length > 0 ? present.revision + 1n : present.revision, resources: sorted, changes: changed };
}

function etagMismatch(name: string, expected: string, before: Resource | undefined): AdminError {
  const seen = before === undefined ? "it does not exist" : `it has changed since (${before.etag})`;
  return new AdminError("ETAG_MISMATCH", `"${name}" was expected to be ${expected}, but ${seen}`, {
    metadata: { resource: name },
  });
}

function tooLarge(bytes: number): AdminError {
  const message = `the snapshot would take ${bytes} bytes; proxies take at most ${snapshotBytesMax}`;
  return new AdminError("SNAPSHOT_TOO_LARGE", message, { metadata: { bytes: String(bytes) } });
}
