// Create, update, and what holds for every change: dry runs, and ids of requests.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { type AdminService, AdminService as service } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Client } from "../../proto/grpc.ts";
import { backend, detailsOf, group, startAdminPlane, virtualServer } from "../../test/support/admin-plane.ts";
import { whyMissing } from "../../test/support/debian.ts";
import { startPostgres } from "../../test/support/postgres.ts";
import { failure } from "./test-failure.ts";

type Admin = Client<typeof AdminService>;

const noPostgres = await whyMissing("postgres", "postgresql");
const bareBackend = (value: MessageInitShape<typeof ResourceSchema>["spec"]) =>
  create(ResourceSchema, { name: "groups/g/backends/b", ...(value && { spec: value }) });

test("a resource is created once", async () => {
  await using plane = await startAdminPlane();
  const { resource, revision } = await plane.admin.createResource({ resource: group("g", "first") });
  assert.deepEqual([resource?.name, resource?.etag.length, revision], ["groups/g", 32, 1n]);
  const error = await failure(plane.admin.createResource({ resource: group("g", "second") }));
  assert.equal(error.code, status.ALREADY_EXISTS);
  const { reason, resource: about } = detailsOf(error);
  assert.deepEqual([reason, about, await descriptionOf(plane.admin)], ["ALREADY_EXISTS", "groups/g", "first"]);
  assert.equal((await failure(plane.admin.createResource({}))).code, status.INVALID_ARGUMENT);
});

const before = { url: "http://127.0.0.1:1/mcp", transport: "sse", metadata: { team: "a", tier: "1" } };

for (const [what, spec, paths, wanted] of [
  ["one field", { url: "http://127.0.0.1:2/mcp" }, ["backend.url"], { ...before, url: "http://127.0.0.1:2/mcp" }],
  ["a field that is unset is cleared", {}, ["backend.metadata"], { ...before, metadata: {} }],
  ["a map as a whole", { metadata: { team: "b" } }, ["backend.metadata"], { ...before, metadata: { team: "b" } }],
  [
    "several fields, and none that is not named",
    { url: "http://127.0.0.1:2/mcp", transport: "streamable-http", metadata: { team: "b" } },
    ["backend.url", "backend.transport"],
    { ...before, url: "http://127.0.0.1:2/mcp", transport: "streamable-http" },
  ],
  ["without a mask all that is set", { metadata: { team: "b" } }, undefined, { ...before, metadata: { team: "b" } }],
  [
    "* everything",
    { name: "b", url: "http://127.0.0.1:3/mcp" },
    ["*"],
    { url: "http://127.0.0.1:3/mcp", transport: "", metadata: {} },
  ],
  ["what only the control plane sets is passed over", {}, ["etag", "create_time", "name"], before],
] as const) {
  test(`an update changes ${what}`, async () => {
    await using plane = await startAdminPlane();
    await plane.admin.applyResources({ resources: [group("g"), backend("g", "b", before)] });
    const resource = bareBackend({ case: "backend", value: spec });
    const { change, revision } = await plane.admin.updateResource({
      resource,
      ...(paths && { updateMask: { paths: [...paths] } }),
    });
    const isSame = wanted === before;
    assert.deepEqual([change?.action, revision], isSame ? ["unchanged", 1n] : ["update", 2n]);
    const { resource: stored } = await plane.admin.getResource({ name: "groups/g/backends/b" });
    assert.equal(stored?.spec.case, "backend");
    const { url, transport, metadata } = stored.spec.value;
    assert.deepEqual({ url, transport, metadata }, wanted);
  });
}

test("an update reaches into what is nested, with a mask and without", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g"), virtualServer("dev", "g")] });
  const nested = (value: object) =>
    create(ResourceSchema, { name: "virtualServers/dev", spec: { case: "virtualServer", value } });
  await plane.admin.updateResource({ resource: nested({ operational: { failureHandling: { unhealthyThreshold: 7 } } }) });
  await plane.admin.updateResource({
    resource: nested({ operational: { timeouts: { default: { seconds: 5n } } } }),
    updateMask: { paths: ["virtual_server.operational.timeouts.default", "virtual_server.telemetry.endpoint"] },
  });
  const { resource } = await plane.admin.getResource({ name: "virtualServers/dev" });
  assert.equal(resource?.spec.case, "virtualServer");
  const { operational, aggregation, telemetry } = resource.spec.value;
  assert.deepEqual(
    [operational?.failureHandling?.unhealthyThreshold, operational?.timeouts?.default?.seconds, aggregation?.conflictResolution],
    [7, 5n, "prefix"],
  );
  assert.equal(telemetry, undefined);
});

