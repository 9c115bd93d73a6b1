import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { pino } from "pino";
import { type Resource, ResourceSchema } from "../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { startControlPlane } from "./index.ts";
import { connectFakeProxy } from "./push/fake-proxy.ts";

const log = pino({ level: "silent" });
const inMemory = { listen: "127.0.0.1:0", store: ":memory:", log };

test("a taken port is said in one line", async () => {
  await using first = await startControlPlane(inMemory);
  await assert.rejects(startControlPlane({ ...inMemory, listen: first.address }), {
    code: "address_in_use",
    message: `${first.address} is taken by another process`,
  });
});

for (const [listen, code] of [
  ["0.0.0.0:0", "address_not_loopback"],
  ["[::]:0", "address_not_loopback"],
  ["10.1.2.3:7400", "address_not_loopback"],
  ["localhost.example.com:7400", "address_not_loopback"],
  ["7400", "address_invalid"],
  ["127.0.0.1:99999", "address_invalid"],
  ["", "address_invalid"],
] as const) {
  test(`"${listen}" is refused: ${code}`, async () => {
    await assert.rejects(startControlPlane({ ...inMemory, listen }), { code });
  });
}

test("a store that can't be opened is said in one line", async () => {
  await assert.rejects(startControlPlane({ ...inMemory, store: "/proc/none/vmcp.db" }), { code: "store_unusable" });
});

test("after a restart a proxy that runs the newest version is told so, without the snapshot", async () => {
  const folder = await mkdtemp(join(tmpdir(), "vmcp-plane-"));
  try {
    const options = { ...inMemory, store: join(folder, "vmcp.db") };
    const before = await startControlPlane(options);
    await before.replaceAll([group("g"), virtualServer("dev")], "test");
    using first = connectFakeProxy(before.address, "p");
    first.hello();
    const { version, digest, storeUid } = await first.next();
    await before[Symbol.asyncDispose]();
    assert.equal((await first.ended).code, status.UNAVAILABLE);

    await using after = await startControlPlane(options);
    using again = connectFakeProxy(after.address, "p");
    again.hello({ knownVersion: version, knownDigest: digest, storeUid });
    const answer = await again.next();
    assert.deepEqual([answer.payload.case, answer.version], ["upToDate", version]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a proxy that has the content from another control plane, under another revision, is left with it", async () => {
  await using plane = await startControlPlane(inMemory);
  await plane.replaceAll([group("g"), virtualServer("dev")], "test");
  using first = connectFakeProxy(plane.address, "p");
  first.hello();
  const { version, digest, storeUid } = await first.next();
  using moved = connectFakeProxy(plane.address, "q");
  moved.hello({ knownVersion: version.replace("r1-", "r2-"), knownDigest: digest, storeUid });
  const answer = await moved.next();
  assert.deepEqual([answer.payload.case, answer.version], ["upToDate", version]);
});

test("a burst of commits is one push", async () => {
  await using plane = await startControlPlane(inMemory);
  using proxy = connectFakeProxy(plane.address, "p");
  proxy.hello();
  proxy.ack(await proxy.next());
  const names = ["a", "b", "c", "d", "e"];
  const done = names.map((_, at) => plane.replaceAll([group("g"), ...names.slice(0, at + 1).map(virtualServer)], "test"));
  const versions = new Set((await Promise.all(done)).map(({ version }) => version));
  assert.equal(versions.size, 1);
  const pushed = await proxy.next();
  assert.deepEqual(versions, new Set([pushed.version]));
  assert.equal(pushed.payload.case === "snapshot" && pushed.payload.value.resources.length, 5);
});

test("an emptied declaration reaches the proxies, because somebody deleted it", async () => {
  await using plane = await startControlPlane(inMemory);
  await plane.replaceAll([group("g"), virtualServer("dev")], "test");
  using proxy = connectFakeProxy(plane.address, "p");
  proxy.hello();
  proxy.ack(await proxy.next());
  const { version } = await plane.replaceAll([], "test");
  const pushed = await proxy.next();
  assert.equal(pushed.version, version);
  assert.equal(pushed.payload.case === "snapshot" && pushed.payload.value.resources.length, 0);
});

test("what this version can't protect is refused, though it is valid", async () => {
  await using plane = await startControlPlane(inMemory);
  const guarded = create(ResourceSchema, {
    name: "virtualServers/dev",
    spec: {
      case: "virtualServer",
      value: {
        name: "dev",
        groupRef: "g",
        incomingAuth: { type: "anonymous", authz: { type: "cedar", policies: ["permit(principal, action, resource);"] } },
        outgoingAuth: { source: "inline" },
        aggregation: { conflictResolution: "prefix" },
      },
    },
  });
  await assert.rejects(plane.replaceAll([group("g"), guarded], "test"), { code: "invalid_resources" });
});

function group(name: string): Resource {
  return create(ResourceSchema, { name: `groups/${name}`, spec: { case: "group", value: {} } });
}

function virtualServer(name: string): Resource {
  const value = {
    name,
    groupRef: "g",
    incomingAuth: { type: "anonymous" },
    outgoingAuth: { source: "inline", default: { type: "unauthenticated" } },
    aggregation: { conflictResolution: "prefix" },
  };
  return create(ResourceSchema, { name: `virtualServers/${name}`, spec: { case: "virtualServer", value } });
}
