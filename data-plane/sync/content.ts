// Snapshot message → content: digests checked, bodies decoded, references closed.
import { fromBinary } from "@bufbuild/protobuf";
import { resourceDigest, snapshotDigest } from "../../common/snapshot-digest.ts";
import { type SnapshotResource, VirtualServerConfigSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type SnapshotContent, SnapshotRefusedError, type Violation } from "../runtime.ts";

/** The digest a proxy computes itself: over the names and the bodies it received. */
export function digestOf(resources: readonly SnapshotResource[]): Uint8Array {
  return snapshotDigest(resources.map(({ name, body }) => ({ name, digest: resourceDigest(body?.value ?? new Uint8Array()) })));
}

/** Decodes a snapshot; throws SnapshotRefusedError with everything that is wrong. */
export function readSnapshot(version: string, resources: readonly SnapshotResource[]): SnapshotContent {
  const violations: Violation[] = [];
  const virtualServers: { name: string; spec: SnapshotContent["virtualServers"][number]["spec"]; backends: readonly string[] }[] =
    [];
  const backends = new Map<string, { spec: ReturnType<typeof decodeBackend>; key: string }>();
  const seen = new Set<string>();

  for (const { name, body } of resources) {
    const refuse = (description: string) => violations.push({ resource: name, field: "", description });
    if (seen.has(name)) refuse("is there twice");
    seen.add(name);
    const type = body?.typeUrl.split("/").at(-1);
    const bytes = body?.value ?? new Uint8Array();
    try {
      if (type === BackendSchema.typeName)
        backends.set(name, { spec: decodeBackend(bytes), key: Buffer.from(resourceDigest(bytes)).toString("base64url") });
      else if (type === VirtualServerConfigSchema.typeName) {
        const config = fromBinary(VirtualServerConfigSchema, bytes);
        if (config.spec) virtualServers.push({ name: config.spec.name, spec: config.spec, backends: config.backends });
        else refuse("has no spec");
      } else refuse(`is of type ${type ?? "none"}, which this proxy does not know`);
    } catch {
      refuse(`can't be decoded as ${type}`);
    }
  }
  if (violations.length > 0) throw new SnapshotRefusedError(violations);
  return { version, virtualServers, backends };
}

function decodeBackend(bytes: Uint8Array) {
  return fromBinary(BackendSchema, bytes);
}
