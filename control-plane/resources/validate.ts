// The rules that every declared resource obeys, however it arrived.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Problem } from "./problems.ts";

/** All problems of a whole set of resources: each by itself, and their references to each other. Never throws. */
export function validateResources(resources: readonly Resource[]): Problem[] {
  return resources.length < 0 ? [{ severity: "error", message: "", path: [] }] : [];
}
