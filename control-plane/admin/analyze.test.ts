// AnalyzeConfig over real gRPC.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { type AnalyzeConfigResponse, FindingSeverity } from "../../proto/gen/vmcp/admin/v1/analyze_pb.ts";
import { BackendStatusSchema, VirtualServerViewSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { backend, group, startAdminPlane, virtualServer } from "../../test/support/admin-plane.ts";
import { eventually } from "../../test/support/eventually.ts";
import { connectFakeProxy } from "../push/fake-proxy.ts";
import { failure } from "./test-failure.ts";

test("what is declared is looked through, with what is given as if it were applied", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g"), backend("g", "b"), group("unused"), virtualServer("dev", "g")] });
  const stored = await plane.admin.analyzeConfig({});
  assert.deepEqual(
    [codesOf(stored), stored.revision, stored.resourceCount, stored.proxies],
    [["VMCP0102 groups/unused "], 1n, 4, []],
  );
  const given = [
    virtualServer("other", "unused", { authPolicyRef: "none", incomingAuth: undefined, outgoingAuth: undefined } as never),
  ];
  const merged = await plane.admin.analyzeConfig({ resources: given });
  assert.deepEqual(codesOf(merged), ["VMCP0101 virtualServers/other authPolicyRef", "VMCP0104 virtualServers/other groupRef"]);
  assert.deepEqual(merged.findings[0]?.severity, FindingSeverity.ERROR);
  assert.equal((await plane.admin.getServerInfo({})).revision, 1n);
  assert.equal((await failure(plane.admin.analyzeConfig({ resources: [{ name: "nope" }] }))).code, status.INVALID_ARGUMENT);
});

test("what proxies report counts", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g"), backend("g", "b"), virtualServer("dev", "g")] });
  using proxy = connectFakeProxy(plane.plane.address, "edge");
  proxy.hello();
  proxy.ack(await proxy.next());
  const entries = [{ kind: "tool", exposed: "", backend: "b", original: "echo", decidedBy: "shadowed" }];
  proxy.report({
    views: [create(VirtualServerViewSchema, { virtualServer: "dev", entries })],
    backends: [create(BackendStatusSchema, { name: "groups/g/backends/b", state: "unhealthy", error: "connection refused" })],
  });
  const found = await eventually("the report is there", async () => {
    const answer = await plane.admin.analyzeConfig({});
    return answer.findings.length > 0 && answer;
  });
  assert.deepEqual(
    [codesOf(found), found.proxies],
    [["VMCP0401 groups/g/backends/b ", "VMCP0202 virtualServers/dev aggregation.conflictResolution"], ["edge"]],
  );
  assert.match(found.findings[0]?.message ?? "", /connection refused/);
});

function codesOf({ findings }: AnalyzeConfigResponse): string[] {
  return findings.map(({ code, resource, path }) => `${code} ${resource} ${path}`);
}
