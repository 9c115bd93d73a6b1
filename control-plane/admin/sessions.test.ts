// Listing and revoking sessions, over real gRPC against a whole control plane.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { anyUnpack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { credentials, status } from "@grpc/grpc-js";
import { pino } from "pino";
import { AdminService, RevokeSessionsRequestSchema } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { RevocationsSchema, type StreamSnapshotsResponse } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { createClient } from "../../proto/grpc.ts";
import { type ControlPlaneOptions, startControlPlane } from "../index.ts";
import { connectFakeProxy } from "../push/fake-proxy.ts";
import { revoke } from "./sessions.ts";
import { failure } from "./test-failure.ts";

const log = pino({ level: "silent" });
const key = "k".repeat(22);
const hourMs = 60 * 60_000;

test("a revocation reaches proxies with the revision of its commit as its epoch", async () => {
  await using plane = await start();
  await plane.plane.replaceAll([group("g")], "test");
  using proxy = connectFakeProxy(plane.plane.address, "p");
  proxy.hello();
  proxy.ack(await proxy.next());
  const made = await plane.admin.revokeSessions({ session: key, reason: "stolen" });
  assert.deepEqual([made.revision, made.name], [2n, "revocations/r2"]);
  const pushed = await proxy.next();
  assert.equal(pushed.version, made.version);
  assert.deepEqual(epochs(pushed), ["2 session"]);
  const { resource } = await plane.admin.getResource({ name: made.name });
  assert.deepEqual([resource?.revision, resource?.spec.case === "revocation" && resource.spec.value.reason], [2n, "stolen"]);
  assert.deepEqual(await plane.revocations(), ["revocations/r2"]);
});

test("the same session revoked twice has two epochs, since it may have been opened in between", async () => {
  await using plane = await start();
  const first = await plane.admin.revokeSessions({ subject: "alice" });
  const second = await plane.admin.revokeSessions({ subject: "alice" });
  assert.deepEqual([first.revision, second.revision], [1n, 2n]);
  assert.deepEqual(await plane.revocations(), ["revocations/r1", "revocations/r2"]);
});

test("a read-only control plane revokes and takes back, and its own configuration leaves revocations alone", async () => {
  await using plane = await start({ readOnlyReason: "edit vmcp.yaml instead" });
  await plane.plane.replaceAll([group("g")], "file");
  const { name } = await plane.admin.revokeSessions({ all: true });
  await plane.plane.replaceAll([group("h")], "file");
  assert.deepEqual(await plane.revocations(), [name]);
  await plane.admin.deleteResource({ name });
  assert.deepEqual(await plane.revocations(), []);
  assert.equal((await failure(plane.admin.deleteResource({ name: "groups/h" }))).code, status.FAILED_PRECONDITION);
});

test("a dry run says what would be made, and makes nothing", async () => {
  await using plane = await start();
  const planned = await plane.admin.revokeSessions({ session: key, validateOnly: true });
  assert.deepEqual([planned.revision, planned.name], [1n, "revocations/r1"]);
  assert.deepEqual(await plane.revocations(), []);
  const made = await plane.admin.revokeSessions({ session: key });
  assert.deepEqual([made.name, made.version], [planned.name, planned.version]);
});

test("a request that means nobody, or too much, is refused with every reason", async () => {
  await using plane = await start();
  for (const [request, wanted] of [
    [{}, /no session is named/],
    [{ session: key, subject: "alice" }, /found session and subject, wanted one of them/],
    [{ session: "short", issuer: "https://idp" }, /session: .*and 1 more/],
    [{ subject: "alice", virtualServer: "dev" }, /virtualServer goes with all/],
    [{ subject: "x".repeat(2_000) }, /1 to 1024 characters/],
  ] as const) {
    const error = await failure(plane.admin.revokeSessions(request));
    assert.equal(error.code, status.INVALID_ARGUMENT);
    assert.match(error.details, wanted);
  }
  const unknown = await failure(plane.admin.revokeSessions({ all: true, virtualServer: "nope" }));
  assert.deepEqual([unknown.code, unknown.details], [status.NOT_FOUND, 'there is no "virtualServers/nope"']);
  assert.deepEqual(await plane.revocations(), []);
});

