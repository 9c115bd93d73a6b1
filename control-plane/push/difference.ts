// What has to be sent to a proxy that has one set of resources, so that it has another.
import type { SnapshotResource } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";

export interface Difference {
  /** New or changed. */
  readonly upserts: SnapshotResource[];
  /** Names. */
  readonly removals: string[];
}

/** In the order of `after`; what went, in that of `before`. */
export function differenceOf(before: readonly SnapshotResource[], after: readonly SnapshotResource[]): Difference {
  const had = new Map(before.map((resource) => [resource.name, resource]));
  const upserts = after.filter((resource) => {
    const old = had.get(resource.name);
    had.delete(resource.name);
    return old === undefined || (old !== resource && Buffer.compare(old.digest, resource.digest) !== 0);
  });
  return { upserts, removals: [...had.keys()] };
}
