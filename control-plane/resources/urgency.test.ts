import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { isUrgent } from "./urgency.ts";

type Spec = MessageInitShape<typeof ResourceSchema>["spec"];

const server = (value: object): Spec => ({ case: "virtualServer", value });
const anonymous = { incomingAuth: { type: "anonymous" } };
const cases: readonly [what: string, name: string, before: Spec, after: Spec, wanted: boolean][] = [
  ["a revocation", "revocations/r1", undefined, { case: "revocation", value: { all: true } }, true],
  ["a revocation that is taken back", "revocations/r1", { case: "revocation", value: { all: true } }, undefined, true],
  ["another auth policy", "authPolicies/a", { case: "authPolicy", value: {} }, { case: "authPolicy", value: anonymous }, true],
  ["other callers", "virtualServers/a", server(anonymous), server({ incomingAuth: { type: "local" } }), true],
  ["another policy for a server", "virtualServers/a", server({ authPolicyRef: "a" }), server({ authPolicyRef: "b" }), true],
  ["no auth any more", "virtualServers/a", server(anonymous), server({}), true],
  ["another group", "virtualServers/a", server({ ...anonymous, groupRef: "a" }), server({ ...anonymous, groupRef: "b" }), false],
  ["a new virtual server", "virtualServers/a", undefined, server(anonymous), false],
  ["a backend", "groups/g/backends/b", undefined, { case: "backend", value: {} }, false],
];
for (const [what, name, before, after, wanted] of cases) {
  test(`${what} ${wanted ? "does not wait" : "waits for what comes along"}`, () => {
    assert.equal(isUrgent({ name, before: resource(name, before), after: resource(name, after) }), wanted);
  });
}

function resource(name: string, spec: Spec): Resource | undefined {
  return spec === undefined ? undefined : create(ResourceSchema, { name, spec });
}
