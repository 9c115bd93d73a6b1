// Puts the parts of a large snapshot together, as they come on one stream.
import type { Delta, SnapshotResource, StreamSnapshotsResponse } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";

// Twice what a control plane commits.
const bytesMax = 32 * 1024 * 1024;

/** Something to put into force. */
export type Whole = Pick<StreamSnapshotsResponse, "nonce" | "version" | "revision" | "digest" | "storeUid"> & {
  readonly payload:
    | { readonly case: "snapshot"; readonly resources: readonly SnapshotResource[] }
    | { readonly case: "delta"; readonly value: Delta }
    | { readonly case: "upToDate" };
};

/** Why what came can't become a whole. */
export interface Unfit extends Pick<StreamSnapshotsResponse, "nonce" | "version"> {
  readonly why: string;
  readonly isTooLarge: boolean;
}

export interface Parts {
  /** Undefined: more has to come, or it came before. */
  add(response: StreamSnapshotsResponse): Whole | Unfit | undefined;
}

export function createParts(): Parts {
  /** Of the response that is being put together or was dealt with last. */
  let last: bigint | undefined;
  let isDone = false;
  let resources: SnapshotResource[] = [];
  let next = 0;
  let bytes = 0;

  function done<T>(result: T): T {
    isDone = true;
    resources = [];
    return result;
  }

  return {
    add(response) {
      const { payload, nonce, version, revision, digest, storeUid } = response;
      if (response.nonce !== last) [last, isDone, resources, next, bytes] = [response.nonce, false, [], 0, 0];
      if (isDone) return undefined;
      const header = { nonce, version, revision, digest, storeUid };
      if (payload.case === "upToDate") return done({ ...header, payload: { case: "upToDate" } });
      if (payload.case === "delta") return done({ ...header, payload });
      if (payload.case !== "snapshot")
        return done({ nonce, version, why: `payload ${payload.case} is not supported`, isTooLarge: false });
      const { part, parts } = payload.value;
      if (part !== next) return done({ nonce, version, why: `part ${part} came where part ${next} was due`, isTooLarge: false });
      next += 1;
      bytes += payload.value.resources.reduce((sum, { body }) => sum + (body?.value.byteLength ?? 0), 0);
      if (bytes > bytesMax) return done({ nonce, version, why: `it has more than ${bytesMax} bytes`, isTooLarge: true });
      resources.push(...payload.value.resources);
      if (next < parts) return undefined;
      return done({ ...header, payload: { case: "snapshot", resources } });
    },
  };
}

export function isUnfit(one: Whole | Unfit): one is Unfit {
  return "why" in one;
}