test("every path that names nothing is refused at once", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g"), backend("g", "b")] });
  const paths = ["backend.urll", "nope", "backend.url", "*", "backend.metadata.team", "group.description", "backend.url.host"];
  const error = await failure(
    plane.admin.updateResource({ resource: bareBackend({ case: "backend", value: {} }), updateMask: { paths } }),
  );
  assert.equal(error.code, status.INVALID_ARGUMENT);
  assert.deepEqual(
    detailsOf(error).fields,
    [0, 1, 3, 4, 5, 6].map((at) => `update_mask.paths[${at}]`),
  );
});

test("what is not there is updated only with allow_missing, and then created whole", async () => {
  await using plane = await startAdminPlane();
  const request = { resource: group("g", "made"), updateMask: { paths: ["group.description"] } };
  assert.equal((await failure(plane.admin.updateResource(request))).code, status.NOT_FOUND);
  const { change } = await plane.admin.updateResource({ ...request, allowMissing: true });
  assert.deepEqual([change?.action, await descriptionOf(plane.admin)], ["create", "made"]);
  const bare = {
    resource: create(ResourceSchema, { name: "groups/h" }),
    updateMask: { paths: ["group.description"] },
    allowMissing: true,
  };
  assert.deepEqual(detailsOf(await failure(plane.admin.updateResource(bare))).fields, ["resources[0].spec"]);
});

test("an update with an etag is for what was seen", async () => {
  await using plane = await startAdminPlane();
  const { resource: seen } = await plane.admin.createResource({ resource: group("g", "one") });
  await plane.admin.updateResource({ resource: { ...group("g", "two"), etag: seen?.etag ?? "" } });
  const error = await failure(plane.admin.updateResource({ resource: { ...group("g", "three"), etag: seen?.etag ?? "" } }));
  assert.deepEqual([error.code, detailsOf(error).preconditions], [status.ABORTED, ["ETAG_MISMATCH groups/g"]]);
  assert.equal(await descriptionOf(plane.admin), "two");
});

test("the rules hold for what an update would make of it", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("g"), virtualServer("dev", "g")] });
  const value = { aggregation: { conflictResolution: "prefx" } };
  const resource = create(ResourceSchema, { name: "virtualServers/dev", spec: { case: "virtualServer", value } });
  const error = await failure(plane.admin.updateResource({ resource }));
  assert.deepEqual(detailsOf(error).fields, ["virtualServers/dev.aggregation.conflictResolution"]);
});

test("applying with prune deletes the rest, guarded by the revision that was seen", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.applyResources({ resources: [group("a"), group("b"), backend("b", "x")] });
  await plane.admin.revokeSessions({ subject: "alice" });
  const request = { resources: [group("a", "kept")], prune: true };
  const stale = await failure(plane.admin.applyResources({ ...request, expectedRevision: 1n }));
  assert.deepEqual([stale.code, detailsOf(stale).reason], [status.ABORTED, "REVISION_MISMATCH"]);
  const { changes } = await plane.admin.applyResources({ ...request, expectedRevision: 2n });
  assert.deepEqual(
    changes.map(({ action, name }) => `${action} ${name}`),
    ["update groups/a", "delete groups/b", "delete groups/b/backends/x"],
  );
  assert.deepEqual(await names(plane.admin), ["groups/a", "revocations/r2"]);
  assert.deepEqual(detailsOf(await failure(plane.admin.applyResources({ prune: true }))).fields, ["prune"]);
});

/** Each method that changes something, with a request that does. */
const writes: readonly (readonly [
  string,
  (admin: Admin, by: { requestId?: string; validateOnly?: boolean }) => Promise<{ revision: bigint }>,
])[] = [
  ["ApplyResources", (admin, by) => admin.applyResources({ resources: [group("new"), group("g")], ...by })],
  ["CreateResource", (admin, by) => admin.createResource({ resource: group("new"), ...by })],
  ["UpdateResource", (admin, by) => admin.updateResource({ resource: group("g", "changed"), ...by })],
  ["DeleteResource", (admin, by) => admin.deleteResource({ name: "groups/unused", ...by })],
  ["RollbackResources", (admin, by) => admin.rollbackResources({ revision: 0n, ...by })],
  ["RevokeSessions", (admin, by) => admin.revokeSessions({ subject: "alice", ...by })],
];

test("every method that changes something is in the table below", () => {
  const writing = service.methods.filter(
    ({ input }) => input.field.validateOnly !== undefined && input.field.requestId !== undefined,
  );
  assert.deepEqual(new Set(writing.map(({ name }) => name)), new Set(writes.map(([name]) => name)));
});

