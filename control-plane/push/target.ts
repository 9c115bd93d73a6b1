// What proxies should run, as it goes to them: encoded once for each base that they have, however many of them there are.

import { snapshotDigest, snapshotVersion } from "../../common/snapshot-digest.ts";
import {
  type Snapshot,
  type SnapshotResource,
  type StreamSnapshotsResponse,
  StreamSnapshotsResponseSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type EncodedMessage, encode } from "../../proto/grpc.ts";
import { differenceOf } from "./difference.ts";

// gRPC takes messages of 4 MiB where nobody said otherwise. A single resource is never cut.
const partBytesMax = 3 * 1024 * 1024;

/** What a proxy should run. Two targets are the same one only when they are the same object. */
export interface Target {
  /** `r<revision>-<first 12 hex digits of digest>`. */
  readonly version: string;
  readonly revision: bigint;
  readonly digest: Uint8Array;
  readonly storeUid: string;
  /** Sorted by name. */
  readonly resources: readonly SnapshotResource[];
  /** Everything; the same bytes for every stream. `inParts`: for a proxy that takes parts. */
  full(inParts: boolean): Sendable;
  /** The same content under another nonce: a proxy ignores a response whose nonce it has seen. */
  fullAgain(inParts: boolean): Sendable;
  /** What differs from a base, for all that have it; everything when that is not smaller. */
  since(base: Target, inParts: boolean): Sendable;
  /** For a proxy that runs this version already. */
  upToDate(): Sendable;
  /** For a proxy that is to keep what it says that it runs. */
  keep(version: string, digest: Uint8Array): Sendable;
  /** Another is wanted now: lets go of the bytes, which are made again should anybody need them. */
  retire(): void;
  /**
   * What a proxy runs that is to keep `base` meanwhile: nobody keeps a session that was revoked, and what backends list is true for all.
   * `base` itself when there is nothing new.
   */
  heldAt(base: Target): Target;
}

export interface Sendable {
  readonly nonce: bigint;
  /** In this order, without anything in between. */
  readonly messages: readonly EncodedMessage[];
}

export interface TargetContent {
  readonly version: string;
  readonly revision: bigint;
  readonly digest: Uint8Array;
  readonly storeUid: string;
  /** Sorted by name. */
  readonly resources: readonly SnapshotResource[];
}

/** `nextNonce` counts for the whole process. `previous` shares what it has in common, so that a long history takes little. */
export function createTarget(content: TargetContent, nextNonce: () => bigint, previous?: Target): Target {
  const { version, revision, digest, storeUid } = content;
  const resources = shared(content.resources, previous);
  let deltas = new WeakMap<Target, Sendable | undefined>();
  const held = new WeakMap<Target, Target>();
  const response = (nonce: bigint, payload: StreamSnapshotsResponse["payload"]): EncodedMessage =>
    encode(StreamSnapshotsResponseSchema, { nonce, version, revision, digest, storeUid, payload });

  const snapshots = (): Snapshots => {
    const nonce = nextNonce();
    const send = (parts: readonly (readonly SnapshotResource[])[]): Sendable => ({
      nonce,
      messages: parts.map((some, part) => response(nonce, { case: "snapshot", value: partOf(some, part, parts.length) })),
    });
    const parts = inParts(resources);
    const whole = once(() => send([resources]));
    return { whole, parts: parts.length === 1 ? whole : once(() => send(parts)) };
  };
  let [first, again] = [once(snapshots), once(snapshots)];
  const full = (takesParts: boolean): Sendable => (takesParts ? first().parts() : first().whole());

  function delta(base: Target): Sendable | undefined {
    const { upserts, removals } = differenceOf(base.resources, resources);
    if (bytesOf(upserts) >= bytesOf(resources)) return undefined;
    const nonce = nextNonce();
    const value = { $typeName: "vmcp.discovery.v1.Delta" as const, baseVersion: base.version, upserts, removals };
    return { nonce, messages: [response(nonce, { case: "delta", value })] };
  }

  function keep(knownVersion: string, knownDigest: Uint8Array): Sendable {
    const nonce = nextNonce();
    const header = { nonce, version: knownVersion, revision, digest: knownDigest, storeUid };
    return { nonce, messages: [encode(StreamSnapshotsResponseSchema, { ...header, payload: { case: "upToDate", value: {} } })] };
  }

  function heldAt(base: Target): Target {
    const facts = resources.filter(isFact);
    if (!isDifferent(base.resources.filter(isFact), facts)) return base;
    const kept = [...base.resources.filter((one) => !isFact(one)), ...facts].sort(byName);
    const keptDigest = snapshotDigest(kept);
    const keptContent = {
      version: snapshotVersion(revision, keptDigest),
      revision,
      digest: keptDigest,
      storeUid,
      resources: kept,
    };
    return createTarget(keptContent, nextNonce, base);
  }

  const target: Target = {
    ...{ version, revision, digest, storeUid, resources, full, keep },
    fullAgain: (takesParts) => (takesParts ? again().parts() : again().whole()),
    since(base, takesParts) {
      if (!deltas.has(base)) deltas.set(base, delta(base));
      return deltas.get(base) ?? full(takesParts);
    },
    upToDate: once(() => keep(version, digest)),
    retire() {
      [first, again, deltas] = [once(snapshots), once(snapshots), new WeakMap()];
    },
    heldAt(base) {
      const known = held.get(base) ?? heldAt(base);
      held.set(base, known);
      return known;
    },
  };
  return target;
}

