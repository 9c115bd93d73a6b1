// The admin API over real gRPC, against a whole control plane.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { credentials, type ServiceError, status } from "@grpc/grpc-js";
import { pino } from "pino";
import { BadRequestSchema, ErrorInfoSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import {
  AdminService,
  ProxyState,
  type WatchProxiesResponse,
  type WatchResourcesResponse,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { VirtualServerViewSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { type Client, createClient } from "../../proto/grpc.ts";
import { type ControlPlane, type ControlPlaneOptions, startControlPlane } from "../index.ts";
import { connectFakeProxy } from "../push/fake-proxy.ts";
import { failure } from "./test-failure.ts";

const log = pino({ level: "silent" });

test("an applied set is committed as one, listed, and named by the version that proxies get", async () => {
  await using plane = await start();
  using proxy = connectFakeProxy(plane.address, "p");
  proxy.hello();
  proxy.ack(await proxy.next());
  const applied = await plane.admin.applyResources({ resources: [group("g"), backend("g", "b"), virtualServer("dev", "g")] });
  assert.deepEqual(
    applied.changes.map(({ action, name }) => `${action} ${name}`),
    ["create groups/g", "create groups/g/backends/b", "create virtualServers/dev"],
  );
  assert.equal(applied.revision, 1n);
  const pushed = await proxy.next();
  assert.equal(pushed.version, applied.version);
  const { resources, revision } = await plane.admin.listResources({});
  assert.deepEqual([resources.length, revision], [3, 1n]);
});

test("applying the same again changes nothing and pushes nothing", async () => {
  await using plane = await start();
  const first = await plane.admin.applyResources({ resources: [group("g"), virtualServer("dev", "g")] });
  const again = await plane.admin.applyResources({ resources: [group("g"), virtualServer("dev", "g")] });
  assert.deepEqual([again.revision, again.version], [first.revision, first.version]);
  assert.deepEqual(new Set(again.changes.map(({ action }) => action)), new Set(["unchanged"]));
});

test("a commit that means nothing to proxies keeps their version", async () => {
  await using plane = await start();
  const first = await plane.admin.applyResources({ resources: [group("g"), virtualServer("dev", "g")] });
  const second = await plane.admin.applyResources({ resources: [group("g", "for people")] });
  assert.equal(second.revision, 2n);
  assert.equal(second.version, first.version);
});

test("a dry run says what would change and changes nothing", async () => {
  await using plane = await start();
  const planned = await plane.admin.applyResources({ resources: [group("g")], validateOnly: true });
  assert.deepEqual([planned.changes[0]?.action, planned.revision], ["create", 1n]);
  assert.deepEqual((await plane.admin.listResources({})).resources, []);
});

test("every violation of a bad set comes back at once, and nothing is committed", async () => {
  await using plane = await start();
  const wrong = [create(ResourceSchema, { name: "nope" }), { ...group("g"), name: "virtualServers/v" }, group("h"), group("h")];
  const error = await failure(plane.admin.applyResources({ resources: wrong }));
  assert.equal(error.code, status.INVALID_ARGUMENT);
  const { reason, fields } = detailsOf(error);
  assert.equal(reason, "INVALID_REQUEST");
  assert.deepEqual(fields, ["resources[0].name", "resources[1].spec", "resources[3].name"]);
  assert.deepEqual((await plane.admin.listResources({})).resources, []);
});

test("the rules of the configuration hold for the admin API", async () => {
  await using plane = await start();
  const bad = create(ResourceSchema, {
    name: "virtualServers/dev",
    spec: {
      case: "virtualServer",
      value: { name: "dev", groupRef: "g", authPolicyRef: "missing", aggregation: { conflictResolution: "prefx" } },
    },
  });
  const error = await failure(plane.admin.applyResources({ resources: [group("g"), bad] }));
  assert.equal(error.code, status.INVALID_ARGUMENT);
  const { reason, fields } = detailsOf(error);
  assert.equal(reason, "INVALID_RESOURCES");
  assert.ok(fields.includes("virtualServers/dev.aggregation.conflictResolution"), fields.join());
});

test("an etag guards against changes that were not seen", async () => {
  await using plane = await start();
  await plane.admin.applyResources({ resources: [group("g", "one")] });
  const { resource: seen } = await plane.admin.getResource({ name: "groups/g" });
  assert.ok(seen);
  await plane.admin.applyResources({ resources: [group("g", "two")] });
  const stale = { ...group("g", "three"), etag: seen.etag };
  const error = await failure(plane.admin.applyResources({ resources: [stale] }));
  assert.equal(error.code, status.ABORTED);
  assert.equal((await failure(plane.admin.deleteResource({ name: "groups/g", etag: seen.etag }))).code, status.ABORTED);
});

test("what does not exist is NOT_FOUND, and what can't exist INVALID_ARGUMENT", async () => {
  await using plane = await start();
  assert.equal((await failure(plane.admin.getResource({ name: "groups/none" }))).code, status.NOT_FOUND);
  assert.equal((await failure(plane.admin.deleteResource({ name: "groups/none" }))).code, status.NOT_FOUND);
  assert.equal((await failure(plane.admin.getResource({ name: "groups/../x" }))).code, status.INVALID_ARGUMENT);
  assert.equal((await failure(plane.admin.listResources({ kind: "teapots" }))).code, status.INVALID_ARGUMENT);
  assert.equal((await failure(plane.admin.listResources({ pageSize: -1 }))).code, status.INVALID_ARGUMENT);
  assert.equal((await failure(plane.admin.listResources({ pageToken: "???" }))).code, status.INVALID_ARGUMENT);
  assert.equal((await failure(plane.admin.listView({ virtualServer: "none" }))).code, status.NOT_FOUND);
});

test("a group with backends is deleted only with force, and then with them", async () => {
  await using plane = await start();
  await plane.admin.applyResources({ resources: [group("g"), backend("g", "a"), backend("g", "b")] });
  const error = await failure(plane.admin.deleteResource({ name: "groups/g" }));
  assert.equal(error.code, status.FAILED_PRECONDITION);
  assert.match(error.details, /groups\/g\/backends\/a/);
  const { changes } = await plane.admin.deleteResource({ name: "groups/g", force: true });
  assert.deepEqual(
    changes.map(({ name }) => name),
    ["groups/g", "groups/g/backends/a", "groups/g/backends/b"],
  );
});

test("an auth policy that a virtual server names can't be deleted", async () => {
  await using plane = await start();
  const incomingAuth = { type: "anonymous" };
  const outgoingAuth = { source: "inline", default: { type: "unauthenticated" } };
  const policy = create(ResourceSchema, {
    name: "authPolicies/open",
    spec: { case: "authPolicy", value: { incomingAuth, outgoingAuth } },
  });
  const value = { name: "dev", groupRef: "g", authPolicyRef: "open", aggregation: { conflictResolution: "prefix" } };
  const server = create(ResourceSchema, { name: "virtualServers/dev", spec: { case: "virtualServer", value } });
  await plane.admin.applyResources({ resources: [group("g"), policy, server] });
  const error = await failure(plane.admin.deleteResource({ name: "authPolicies/open" }));
  assert.equal(error.code, status.FAILED_PRECONDITION);
  assert.equal(detailsOf(error).reason, "IN_USE");
});

test("pages show one revision, whatever is committed between them", async () => {
  await using plane = await start();
  await plane.admin.applyResources({ resources: ["a", "b", "c", "d"].map((name) => group(name, "old")) });
  const first = await plane.admin.listResources({ kind: "groups", pageSize: 2 });
  await plane.admin.applyResources({ resources: [group("c", "new"), group("bb")] });
  await plane.admin.deleteResource({ name: "groups/d" });
  const second = await plane.admin.listResources({ kind: "groups", pageSize: 2, pageToken: first.nextPageToken });
  const shown = [...first.resources, ...second.resources].map(({ name, spec }) => [
    name,
    spec.case === "group" && spec.value.description,
  ]);
  assert.deepEqual(shown, [
    ["groups/a", "old"],
    ["groups/b", "old"],
    ["groups/c", "old"],
    ["groups/d", "old"],
  ]);
  assert.deepEqual([second.revision, second.nextPageToken], [first.revision, ""]);
});

test("a list is narrowed by kind and by group", async () => {
  await using plane = await start();
  await plane.admin.applyResources({
    resources: [group("g"), group("h"), backend("g", "a"), backend("h", "b"), virtualServer("dev", "g")],
  });
  const namesOf = async (request: { kind?: string; group?: string }) =>
    (await plane.admin.listResources(request)).resources.map(({ name }) => name);
  assert.deepEqual(await namesOf({ kind: "backends" }), ["groups/g/backends/a", "groups/h/backends/b"]);
  assert.deepEqual(await namesOf({ kind: "backends", group: "h" }), ["groups/h/backends/b"]);
  assert.deepEqual(await namesOf({ kind: "virtualServers" }), ["virtualServers/dev"]);
});

test("a watch shows what is there, a bookmark, and then every change", async () => {
  await using plane = await start();
  await plane.admin.applyResources({ resources: [group("a")] });
  const events = plane.admin.watchResources({ kind: "groups" })[Symbol.asyncIterator]();
  const next = async () => eventText((await events.next()).value);
  assert.deepEqual([await next(), await next()], ["ADDED groups/a 1", "BOOKMARK  1"]);
  await plane.admin.applyResources({ resources: [group("a", "x"), group("b"), backend("b", "not-watched")] });
  await plane.admin.deleteResource({ name: "groups/a" });
  assert.deepEqual([await next(), await next(), await next()], ["MODIFIED groups/a 2", "ADDED groups/b 2", "DELETED groups/a 3"]);
  await events.return?.();
});

test("a watch resumes after a revision, and refuses one that is not kept", async () => {
  await using plane = await start();
  for (const description of ["1", "2", "3"]) await plane.admin.applyResources({ resources: [group("a", description)] });
  const events = plane.admin.watchResources({ revision: 2n })[Symbol.asyncIterator]();
  assert.equal(eventText((await events.next()).value), "BOOKMARK  2");
  assert.equal(eventText((await events.next()).value), "MODIFIED groups/a 3");
  await events.return?.();
  const future = plane.admin.watchResources({ revision: 99n })[Symbol.asyncIterator]();
  await assert.rejects(future.next(), { code: status.OUT_OF_RANGE });
});

test("proxies and their views are listed and watched", async () => {
  await using plane = await start();
  await plane.admin.applyResources({ resources: [group("g"), virtualServer("dev", "g")] });
  const updates = plane.admin.watchProxies({})[Symbol.asyncIterator]();
  const until = async (wanted: ProxyState) => {
    for (;;) {
      const { proxies }: WatchProxiesResponse = (await updates.next()).value;
      if (proxies[0]?.state === wanted) return;
    }
  };
  using proxy = connectFakeProxy(plane.address, "p");
  proxy.hello();
  const response = await proxy.next();
  await until(ProxyState.PENDING);
  const entries = [{ kind: "tool", exposed: "b_echo", backend: "b", original: "echo", decidedBy: "prefix" }];
  proxy.report({ views: [create(VirtualServerViewSchema, { virtualServer: "dev", entries })] });
  proxy.ack(response);
  await until(ProxyState.SYNCED);
  const { views, proxy: by } = await plane.admin.listView({ virtualServer: "dev" });
  assert.deepEqual([by, views[0]?.entries[0]?.exposed], ["p", "b_echo"]);
  assert.equal((await plane.admin.listProxies({})).targetVersion, response.version);
  await updates.return?.();
});

test("a read-only control plane refuses changes with its reason, but not dry runs and not its own", async () => {
  await using plane = await start({ readOnlyReason: "edit vmcp.yaml instead" });
  const error = await failure(plane.admin.applyResources({ resources: [group("g")] }));
  assert.deepEqual([error.code, error.details], [status.FAILED_PRECONDITION, "edit vmcp.yaml instead"]);
  assert.equal((await failure(plane.admin.deleteResource({ name: "groups/g" }))).code, status.FAILED_PRECONDITION);
  await plane.admin.applyResources({ resources: [group("g")], validateOnly: true });
  const replaced = await plane.plane.replaceAll([group("g")], "file");
  assert.equal(replaced.revision, 1n);
  assert.equal((await plane.admin.getServerInfo({})).readOnlyReason, "edit vmcp.yaml instead");
});

test("replaceAll makes the set exactly that", async () => {
  await using plane = await start();
  await plane.plane.replaceAll([group("a"), group("b", "old")], "first");
  const { changes } = await plane.plane.replaceAll([group("b", "new"), group("c")], "second");
  assert.deepEqual(
    changes.map(({ action, name }) => `${action} ${name}`),
    ["update groups/b", "create groups/c", "delete groups/a"],
  );
  await assert.rejects(plane.plane.replaceAll([create(ResourceSchema, { name: "nope" })], "third"), {
    code: "invalid_resources",
  });
  assert.equal((await plane.admin.listResources({})).resources.length, 2);
});

test("a snapshot that proxies could not take is refused before it is committed", async () => {
  await using plane = await start();
  // Each call stays below the limit of one message; what they add up to does not.
  const padding = "x".repeat(1_000_000);
  for (const part of [1, 2, 3, 4, 5]) {
    const backends = [1, 2, 3].map((at) => backend("g", `b${part}${at}`, padding));
    const resources = part === 1 ? [group("g"), virtualServer("dev", "g"), ...backends] : backends;
    await plane.admin.applyResources({ resources });
  }
  const error = await failure(
    plane.admin.applyResources({ resources: [1, 2, 3].map((at) => backend("g", `last${at}`, padding)) }),
  );
  assert.equal(detailsOf(error).reason, "SNAPSHOT_TOO_LARGE");
  assert.equal((await plane.admin.getServerInfo({})).revision, 5n);
});

interface Running extends AsyncDisposable {
  readonly address: string;
  readonly plane: ControlPlane;
  readonly admin: Client<typeof AdminService>;
}

async function start(options: Partial<ControlPlaneOptions> = {}): Promise<Running> {
  const plane = await startControlPlane({ listen: "127.0.0.1:0", store: ":memory:", log, ...options });
  const admin = createClient(AdminService, plane.address, credentials.createInsecure());
  return {
    address: plane.address,
    plane,
    admin,
    async [Symbol.asyncDispose]() {
      admin.close();
      await plane[Symbol.asyncDispose]();
    },
  };
}

function detailsOf(error: ServiceError): { reason: string | undefined; fields: string[] } {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  assert.ok(bytes instanceof Buffer);
  const { details } = fromBinary(StatusSchema, bytes);
  const [info] = details.flatMap((any) => anyUnpack(any, ErrorInfoSchema) ?? []);
  const [bad] = details.flatMap((any) => anyUnpack(any, BadRequestSchema) ?? []);
  return { reason: info?.reason, fields: bad?.fieldViolations.map(({ field }) => field) ?? [] };
}

function eventText({ type, resource, revision }: WatchResourcesResponse): string {
  return `${type} ${resource?.name ?? ""} ${revision}`;
}

function group(name: string, description = ""): Resource {
  return create(ResourceSchema, { name: `groups/${name}`, spec: { case: "group", value: { description } } });
}

function backend(ofGroup: string, name: string, note = ""): Resource {
  const value = { name, url: "http://127.0.0.1:3001/mcp", transport: "streamable-http", metadata: note === "" ? {} : { note } };
  return create(ResourceSchema, { name: `groups/${ofGroup}/backends/${name}`, spec: { case: "backend", value } });
}

function virtualServer(name: string, groupRef: string): Resource {
  const value = {
    name,
    groupRef,
    incomingAuth: { type: "anonymous" },
    outgoingAuth: { source: "inline", default: { type: "unauthenticated" } },
    aggregation: { conflictResolution: "prefix" },
  };
  return create(ResourceSchema, { name: `virtualServers/${name}`, spec: { case: "virtualServer", value } });
}
