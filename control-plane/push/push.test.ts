// The push protocol, between the real server and a scripted proxy over loopback.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { ProxyState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { NackReason, VirtualServerViewSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { FakeProxy } from "./fake-proxy.ts";
import { heard, manualClock, startTestPlane as start, summary } from "./test-plane.ts";

test("a proxy gets the snapshot after its Hello, and is SYNCED with its Ack", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  const response = await proxy.next();
  assert.deepEqual(summary(response), "r1 snapshot");
  assert.equal(await plane.state("a", ProxyState.PENDING), "PENDING");
  proxy.ack(response, { warnings: ["telemetry has no effect"] });
  assert.equal(await plane.state("a", ProxyState.SYNCED), "SYNCED");
  const [row] = plane.fleet.proxies();
  assert.deepEqual([row?.liveVersion, row?.targetVersion, row?.warnings], ["r1", "r1", ["telemetry has no effect"]]);
});

test("before the first build a stream is refused with UNAVAILABLE", async () => {
  await using plane = await start();
  using proxy = plane.connect("a");
  proxy.hello();
  assert.equal((await proxy.ended).code, status.UNAVAILABLE);
});

for (const [name, first, code] of [
  ["a report before the Hello", (proxy: FakeProxy) => proxy.report({ liveVersion: "r1" }), status.INVALID_ARGUMENT],
  ["a Hello without an id", (proxy: FakeProxy) => proxy.hello({ node: undefined as never }), status.INVALID_ARGUMENT],
  [
    "a Hello of a schema from the future",
    (proxy: FakeProxy) => proxy.hello({ schemaMin: 9, schemaMax: 12 }),
    status.FAILED_PRECONDITION,
  ],
  ["a second Hello", (proxy: FakeProxy) => [proxy.hello(), proxy.hello()], status.INVALID_ARGUMENT],
] as const) {
  test(`${name} ends the stream`, async () => {
    await using plane = await start();
    plane.fleet.retarget(plane.target(1));
    using proxy = plane.connect("a");
    first(proxy);
    assert.equal((await proxy.ended).code, code);
  });
}

test("a proxy that runs the newest version already is told so, without the snapshot", async () => {
  await using plane = await start();
  const target = plane.target(3);
  plane.fleet.retarget(target);
  using proxy = plane.connect("a");
  proxy.hello({ knownVersion: "r3", knownDigest: target.digest, storeUid: "store" });
  assert.equal(summary(await proxy.next()), "r3 upToDate");
  assert.equal(await plane.state("a", ProxyState.SYNCED), "SYNCED");
});

test("the same version of another store, or with another digest, is sent in full", async () => {
  await using plane = await start();
  const target = plane.target(3);
  plane.fleet.retarget(target);
  using foreign = plane.connect("foreign");
  foreign.hello({ knownVersion: "r3", knownDigest: target.digest, storeUid: "another" });
  assert.equal(summary(await foreign.next()), "r3 snapshot");
  using drifted = plane.connect("drifted");
  drifted.hello({ knownVersion: "r3", knownDigest: Buffer.alloc(32, 9), storeUid: "store" });
  assert.equal(summary(await drifted.next()), "r3 snapshot");
});

test("one response is on the way at a time, and what follows is the newest, not the next", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  const first = await proxy.next();
  for (const revision of [2, 3, 4]) plane.fleet.retarget(plane.target(revision));
  proxy.ack(first);
  const second = await proxy.next();
  assert.equal(summary(second), "r4 snapshot");
  proxy.ack(second);
  assert.equal(await plane.state("a", ProxyState.SYNCED), "SYNCED");
});

test("an Ack that repeats, or that answers something else, changes nothing", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  const first = await proxy.next();
  proxy.ack(first);
  await plane.state("a", ProxyState.SYNCED);
  plane.fleet.retarget(plane.target(2));
  const second = await proxy.next();
  proxy.ack(first);
  proxy.ack(second, { nonce: second.nonce + 100n });
  await heard(plane, proxy);
  assert.equal(plane.fleet.proxies()[0]?.state, ProxyState.PENDING);
  proxy.ack(second);
  assert.equal(await plane.state("a", ProxyState.SYNCED), "SYNCED");
});

test("a refused version is shown with its reason, not sent again, and forgotten with the next good one", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  proxy.ack(await proxy.next());
  await plane.state("a", ProxyState.SYNCED);
  plane.fleet.retarget(plane.target(2));
  const bad = await proxy.next();
  const error = { $typeName: "google.rpc.Status", code: 3, message: "env:TOKEN is not set", details: [] } as const;
  proxy.nack(bad, { reason: NackReason.INVALID_RESOURCE, error: { ...error, details: [] } });
  assert.equal(await plane.state("a", ProxyState.NACKED), "NACKED");
  const [row] = plane.fleet.proxies();
  assert.deepEqual(
    [row?.liveVersion, row?.lastNack?.version, row?.lastNack?.error?.message],
    ["r1", "r2", "env:TOKEN is not set"],
  );
  // The same target again, as after a rebuild: were it sent, it would be the next response.
  plane.fleet.retarget(plane.target(2));
  await heard(plane, proxy);
  plane.fleet.retarget(plane.target(3));
  const good = await proxy.next();
  assert.equal(summary(good), "r3 snapshot");
  proxy.ack(good);
  await plane.state("a", ProxyState.SYNCED);
  assert.equal(plane.fleet.proxies()[0]?.lastNack, undefined);
});

