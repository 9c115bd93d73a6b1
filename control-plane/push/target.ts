// One snapshot as it goes to the proxies: encoded at most twice, however many of them there are.

import { type SnapshotResource, StreamSnapshotsResponseSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type EncodedMessage, encode } from "../../proto/grpc.ts";

/** What every proxy should run. */
export interface Target {
  /** `r<revision>-<first 12 hex digits of digest>`. */
  readonly version: string;
  readonly digest: Uint8Array;
  readonly storeUid: string;
  /** The same bytes for every stream. */
  full(): Sendable;
  /** The same content under another nonce: a proxy ignores a response whose nonce it has seen. */
  fullAgain(): Sendable;
  /** For a proxy that runs this version already. */
  upToDate(): Sendable;
}

export interface Sendable {
  readonly nonce: bigint;
  readonly message: EncodedMessage;
}

export interface TargetContent {
  readonly version: string;
  readonly revision: bigint;
  readonly digest: Uint8Array;
  readonly storeUid: string;
  readonly resources: readonly SnapshotResource[];
}

/** `nextNonce` counts for the whole process. */
export function createTarget(content: TargetContent, nextNonce: () => bigint): Target {
  const { version, revision, digest, storeUid, resources } = content;
  const header = { version, revision, digest, storeUid };
  const snapshot = (): Sendable => {
    const nonce = nextNonce();
    const value = { resources: [...resources], part: 0, parts: 1 };
    return { nonce, message: encode(StreamSnapshotsResponseSchema, { nonce, ...header, payload: { case: "snapshot", value } }) };
  };
  const full = once(snapshot);
  const fullAgain = once(snapshot);
  const upToDate = once(() => {
    const nonce = nextNonce();
    return {
      nonce,
      message: encode(StreamSnapshotsResponseSchema, { nonce, ...header, payload: { case: "upToDate", value: {} } }),
    };
  });
  return { version, digest, storeUid, full, fullAgain, upToDate };
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
