// Snapshot message → content: digests checked, bodies decoded, references closed.
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { resourceDigest, snapshotDigest } from "../../common/snapshot-digest.ts";
import {
  CatalogSchema,
  RevocationsSchema,
  type SnapshotResource,
  type StreamSnapshotsResponse,
  VirtualServerConfigSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { SharedCatalog } from "../backends/shared-catalog.ts";
import { type SessionTerms, type SnapshotContent, SnapshotRefusedError, type Violation } from "../runtime.ts";
import type { Revocation } from "../session/revocations.ts";
import { sharedFrom } from "./listing.ts";

/** The digest a proxy computes itself: over the names and the bodies it received. */
export function digestOf(resources: readonly SnapshotResource[]): Uint8Array {
  return snapshotDigest(resources.map(({ name, body }) => ({ name, digest: resourceDigest(body?.value ?? new Uint8Array()) })));
}

/** Revision and origin of a response. */
type Header = Pick<StreamSnapshotsResponse, "version" | "revision" | "storeUid">;

/** What a snapshot says about sessions, whatever else is wrong with it; undefined when just that can't be decoded. */
export function readTerms({ revision, storeUid }: Header, resources: readonly SnapshotResource[]): SessionTerms | undefined {
  const body = resources.find((resource) => typeOf(resource) === RevocationsSchema.typeName)?.body;
  try {
    return { revision: Number(revision), storeUid, revocations: decodeRevocations(body?.value ?? new Uint8Array()) };
  } catch {
    return undefined;
  }
}

/** Decodes a snapshot; throws SnapshotRefusedError with everything that is wrong. */
export function readSnapshot(header: Header, resources: readonly SnapshotResource[]): SnapshotContent {
  const { version, revision, storeUid } = header;
  const violations: Violation[] = [];
  const virtualServers: SnapshotContent["virtualServers"][number][] = [];
  const catalogs = new Map<string, SharedCatalog>();
  const backends = new Map<string, ReturnType<typeof readBackend>>();
  const seen = new Set<string>();
  let revocations: readonly Revocation[] = [];

  for (const resource of resources) {
    const { name, body } = resource;
    const refuse = (description: string) => violations.push({ resource: name, field: "", description });
    if (seen.has(name)) refuse("is there twice");
    seen.add(name);
    const type = typeOf(resource);
    const bytes = body?.value ?? new Uint8Array();
    try {
      if (type === BackendSchema.typeName) backends.set(name, readBackend(bytes));
      else if (type === VirtualServerConfigSchema.typeName) {
        const config = fromBinary(VirtualServerConfigSchema, bytes);
        const { spec, backends: names, catalogs: catalogNames } = config;
        if (spec) virtualServers.push({ name: spec.name, spec, backends: names, catalogs: catalogNames });
        else refuse("has no spec");
      } else if (type === CatalogSchema.typeName) {
        const shared = sharedFrom(resource);
        if (shared) catalogs.set(name, shared);
      } else if (type === RevocationsSchema.typeName) revocations = decodeRevocations(bytes);
      else refuse(`is of type ${type ?? "none"}, which this proxy does not know`);
    } catch {
      refuse(`can't be decoded as ${type}`);
    }
  }
  if (violations.length > 0) throw new SnapshotRefusedError(violations);
  return { version, revision: Number(revision), storeUid, virtualServers, backends, catalogs, revocations };
}

function typeOf({ body }: SnapshotResource): string | undefined {
  return body?.typeUrl.split("/").at(-1);
}

function decodeRevocations(bytes: Uint8Array): Revocation[] {
  return fromBinary(RevocationsSchema, bytes).entries.map(({ epoch, session, issuer, subject, all, virtualServer }) => ({
    epoch: Number(epoch),
    ...(session !== "" && { session }),
    ...(issuer !== "" && { issuer }),
    ...(subject !== "" && { subject }),
    all,
    ...(virtualServer !== "" && { virtualServer }),
  }));
}

function readBackend(bytes: Uint8Array) {
  const spec = fromBinary(BackendSchema, bytes);
  const unplaced = toBinary(BackendSchema, { ...spec, url: "", endpoints: [] });
  return { spec, key: Buffer.from(resourceDigest(unplaced)).toString("base64url") };
}