test("an Ack with another digest gets the snapshot once more, and then counts as refused", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  const first = await proxy.next();
  proxy.ack(first, { digest: Buffer.alloc(32, 7) });
  const again = await proxy.next();
  assert.equal(summary(again), "r1 snapshot");
  assert.notEqual(again.nonce, first.nonce);
  proxy.ack(again, { digest: Buffer.alloc(32, 7) });
  assert.equal(await plane.state("a", ProxyState.NACKED), "NACKED");
  assert.equal(plane.fleet.proxies()[0]?.lastNack?.reason, NackReason.DIGEST_MISMATCH);
});

test("a silent proxy becomes STALE, is sent the newest once more, and then loses its stream", async () => {
  const clock = manualClock();
  await using plane = await start({ clock });
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  await proxy.next();
  plane.fleet.retarget(plane.target(2));
  clock.advance(30_000);
  assert.equal(summary(await proxy.next()), "r2 snapshot");
  assert.equal(await plane.state("a", ProxyState.STALE), "STALE");
  clock.advance(30_000);
  assert.equal((await proxy.ended).code, status.DEADLINE_EXCEEDED);
  assert.equal(await plane.state("a", ProxyState.DISCONNECTED), "DISCONNECTED");
});

test("a late Ack of the first sending still counts after the second", async () => {
  const clock = manualClock();
  await using plane = await start({ clock });
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  const first = await proxy.next();
  clock.advance(30_000);
  await proxy.next();
  proxy.ack(first);
  assert.equal(await plane.state("a", ProxyState.SYNCED), "SYNCED");
  assert.equal(plane.fleet.proxies()[0]?.ackMillis, 30_000);
});

test("a stream without a Hello is not kept", async () => {
  const clock = manualClock();
  await using plane = await start({ clock });
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  await clock.waited();
  clock.advance(10_000);
  assert.equal((await proxy.ended).code, status.DEADLINE_EXCEEDED);
});

test("a newer stream of the same proxy replaces the older", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using older = plane.connect("a");
  older.hello();
  await older.next();
  using newer = plane.connect("a", "2");
  newer.hello();
  const response = await newer.next();
  assert.equal((await older.ended).code, status.ABORTED);
  newer.ack(response);
  assert.equal(await plane.state("a", ProxyState.SYNCED), "SYNCED");
  assert.deepEqual(
    plane.fleet.proxies().map(({ node }) => node?.instanceId),
    ["2"],
  );
});

test("all proxies get the same bytes", async () => {
  await using plane = await start();
  const target = plane.target(1);
  plane.fleet.retarget(target);
  using a = plane.connect("a");
  using b = plane.connect("b");
  a.hello();
  b.hello();
  assert.equal((await a.next()).nonce, (await b.next()).nonce);
  assert.equal(target.full(false).messages[0], target.full(true).messages[0]);
});

test("a proxy that leaves stays listed as DISCONNECTED", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  proxy.ack(await proxy.next());
  await plane.state("a", ProxyState.SYNCED);
  proxy.leave();
  assert.equal(await plane.state("a", ProxyState.DISCONNECTED), "DISCONNECTED");
  assert.equal(plane.fleet.proxies()[0]?.liveVersion, "r1");
});

test("a full table forgets who left first, and refuses when all are connected", async () => {
  await using plane = await start({ proxiesMax: 2 });
  plane.fleet.retarget(plane.target(1));
  using a = plane.connect("a");
  a.hello();
  await a.next();
  a.leave();
  await plane.state("a", ProxyState.DISCONNECTED);
  using b = plane.connect("b");
  b.hello();
  await b.next();
  using c = plane.connect("c");
  c.hello();
  await c.next();
  assert.deepEqual(
    plane.fleet.proxies().map(({ node }) => node?.id),
    ["b", "c"],
  );
  using d = plane.connect("d");
  d.hello();
  assert.equal((await d.ended).code, status.RESOURCE_EXHAUSTED);
});

test("reports are kept; views stay until a report brings others", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using proxy = plane.connect("a");
  proxy.hello();
  proxy.ack(await proxy.next());
  const entries = [{ kind: "tool", exposed: "b_echo", backend: "b", original: "echo", decidedBy: "prefix" }];
  proxy.report({ activeSessions: 7, views: [create(VirtualServerViewSchema, { virtualServer: "dev", entries })] });
  proxy.report({ activeSessions: 8, views: [] });
  await plane.until(() => plane.fleet.proxies()[0]?.activeSessions === 8);
  const { proxy: by, views } = plane.fleet.views();
  assert.deepEqual([by, views[0]?.virtualServer, views[0]?.entries[0]?.exposed], ["a", "dev", "b_echo"]);
});
