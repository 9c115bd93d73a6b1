// What was committed, and the way back.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type GetRevisionRequest,
  type ListRevisionsRequest,
  RevisionSchema,
  type RollbackResourcesRequest,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { isRevocationName } from "../resource-names.ts";
import { listingAt } from "../store/past.ts";
import { type Change, type Listing, type Revision, type Store, StoreError } from "../store/store.ts";
import { toResourceChange } from "./declare.ts";
import { type Edited, replacement } from "./edit.ts";
import { AdminError } from "./errors.ts";
import { checkPageSize, checkPosition, checkRevision, invalid } from "./requests.ts";
import type { Write } from "./write.ts";

/** One page, newest first. */
export async function revisionsPage(store: Store, { pageSize, pageToken }: ListRevisionsRequest) {
  const size = checkPageSize(pageSize);
  const found = await store.history({ limit: size + 1, before: checkPosition(pageToken) });
  const page = found.slice(0, size);
  const last = page.at(-1);
  const nextPageToken = last !== undefined && found.length > size ? String(last.revision) : "";
  return { revisions: page.map(toRevision), nextPageToken };
}

/** Throws StoreError `compacted` when it is not kept. */
export async function revisionOf(store: Store, { revision }: GetRevisionRequest) {
  if (revision === 0n) throw invalid([{ field: "revision", description: "say which one" }]);
  const [commit] = await store.changesSince(revision - 1n, 1);
  const [found] = await store.history({ limit: 1, before: revision + 1n });
  if (commit?.revision !== revision || found?.revision !== revision)
    throw new AdminError("NOT_FOUND", `there is no revision ${revision}`);
  return { revision: toRevision(found), changes: commit.changes };
}

/** Commits what was declared at a revision. */
export function rollBack(store: Store, { revision, reason, expectedRevision }: RollbackResourcesRequest) {
  const where = revision === 0n ? "undo the last change" : `roll back to r${revision}`;
  let restoredRevision = revision;

  async function plan(present: Listing): Promise<Change[]> {
    checkRevision(present, expectedRevision);
    try {
      restoredRevision = revision === 0n ? await beforeLastChange(store, present.revision) : revision;
      const past = await listingAt(store, present, restoredRevision);
      // A revocation is no configuration: to undo one would bring back what somebody ended.
      return replacement(
        present,
        past.resources.filter(({ name }) => !isRevocationName(name)),
      );
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== "compacted") throw error;
      throw new AdminError("CHANGES_FORGOTTEN", `can't go back to revision ${restoredRevision}: ${error.message}`);
    }
  }

  return {
    plan,
    reason: reason === "" ? where : `${where}: ${reason}`,
    targets: [],
    toAnswer: ({ changes, warnings, ...edited }: Edited) => ({
      ...edited,
      restoredRevision,
      warnings: [...warnings],
      changes: changes.map(toResourceChange).sort((a, b) => (a.name < b.name ? -1 : 1)),
    }),
  } satisfies Write<unknown>;
}

/** The revision before the newest commit that changed what is declared. */
async function beforeLastChange(store: Store, newest: bigint): Promise<bigint> {
  for (let at = newest; at > 0n; at -= 1n) {
    const [commit] = await store.changesSince(at - 1n, 1);
    if (commit?.changes.some(({ name }) => !isRevocationName(name))) return at - 1n;
  }
  throw new AdminError("NOT_FOUND", "nothing was changed yet that could be undone");
}

function toRevision({ timeMs, ...rest }: Revision) {
  return create(RevisionSchema, { ...rest, time: timestampFromMs(timeMs) });
}
