// The last good snapshot as a file: a line that proves the rest, a line for people, and the snapshot as it came.
//
//   VMCP-LAST-GOOD 1 <SHA-256 of all that follows, hex>\n
//   {"store_uid":…,"version":…,"revision":…,"schema":…,"created":…}\n
//   <a vmcp.discovery.v1.StreamSnapshotsResponse with the whole snapshot>
//
// It holds what the control plane sent: references to secrets, never a secret.
import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type SnapshotResource, StreamSnapshotsResponseSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { digestOf } from "./content.ts";

const magic = "VMCP-LAST-GOOD";
const format = 1;
const schemaVersion = 1;

/** Everything there is to start from. */
export interface SavedSnapshot {
  readonly version: string;
  readonly revision: bigint;
  readonly digest: Uint8Array;
  readonly storeUid: string;
  readonly resources: readonly SnapshotResource[];
  readonly createdMs: number;
  /** What came later about sessions, with a snapshot that was refused otherwise. */
  readonly terms: SavedTerms | undefined;
}

export interface SavedTerms {
  readonly revision: bigint;
  /** Undefined: no session is revoked. */
  readonly revocations: SnapshotResource | undefined;
}

/** Why a file can't be used, fit for a log. */
export class LastGoodError extends Error {
  override readonly name = "LastGoodError";
}

export function encodeSnapshot(saved: SavedSnapshot): Buffer {
  const { version, revision, digest, storeUid, resources, createdMs, terms } = saved;
  const header = {
    ...{ store_uid: storeUid, version, revision: String(revision), schema: schemaVersion },
    created: new Date(createdMs).toISOString(),
    ...(terms && { terms: { revision: String(terms.revision), bytes: termsBytes(terms).byteLength } }),
  };
  const snapshot = toBinary(
    StreamSnapshotsResponseSchema,
    create(StreamSnapshotsResponseSchema, {
      ...{ version, revision, digest, storeUid },
      payload: { case: "snapshot", value: { resources: [...resources], part: 0, parts: 1 } },
    }),
  );
  const rest = Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), terms ? termsBytes(terms) : Buffer.alloc(0), snapshot]);
  return Buffer.concat([Buffer.from(`${magic} ${format} ${sha256(rest)}\n`), rest]);
}

/** Throws LastGoodError unless every byte is as it was written, and this software can read it. */
export function decodeSnapshot(file: Buffer): SavedSnapshot {
  const first = file.indexOf("\n");
  const [, written, proof] = /^VMCP-LAST-GOOD (\d+) ([0-9a-f]{64})$/.exec(file.toString("latin1", 0, Math.max(first, 0))) ?? [];
  if (written === undefined) throw new LastGoodError("it is not a snapshot file");
  if (Number(written) !== format) throw new LastGoodError(`its format is ${written}; this software reads ${format}`);
  const rest = file.subarray(first + 1);
  if (sha256(rest) !== proof) throw new LastGoodError("it is torn or was changed");
  const second = rest.indexOf("\n");
  const header = JSON.parse(rest.toString("utf8", 0, second)) as Header;
  if (header.schema !== schemaVersion)
    throw new LastGoodError(`its snapshot schema is ${header.schema}; this software reads ${schemaVersion}`);
  const body = rest.subarray(second + 1);
  const termsEnd = header.terms?.bytes ?? 0;
  const { version, revision, digest, storeUid, payload } = fromBinary(StreamSnapshotsResponseSchema, body.subarray(termsEnd));
  if (payload.case !== "snapshot") throw new LastGoodError("it holds no whole snapshot");
  const { resources } = payload.value;
  if (!Buffer.from(digestOf(resources)).equals(digest)) throw new LastGoodError("its digest is not of its content");
  const terms = header.terms && readTermsBytes(header.terms.revision, body.subarray(0, termsEnd));
  return { version, revision, digest, storeUid, resources, createdMs: Date.parse(header.created), terms };
}

interface Header {
  readonly schema: number;
  readonly created: string;
  readonly terms?: { readonly revision: string; readonly bytes: number };
}

function termsBytes({ revocations }: SavedTerms): Uint8Array {
  const resources = revocations ? [revocations] : [];
  const value = { resources, part: 0, parts: 1 };
  return toBinary(StreamSnapshotsResponseSchema, create(StreamSnapshotsResponseSchema, { payload: { case: "snapshot", value } }));
}

function readTermsBytes(revision: string, bytes: Uint8Array): SavedTerms {
  const { payload } = fromBinary(StreamSnapshotsResponseSchema, bytes);
  return { revision: BigInt(revision), revocations: payload.case === "snapshot" ? payload.value.resources[0] : undefined };
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
