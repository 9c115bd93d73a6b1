// DiffResources over real gRPC.
import assert from "node:assert/strict";
import { test } from "node:test";
import { toJson } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { type DiffResourcesResponse, FieldDiffSchema } from "../../proto/gen/vmcp/admin/v1/diff_pb.ts";
import { backend, detailsOf, group, startAdminPlane, virtualServer } from "../../test/support/admin-plane.ts";
import { connectFakeProxy } from "../push/fake-proxy.ts";
import { failure } from "./test-failure.ts";

test("a diff names every change field by field, and changes nothing", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g"), backend("g", "b"), group("gone"), virtualServer("dev", "g")] });
  await plane.admin.revokeSessions({ subject: "alice" });
  const resources = [
    group("g"),
    backend("g", "b", { url: "http://127.0.0.1:9/mcp" }),
    group("new", "made"),
    virtualServer("dev", "g"),
  ];
  const diff = await plane.admin.diffResources({ resources, prune: true });
  assert.deepEqual(shown(diff), [
    "unchanged groups/g",
    'update groups/g/backends/b url:"http://127.0.0.1:3001/mcp">"http://127.0.0.1:9/mcp"',
    "delete groups/gone",
    'create groups/new description:>"made"',
    "unchanged virtualServers/dev",
  ]);
  assert.equal(diff.revision, 2n);
  const { resource } = await plane.admin.getResource({ name: "groups/g/backends/b" });
  assert.equal(diff.diffs[1]?.etag, resource?.etag);
  assert.deepEqual([(await plane.admin.getServerInfo({})).revision, resource?.revision], [2n, 1n]);
});

test("a diff says which proxies would get another snapshot: those connected, or none", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g"), virtualServer("dev", "g")] });
  using one = connectFakeProxy(plane.plane.address, "one");
  one.hello();
  one.ack(await one.next());
  const concerned = async (...resources: ReturnType<typeof group>[]) => (await plane.admin.diffResources({ resources })).proxies;
  assert.deepEqual(await concerned(backend("g", "b")), ["one"]);
  assert.deepEqual(await concerned(group("g", "for people")), []);
  assert.deepEqual(await concerned(group("g")), []);
});

test("what could not be applied can't be compared, and every violation is named", async () => {
  await using plane = await startAdminPlane();
  const wrong = virtualServer("dev", "g", { authPolicyRef: "missing", aggregation: { conflictResolution: "prefx" } });
  const error = await failure(plane.admin.diffResources({ resources: [wrong, backend("none", "b")] }));
  assert.equal(error.code, status.INVALID_ARGUMENT);
  const { reason, fields } = detailsOf(error);
  assert.equal(reason, "INVALID_RESOURCES");
  for (const field of ["virtualServers/dev.aggregation.conflictResolution", "groups/none/backends/b.group"])
    assert.ok(fields.includes(field), fields.join());
  assert.deepEqual(detailsOf(await failure(plane.admin.diffResources({ prune: true }))).fields, ["prune"]);
});

function shown({ diffs }: DiffResourcesResponse): string[] {
  return diffs.map(({ name, action, fields }) => {
    const texts = fields.map((field) => {
      const { path = "", before, after } = toJson(FieldDiffSchema, field) as Record<string, string>;
      return ` ${path}:${JSON.stringify(before) ?? ""}>${JSON.stringify(after) ?? ""}`;
    });
    return `${action} ${name}${texts.join("")}`;
  });
}
