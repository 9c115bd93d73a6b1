// FetchSnapshot, and watches that are resumed, over real gRPC.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { create, toJson } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { type FetchSnapshotResponse, FetchSnapshotResponseSchema } from "../../proto/gen/vmcp/admin/v1/snapshot_pb.ts";
import type { StreamSnapshotsResponse } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { backend, group, startAdminPlane, virtualServer } from "../../test/support/admin-plane.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { connectFakeProxy } from "../push/fake-proxy.ts";
import { failure } from "./test-failure.ts";

test("a snapshot is what proxies are given, closed and with defaults, without secrets", async () => {
  await using plane = await startAdminPlane();
  const secret = backend("g", "b", {
    url: "",
    transport: "stdio",
    command: "server",
    env: { API_TOKEN: "canary", PLAIN: "shown" },
  });
  const { version } = await plane.admin.applyResources({ resources: [group("g"), secret, virtualServer("dev", "g")] });
  const found = await plane.admin.fetchSnapshot({});
  assert.deepEqual([found.version, found.targetVersion, found.liveVersion, found.isLiveKnown], [version, version, "", false]);
  assert.deepEqual(
    found.resources.map(({ name, type }) => `${name} ${type}`),
    ["groups/g/backends/b vmcp.resource.v1.Backend", "virtualServers/dev vmcp.discovery.v1.VirtualServerConfig"],
  );
  const text = JSON.stringify(toJson(FetchSnapshotResponseSchema, found));
  assert.doesNotMatch(text, /canary/);
  assert.match(text, /"API_TOKEN":"\*\*\*","PLAIN":"shown"/);
  assert.match(text, /"prefixFormat":"\{workload\}_"/);
});

test("what a proxy runs is compared with what it should run, field by field", async () => {
  await using plane = await startAdminPlane();
  const first = await plane.admin.applyResources({ resources: [group("g"), backend("g", "b"), virtualServer("dev", "g")] });
  using proxy = connectFakeProxy(plane.plane.address, "edge");
  proxy.hello();
  proxy.ack(await proxy.next());
  await plane.admin.applyResources({ resources: [backend("g", "b", { url: "http://127.0.0.1:9/mcp" }), backend("g", "new")] });
  await proxy.next();
  const found = await plane.admin.fetchSnapshot({ proxy: "edge" });
  assert.deepEqual([found.liveVersion, found.isLiveKnown, found.version], [first.version, true, found.targetVersion]);
  assert.deepEqual(shown(found), [
    'update groups/g/backends/b url:"http://127.0.0.1:3001/mcp">"http://127.0.0.1:9/mcp"',
    "create groups/g/backends/new",
    'update virtualServers/dev backends:["groups/g/backends/b"]>["groups/g/backends/b","groups/g/backends/new"]',
  ]);
});

test("who runs nothing gets everything, and who runs the newest gets nothing", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g"), backend("g", "b"), virtualServer("dev", "g")] });
  using proxy = connectFakeProxy(plane.plane.address, "edge");
  proxy.hello();
  const response = await proxy.next();
  const names = async () =>
    (await plane.admin.fetchSnapshot({ proxy: "edge" })).diffs.map(({ action, name }) => `${action} ${name}`);
  assert.deepEqual(await names(), ["create groups/g/backends/b", "create virtualServers/dev"]);
  proxy.ack(response);
  await plane.admin.watchProxies({})[Symbol.asyncIterator]().next();
  while ((await plane.admin.listProxies({})).proxies[0]?.liveVersion === "")
    await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(await names(), []);
});

test("what an earlier process built is made again of what was declared then, and told apart by its digest", async () => {
  await using folder = await temporaryDirectory();
  const store = join(folder.path, "vmcp.db");
  let live: StreamSnapshotsResponse;
  {
    await using before = await startAdminPlane({ store });
    await before.admin.applyResources({ resources: [group("g"), backend("g", "b"), virtualServer("dev", "g")] });
    using proxy = connectFakeProxy(before.plane.address, "edge");
    proxy.hello();
    live = await proxy.next();
    await before.admin.applyResources({ resources: [backend("g", "b", { url: "http://127.0.0.1:9/mcp" })] });
  }
  await using plane = await startAdminPlane({ store });
  using known = connectFakeProxy(plane.plane.address, "edge");
  known.hello({ knownVersion: live.version, knownDigest: live.digest, storeUid: live.storeUid });
  await known.next();
  const found = await plane.admin.fetchSnapshot({ proxy: "edge" });
  assert.deepEqual(
    [found.isLiveKnown, shown(found)],
    [true, ['update groups/g/backends/b url:"http://127.0.0.1:3001/mcp">"http://127.0.0.1:9/mcp"']],
  );
  using forged = connectFakeProxy(plane.plane.address, "forged");
  forged.hello({ knownVersion: "r1-000000000000", knownDigest: new Uint8Array(32), storeUid: live.storeUid });
  await forged.next();
  const other = await plane.admin.fetchSnapshot({ proxy: "forged" });
  assert.deepEqual([other.liveVersion, other.isLiveKnown, other.diffs], ["r1-000000000000", false, []]);
});

test("a proxy that never connected is NOT_FOUND", async () => {
  await using plane = await startAdminPlane();
  assert.equal((await failure(plane.admin.fetchSnapshot({ proxy: "none" }))).code, status.NOT_FOUND);
});

test("a watch of one kind is told now and then how far it has come, so that it can be resumed", async () => {
  await using plane = await startAdminPlane();
  const events = plane.admin.watchResources({ kind: "virtualServers" })[Symbol.asyncIterator]();
  const next = async () => {
    const { type, resource, revision } = (await events.next()).value;
    return `${type} ${resource?.name ?? ""} ${revision}`;
  };
  assert.equal(await next(), "BOOKMARK  0");
  for (let count = 1; count <= 100; count += 1) await plane.admin.applyResources({ resources: [group("g", String(count))] });
  assert.equal(await next(), "BOOKMARK  100");
  await plane.admin.applyResources({ resources: [virtualServer("dev", "g")] });
  assert.equal(await next(), "ADDED virtualServers/dev 101");
  await events.return?.();
});

test("who asks is told how much of what was committed has been built", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g")] });
  const { revision, builtRevision } = await plane.admin.getServerInfo({});
  assert.deepEqual([revision, builtRevision], [1n, 1n]);
});

function shown({ diffs }: FetchSnapshotResponse): string[] {
  const json = toJson(FetchSnapshotResponseSchema, create(FetchSnapshotResponseSchema, { diffs })) as {
    diffs?: { name: string; action: string; fields?: { path: string; before?: unknown; after?: unknown }[] }[];
  };
  return (json.diffs ?? []).map(({ name, action, fields = [] }) => {
    const texts = fields.map(
      ({ path, before, after }) => ` ${path}:${JSON.stringify(before) ?? ""}>${JSON.stringify(after) ?? ""}`,
    );
    return `${action} ${name}${action === "update" ? texts.join("") : ""}`;
  });
}