test("a revocation can't be applied, not even the one that is there", async () => {
  await using plane = await start();
  const { name } = await plane.admin.revokeSessions({ session: key });
  const { resource } = await plane.admin.getResource({ name });
  assert.ok(resource);
  for (const resources of [[resource], [group("g"), { ...resource, name: "revocations/mine" }]]) {
    const error = await failure(plane.admin.applyResources({ resources }));
    assert.equal(error.code, status.INVALID_ARGUMENT);
    assert.match(error.details, /sessions are revoked by RevokeSessions/);
  }
  assert.equal((await plane.admin.listResources({})).resources.length, 1);
});

test("after 24 hours a revocation goes with the commit of the next one", async () => {
  let nowMs = 1_000 * hourMs;
  await using plane = await start({ nowMs: () => nowMs });
  await plane.admin.revokeSessions({ subject: "first" });
  nowMs += 24 * hourMs;
  await plane.admin.revokeSessions({ subject: "second" });
  assert.deepEqual(await plane.revocations(), ["revocations/r1", "revocations/r2"], "24 hours are not over");
  nowMs += 1;
  const third = await plane.admin.revokeSessions({ subject: "third" });
  assert.deepEqual([third.revision, await plane.revocations()], [3n, ["revocations/r2", "revocations/r3"]]);
});

test("10,000 revocations are the most, and those that are over make room", async () => {
  const nowMs = 1_000 * hourMs;
  const made = (count: number, timeMs: number) =>
    Array.from({ length: count }, (_, at) =>
      create(ResourceSchema, {
        name: `revocations/r${at}`,
        createTime: timestampFromMs(timeMs),
        spec: { case: "revocation", value: {} },
      }),
    );
  const { plan } = revoke(create(RevokeSessionsRequestSchema, { all: true }), () => nowMs);
  const added = (resources: readonly Resource[]) =>
    plan({ revision: 20_000n, resources }).flatMap(({ name, resource }) => (resource ? [name] : []));
  assert.throws(() => added(made(10_000, nowMs)), { reason: "TOO_MANY_REVOCATIONS", message: /^10000 / });
  assert.deepEqual(added(made(9_999, nowMs)), ["revocations/r20001"]);
  assert.deepEqual(added(made(10_000, nowMs - 25 * hourMs)), ["revocations/r20001"]);
});

test("sessions are listed as proxies report them, and who stays silent is named", async () => {
  await using plane = await start();
  using proxy = connectFakeProxy(plane.plane.address, "p");
  proxy.hello({ features: ["sessions-query"] });
  proxy.ack(await proxy.next());
  using old = connectFakeProxy(plane.plane.address, "old");
  old.hello();
  old.ack(await old.next());
  const listed = plane.admin.listSessions({ virtualServer: "dev", limit: 5_000 });
  const { payload } = await proxy.next();
  assert.equal(payload.case, "sessionsQuery");
  assert.deepEqual([payload.value.virtualServer, payload.value.limit], ["dev", 1000]);
  proxy.sessions({ queryId: payload.value.id, sessions: [{ key, virtualServer: "dev", clientName: "c", streams: 1 }] });
  const { sessions, missing, unable } = await listed;
  assert.deepEqual(
    [sessions.map(({ key, clientName, proxies }) => [key, clientName, proxies]), missing, unable],
    [[[key, "c", ["p"]]], [], ["old"]],
  );
  const unanswered = plane.admin.listSessions({});
  await proxy.next();
  proxy.leave();
  assert.deepEqual((await unanswered).missing, ["p"]);
  assert.equal((await failure(plane.admin.listSessions({ limit: -1 }))).code, status.INVALID_ARGUMENT);
});

async function start(options: Partial<ControlPlaneOptions> = {}) {
  const plane = await startControlPlane({ listen: "127.0.0.1:0", store: ":memory:", log, ...options });
  const admin = createClient(AdminService, plane.address, credentials.createInsecure());
  return {
    plane,
    admin,
    revocations: async () => (await admin.listResources({ kind: "revocations" })).resources.map(({ name }) => name),
    async [Symbol.asyncDispose]() {
      admin.close();
      await plane[Symbol.asyncDispose]();
    },
  };
}

/** `2 session`: the epoch and what is set. */
function epochs({ payload }: StreamSnapshotsResponse): string[] {
  assert.equal(payload.case, "snapshot");
  const body = payload.value.resources.find(({ name }) => name === "revocations")?.body;
  assert.ok(body);
  const entries = anyUnpack(body, RevocationsSchema)?.entries ?? [];
  return entries.map(({ epoch, session }) => `${epoch} ${session === "" ? "" : "session"}`);
}

function group(name: string): Resource {
  return create(ResourceSchema, { name: `groups/${name}`, spec: { case: "group", value: {} } });
}