for (const [name, write] of writes) {
  test(`${name}: a dry run answers as the call would, and spends no revision`, async () => {
    await using plane = await startAdminPlane();
    await plane.admin.applyResources({ resources: [group("g"), group("unused")] });
    const requestId = randomUUID();
    const planned = await write(plane.admin, { validateOnly: true, requestId });
    assert.deepEqual([planned.revision, await names(plane.admin)], [2n, ["groups/g", "groups/unused"]]);
    const done = await write(plane.admin, { requestId });
    assert.deepEqual(withoutTimes(planned), withoutTimes(done));
  });

  test(`${name}: the same request is done once, and answered the same for an hour`, async () => {
    let nowMs = 1_000_000;
    await using plane = await startAdminPlane({ nowMs: () => nowMs });
    await plane.admin.applyResources({ resources: [group("g"), group("unused")] });
    const requestId = randomUUID();
    const [first, atOnce] = await Promise.all([write(plane.admin, { requestId }), write(plane.admin, { requestId })]);
    assert.deepEqual(atOnce, first);
    await plane.admin.applyResources({ resources: [group("other")] });
    nowMs += 3_599_999;
    assert.deepEqual(await write(plane.admin, { requestId: requestId.toUpperCase() }), first);
    assert.equal((await plane.admin.getServerInfo({})).revision, 3n);
  });
}

test("another request under the same id is refused, and so is what is no UUID", async () => {
  await using plane = await startAdminPlane();
  const requestId = randomUUID();
  await plane.admin.createResource({ resource: group("g"), requestId });
  for (const other of [
    plane.admin.createResource({ resource: group("h"), requestId }),
    plane.admin.createResource({ resource: group("g"), reason: "another", requestId }),
    plane.admin.updateResource({ resource: group("g"), requestId }),
  ]) {
    const error = await failure(other);
    const { reason, fields } = detailsOf(error);
    assert.deepEqual([error.code, reason, fields], [status.INVALID_ARGUMENT, "REQUEST_ID_REUSED", ["request_id"]]);
  }
  const error = await failure(plane.admin.createResource({ resource: group("h"), requestId: "first try" }));
  assert.deepEqual([error.code, detailsOf(error).fields], [status.INVALID_ARGUMENT, ["request_id"]]);
  assert.deepEqual(await names(plane.admin), ["groups/g"]);
});

test("a request that failed may be made again with its id", async () => {
  await using plane = await startAdminPlane();
  const requestId = randomUUID();
  const request = { resource: group("g", "new"), requestId };
  assert.equal((await failure(plane.admin.updateResource(request))).code, status.NOT_FOUND);
  await plane.admin.createResource({ resource: group("g") });
  assert.equal((await plane.admin.updateResource(request)).change?.action, "update");
});

test("a request that changed nothing is not done later either", async () => {
  await using plane = await startAdminPlane();
  await plane.admin.createResource({ resource: group("g", "same") });
  const request = { resources: [group("g", "same")], requestId: randomUUID() };
  const first = await plane.admin.applyResources(request);
  await plane.admin.updateResource({ resource: group("g", "later") });
  assert.deepEqual(await plane.admin.applyResources(request), first);
  assert.equal(await descriptionOf(plane.admin), "later");
});

test("the id of a request stands in the history and in the audit trail", async () => {
  await using plane = await startAdminPlane();
  const requestId = randomUUID();
  await plane.admin.createResource({ resource: group("g"), requestId });
  assert.equal((await plane.admin.listRevisions({})).revisions[0]?.requestId, requestId);
  assert.equal((await plane.admin.listAuditEvents({})).events[0]?.requestId, requestId);
});

test("on one store, the same request to two control planes at once is done once", { skip: noPostgres }, async () => {
  await using postgres = await startPostgres();
  const store = postgres.freshUrl();
  await using one = await startAdminPlane({ store });
  await using two = await startAdminPlane({ store });
  for (let round = 1; round <= 20; round += 1) {
    const requestId = randomUUID();
    const [first, second] = await Promise.all(
      [one, two].map(({ admin }) => admin.createResource({ resource: group(`g${round}`), requestId })),
    );
    assert.deepEqual([second?.resource, second?.revision], [first?.resource, BigInt(round)]);
  }
  assert.equal((await one.admin.listRevisions({ pageSize: 100 })).revisions.length, 20);
});

async function names(admin: Admin): Promise<string[]> {
  return (await admin.listResources({})).resources.map(({ name }) => name);
}

async function descriptionOf(admin: Admin): Promise<string | false> {
  const { resource } = await admin.getResource({ name: "groups/g" });
  return resource?.spec.case === "group" && resource.spec.value.description;
}

/** Only a commit knows when it was. */
function withoutTimes(answer: unknown): unknown {
  const keep = (key: string, value: unknown) =>
    key === "createTime" || key === "updateTime" ? undefined : typeof value === "bigint" ? String(value) : value;
  return JSON.parse(JSON.stringify(answer as Resource, keep));
}
