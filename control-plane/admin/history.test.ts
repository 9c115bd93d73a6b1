// History, the way back and the audit trail, over real gRPC.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { credentials, InterceptingCall, type Interceptor, status } from "@grpc/grpc-js";
import { pino } from "pino";
import { AdminService } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { createClient } from "../../proto/grpc.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { type ControlPlaneOptions, startControlPlane } from "../index.ts";
import { openSqliteStore } from "../store/sqlite.ts";
import { failure } from "./test-failure.ts";

const log = pino({ level: "silent" });
const sessionKey = "a".repeat(22);

test("the history says who, why and what, page by page", async () => {
  await using plane = await start();
  await plane.apply("first", group("a"), group("b"));
  await plane.apply("second", group("a", "changed"));
  await plane.admin.deleteResource({ name: "groups/b" });
  const first = await plane.admin.listRevisions({ pageSize: 2 });
  const second = await plane.admin.listRevisions({ pageSize: 2, pageToken: first.nextPageToken });
  assert.deepEqual(
    [...first.revisions, ...second.revisions].map(({ revision, actor, reason, changeCount }) => [
      revision,
      actor,
      reason,
      changeCount,
    ]),
    [
      [3n, "claimed:alice", "delete groups/b", 1],
      [2n, "claimed:alice", "second", 1],
      [1n, "claimed:alice", "first", 2],
    ],
  );
  assert.equal(second.nextPageToken, "");
  const { revision, changes } = await plane.admin.getRevision({ revision: 2n });
  assert.deepEqual([revision?.reason, revision?.requestId], ["second", "request-2"]);
  assert.deepEqual(
    changes.map(({ action, name, before, after }) => [action, name, descriptionOf(before), descriptionOf(after)]),
    [["update", "groups/a", "", "changed"]],
  );
  assert.equal((await failure(plane.admin.getRevision({ revision: 9n }))).code, status.OUT_OF_RANGE);
  assert.equal((await failure(plane.admin.getRevision({}))).code, status.INVALID_ARGUMENT);
  assert.equal((await failure(plane.admin.listRevisions({ pageToken: "x" }))).code, status.INVALID_ARGUMENT);
});

test("a rollback is a new commit with what was declared then: changed back, brought back, taken away", async () => {
  await using plane = await start();
  await plane.apply("first", group("kept"), group("changed", "old"), group("deleted"));
  await plane.apply("second", group("changed", "new"), group("added"));
  await plane.admin.deleteResource({ name: "groups/deleted" });
  const back = await plane.admin.rollbackResources({ revision: 1n, reason: "it was better" });
  assert.deepEqual([back.restoredRevision, back.revision], [1n, 4n]);
  assert.deepEqual(
    back.changes.map(({ action, name }) => `${action} ${name}`),
    ["delete groups/added", "update groups/changed", "create groups/deleted"],
  );
  assert.deepEqual(await plane.declared(), ["groups/changed old", "groups/deleted ", "groups/kept "]);
  const [newest] = (await plane.admin.listRevisions({ pageSize: 1 })).revisions;
  assert.equal(newest?.reason, "roll back to r1: it was better");
});

test("without a revision the last change is undone, and undoing that brings it back", async () => {
  await using plane = await start();
  await plane.apply("first", group("g", "old"));
  await plane.apply("second", group("g", "new"));
  assert.equal((await plane.admin.rollbackResources({})).restoredRevision, 1n);
  assert.deepEqual(await plane.declared(), ["groups/g old"]);
  assert.equal((await plane.admin.rollbackResources({})).restoredRevision, 2n);
  assert.deepEqual(await plane.declared(), ["groups/g new"]);
});

test("a rollback neither takes a revocation back nor counts it as the last change", async () => {
  await using plane = await start();
  await plane.apply("first", group("g", "old"));
  await plane.apply("second", group("g", "new"));
  await plane.admin.revokeSessions({ session: sessionKey });
  assert.equal((await plane.admin.rollbackResources({})).restoredRevision, 1n);
  assert.deepEqual(await plane.declared(), ["groups/g old", "revocations/r3 undefined"]);
});

test("a dry run shows what a rollback would do, and a guarded one does that or nothing", async () => {
  await using plane = await start();
  await plane.apply("first", group("g", "old"));
  await plane.apply("second", group("g", "new"));
  const planned = await plane.admin.rollbackResources({ revision: 1n, validateOnly: true });
  assert.deepEqual([planned.revision, planned.changes.length, await plane.declared()], [3n, 1, ["groups/g new"]]);
  await plane.apply("third", group("h"));
  const error = await failure(plane.admin.rollbackResources({ revision: 1n, expectedRevision: 2n }));
  assert.deepEqual([error.code, error.details], [status.ABORTED, "the store is at revision 3, not 2"]);
  assert.deepEqual(await plane.declared(), ["groups/g new", "groups/h "]);
});

