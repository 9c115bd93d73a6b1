// What was declared earlier: the present, with what was committed since undone.
import type { Listing, Store } from "./store.ts";

/** Throws StoreError `compacted` when the commits since `revision` are not all kept, or when it lies in the future. */
export async function listingAt(store: Pick<Store, "changesSince">, present: Listing, revision: bigint): Promise<Listing> {
  if (revision === present.revision) return present;
  const resources = new Map(present.resources.map((resource) => [resource.name, resource]));
  const since = await store.changesSince(revision, Number(present.revision - revision));
  for (const { revision: at, changes } of since.reverse()) {
    if (at > present.revision) continue;
    for (const { name, before } of changes) {
      if (before === undefined) resources.delete(name);
      else resources.set(name, before);
    }
  }
  return { revision, resources: [...resources.values()].sort((a, b) => (a.name < b.name ? -1 : 1)) };
}
