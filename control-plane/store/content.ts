// The content of a resource: its name and spec, without what the store adds. Etags are made from it.
import { createHash } from "node:crypto";
import { clone, create } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { canonicalBytes } from "../canonical.ts";

/** The resource with output fields and etag cleared; a copy. */
function contentOf(resource: Resource): Resource {
  return create(ResourceSchema, { name: resource.name, spec: clone(ResourceSchema, resource).spec });
}

/** Deterministic: equal contents give equal bytes. */
export function contentBytes(resource: Resource): Uint8Array {
  return canonicalBytes(ResourceSchema, contentOf(resource));
}

/** Changes with the content only: 32 hex digits. */
export function etagOf(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex").slice(0, 32);
}
