// ExplainRoute over real gRPC.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { RouteOutcome } from "../../proto/gen/vmcp/admin/v1/route_pb.ts";
import { BackendStatusSchema, VirtualServerViewSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { backend, group, startAdminPlane, virtualServer } from "../../test/support/admin-plane.ts";
import { eventually } from "../../test/support/eventually.ts";
import { connectFakeProxy } from "../push/fake-proxy.ts";
import { failure } from "./test-failure.ts";

test("a route is explained from what is declared and what proxies report", async () => {
  await using plane = await startAdminPlane();
  const incomingAuth = {
    type: "oidc",
    oidc: { issuer: "https://idp.example.com", audience: "gateway", requiredScopes: ["use"] },
  } as never;
  await plane.admin.applyResources({ resources: [group("g"), backend("g", "b"), virtualServer("dev", "g", { incomingAuth })] });
  const ask = { virtualServer: "dev", tool: "b_echo", claims: { sub: "alice", scope: "use" } };
  assert.equal((await plane.admin.explainRoute(ask)).outcome, RouteOutcome.UNKNOWN);
  using proxy = connectFakeProxy(plane.plane.address, "edge");
  proxy.hello();
  proxy.ack(await proxy.next());
  const entries = [{ kind: "tool", exposed: "b_echo", backend: "b", original: "echo", decidedBy: "prefix" }];
  proxy.report({
    views: [create(VirtualServerViewSchema, { virtualServer: "dev", entries })],
    backends: [create(BackendStatusSchema, { name: "groups/g/backends/b", state: "degraded", error: "slow" })],
  });
  const found = await eventually("the report is there", async () => {
    const answer = await plane.admin.explainRoute(ask);
    return answer.outcome === RouteOutcome.ROUTED && answer;
  });
  const { proxy: by, backend: to, original, health } = found;
  assert.deepEqual([by, to, original], ["edge", "groups/g/backends/b", "echo"]);
  assert.deepEqual(
    health.map((one) => [one.proxy, one.state, one.error]),
    [["edge", "degraded", "slow"]],
  );
  assert.equal((await plane.admin.explainRoute({ ...ask, claims: { sub: "alice" } })).outcome, RouteOutcome.DENIED);
  assert.equal((await failure(plane.admin.explainRoute({ ...ask, virtualServer: "none" }))).code, status.NOT_FOUND);
  assert.equal((await failure(plane.admin.explainRoute({ virtualServer: "dev" }))).code, status.INVALID_ARGUMENT);
});
