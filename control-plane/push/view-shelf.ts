// Proxies that run the same snapshot report the same views; one copy is kept of each. A view of a thousand tools takes
// a megabyte, and there may be hundreds of proxies.
import { createHash } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { type VirtualServerView, VirtualServerViewSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";

type Views = readonly VirtualServerView[];

export interface ViewShelf {
  /** The copy that others with equal views have, or these. */
  share(views: Views): Views;
  /** Forgets everything but these. */
  keep(used: readonly Views[]): void;
}

export function createViewShelf(): ViewShelf {
  const byDigest = new Map<string, Views>();
  return {
    share(views) {
      const digest = digestOf(views);
      const kept = byDigest.get(digest) ?? views;
      byDigest.set(digest, kept);
      return kept;
    },
    keep(used) {
      const inUse = new Set(used);
      for (const [digest, views] of byDigest) if (!inUse.has(views)) byDigest.delete(digest);
    },
  };
}

function digestOf(views: Views): string {
  const hash = createHash("sha256");
  for (const view of views) {
    const bytes = toBinary(VirtualServerViewSchema, view);
    hash.update(`${bytes.byteLength}:`).update(bytes);
  }
  return hash.digest("base64");
}