test("what can't be gone back to is said: nothing to undo, a revision that is to come, one that is forgotten", async () => {
  await using plane = await start();
  assert.equal((await failure(plane.admin.rollbackResources({}))).code, status.NOT_FOUND);
  const error = await failure(plane.admin.rollbackResources({ revision: 7n }));
  assert.equal(error.code, status.OUT_OF_RANGE);
  assert.match(error.details, /^can't go back to revision 7: /);
  assert.equal((await failure(plane.admin.rollbackResources({ revision: 2n ** 64n - 1n }))).code, status.OUT_OF_RANGE);
});

test("what was valid for an earlier version and is not for this one can't be gone back to", async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, "vmcp.db");
  const by = { actor: "an earlier version", method: "ApplyResources", reason: "", requestId: "" };
  const store = await openSqliteStore({ file });
  const noLongerValid = backend("no-such-group", "b");
  await store.commit([{ name: noLongerValid.name, resource: noLongerValid }], by);
  await store.commit([{ name: noLongerValid.name, resource: undefined }], by);
  await store[Symbol.asyncDispose]();
  await using plane = await start({ store: file });
  const error = await failure(plane.admin.rollbackResources({}));
  assert.deepEqual([error.code, await plane.declared()], [status.INVALID_ARGUMENT, []]);
  assert.match(error.details, /no-such-group/);
});

test("the audit trail has what was done and what was refused, in both orders, and is whole", async () => {
  await using plane = await start({ readOnlyReason: "edit the file" });
  await plane.plane.replaceAll([group("g")], "the file");
  assert.equal((await failure(plane.apply("mine", group("h"), group("i")))).code, status.FAILED_PRECONDITION);
  assert.equal((await failure(plane.admin.deleteResource({ name: "groups/g" }))).code, status.FAILED_PRECONDITION);
  assert.equal((await failure(plane.admin.rollbackResources({}))).code, status.FAILED_PRECONDITION);
  await plane.admin.revokeSessions({ session: sessionKey });
  const wanted = [
    [1n, "vmcp", "replaceAll", "allowed", "OK", 1n, ["groups/g"]],
    [2n, "claimed:alice", "ApplyResources", "denied", "READ_ONLY", 0n, ["groups/h", "groups/i"]],
    [3n, "claimed:alice", "DeleteResource", "denied", "READ_ONLY", 0n, ["groups/g"]],
    [4n, "claimed:alice", "RollbackResources", "denied", "READ_ONLY", 0n, []],
    [5n, "claimed:alice", "RevokeSessions", "allowed", "OK", 2n, ["revocations/r2"]],
  ];
  for (const oldestFirst of [true, false]) {
    for (const pageSize of [1, 2, 5, 100]) {
      const seen = await plane.trail({ oldestFirst, pageSize });
      assert.deepEqual(oldestFirst ? seen : seen.toReversed(), wanted, `${pageSize} a page, oldest first: ${oldestFirst}`);
    }
  }
  const { firstId, lastId, lastHash, fault } = await plane.admin.verifyAudit({});
  assert.deepEqual([firstId, lastId, lastHash.length, fault], [1n, 5n, 64, ""]);
});

async function start(options: Partial<ControlPlaneOptions> = {}) {
  const plane = await startControlPlane({ listen: "127.0.0.1:0", store: ":memory:", log, ...options });
  let requests = 0;
  const asAlice: Interceptor = (callOptions, nextCall) =>
    new InterceptingCall(nextCall(callOptions), {
      start(metadata, listener, next) {
        requests += 1;
        metadata.set("vmcp-actor", "alice");
        metadata.set("x-request-id", `request-${requests}`);
        next(metadata, listener);
      },
    });
  const admin = createClient(AdminService, plane.address, credentials.createInsecure(), { interceptors: [asAlice] });
  return {
    plane,
    admin,
    apply: (reason: string, ...resources: Resource[]) => admin.applyResources({ resources, reason }),
    declared: async () =>
      (await admin.listResources({})).resources.map((resource) => `${resource.name} ${descriptionOf(resource)}`),
    async trail(request: { oldestFirst: boolean; pageSize: number }) {
      const seen: unknown[] = [];
      for (let pageToken = ""; ; ) {
        const page = await admin.listAuditEvents({ ...request, pageToken });
        for (const { id, actor, method, decision, code, revision, targets } of page.events)
          seen.push([id, actor, method, decision, code, revision, targets]);
        if (page.nextPageToken === "") return seen;
        pageToken = page.nextPageToken;
      }
    },
    async [Symbol.asyncDispose]() {
      admin.close();
      await plane[Symbol.asyncDispose]();
    },
  };
}

function group(name: string, description = ""): Resource {
  return create(ResourceSchema, { name: `groups/${name}`, spec: { case: "group", value: { description } } });
}

function backend(of: string, name: string): Resource {
  const value = { name, url: "http://127.0.0.1:9/mcp" };
  return create(ResourceSchema, { name: `groups/${of}/backends/${name}`, spec: { case: "backend", value } });
}

function descriptionOf(resource: Resource | undefined): string | undefined {
  return resource?.spec.case === "group" ? resource.spec.value.description : undefined;
}
