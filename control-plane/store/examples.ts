// For tests: what is put into a store.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Change } from "./store.ts";

/** A line in the history for tests that do not look at it. */
export const by = { actor: "alice", method: "Test", reason: "test", requestId: "one" };

export function resource(init: MessageInitShape<typeof ResourceSchema>): Resource {
  return create(ResourceSchema, init);
}

export function group(name: string, description = ""): Resource {
  return resource({ name: `groups/${name}`, spec: { case: "group", value: { description } } });
}

export function put(of: Resource): Change {
  return { name: of.name, resource: of };
}

export function remove(name: string, expectedEtag?: string): Change {
  return { name, resource: undefined, expectedEtag };
}