type Kind = (resource: Pick<SnapshotResource, "name">) => boolean;

/** Whether two differ in resources of one kind, and in nothing else. */
export function differsOnlyIn(isOfKind: Kind, before: Target, after: Target): boolean {
  const { upserts, removals } = differenceOf(before.resources, after.resources);
  return upserts.every(isOfKind) && removals.every((name) => isOfKind({ name }));
}

export const isRevocations: Kind = ({ name }) => name === "revocations";

export const isCatalog: Kind = ({ name }) => name.includes("/catalogs/");

/** What is so, whatever was declared and tried since. */
export const isFact: Kind = (resource) => isRevocations(resource) || isCatalog(resource);

interface Snapshots {
  readonly whole: () => Sendable;
  readonly parts: () => Sendable;
}

function isDifferent(before: readonly SnapshotResource[], after: readonly SnapshotResource[]): boolean {
  const { upserts, removals } = differenceOf(before, after);
  return upserts.length + removals.length > 0;
}

function shared(resources: readonly SnapshotResource[], previous: Target | undefined): readonly SnapshotResource[] {
  if (previous === undefined) return resources;
  const known = new Map(previous.resources.map((resource) => [resource.name, resource]));
  return resources.map((resource) => {
    const same = known.get(resource.name);
    return same && Buffer.compare(same.digest, resource.digest) === 0 ? same : resource;
  });
}

function inParts(resources: readonly SnapshotResource[]): SnapshotResource[][] {
  const parts: SnapshotResource[][] = [[]];
  let bytes = 0;
  for (const resource of resources) {
    const size = bytesOf([resource]);
    if (bytes > 0 && bytes + size > partBytesMax) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1)?.push(resource);
    bytes += size;
  }
  return parts;
}

function partOf(resources: readonly SnapshotResource[], part: number, parts: number): Snapshot {
  return { $typeName: "vmcp.discovery.v1.Snapshot", resources: [...resources], part, parts };
}

/** What they take in a message, but for a few bytes. */
function bytesOf(resources: readonly SnapshotResource[]): number {
  return resources.reduce((sum, { name, digest, body }) => {
    return sum + name.length + digest.byteLength + (body?.typeUrl.length ?? 0) + (body?.value.byteLength ?? 0) + 16;
  }, 0);
}

function byName(a: SnapshotResource, b: SnapshotResource): number {
  return a.name < b.name ? -1 : 1;
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
