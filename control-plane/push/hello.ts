// What a Hello must be, and what it says that the proxy runs.
import { toBinary } from "@bufbuild/protobuf";
import { status as grpcStatus } from "@grpc/grpc-js";
import { type Hello, NodeSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Target } from "./target.ts";

/** Newest snapshot schema that this control plane writes. */
const schemaVersion = 1;

// What a proxy says of itself is kept for every proxy ever seen.
const nodeBytesMax = 16 * 1024;

export interface Fault {
  readonly code: grpcStatus;
  readonly details: string;
}

export const secondHello: Fault = { code: grpcStatus.INVALID_ARGUMENT, details: "a second Hello on one stream" };

/** Why a first Hello can't be taken. */
export function faultOf(hello: Hello): Fault | undefined {
  const { node, schemaMin, schemaMax } = hello;
  if (!node?.id || node.id.length > 253) {
    return { code: grpcStatus.INVALID_ARGUMENT, details: "Hello.node.id must have 1 to 253 characters" };
  }
  if (toBinary(NodeSchema, node).byteLength > nodeBytesMax) {
    return { code: grpcStatus.INVALID_ARGUMENT, details: `Hello.node is larger than ${nodeBytesMax} bytes` };
  }
  // 0 is "not said", from before there was more than one schema.
  if (schemaMin > schemaVersion || (schemaMax !== 0 && schemaMax < schemaVersion)) {
    const details = `this control plane writes snapshot schema ${schemaVersion}; the proxy reads ${schemaMin} to ${schemaMax}`;
    return { code: grpcStatus.FAILED_PRECONDITION, details };
  }
  return undefined;
}

type Known = Pick<Hello, "knownVersion" | "knownDigest" | "storeUid">;

/** Whether a proxy runs a target: the same content of the same store under the same name. */
export const runs = (said: Known, target: Target): boolean => said.knownVersion === target.version && holds(said, target);

/** The same content under a later name: another control plane looked at the store a commit later. Sent ours, it would refuse it for good. */
export const runsLater = (said: Known, target: Target): boolean =>
  holds(said, target) && revisionOf(said.knownVersion) > target.revision;

function holds({ knownDigest, storeUid }: Known, target: Target): boolean {
  return storeUid === target.storeUid && Buffer.compare(knownDigest, target.digest) === 0;
}

/** -1 for a proxy that runs nothing. */
export function revisionOf(version: string): bigint {
  const digits = /^r(\d+)/.exec(version)?.[1];
  return digits === undefined ? -1n : BigInt(digits);
}
