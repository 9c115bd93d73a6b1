// What goes over the wire: changes where a proxy can take them and its base is known, everything otherwise.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ProxyState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { NackReason, type StreamSnapshotsResponse } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { FakeProxy } from "./fake-proxy.ts";
import { heard, startTestPlane as start, summary, type TestPlane } from "./test-plane.ts";

const features = ["delta", "parts"];
const large = { a: "a".repeat(500), b: "b".repeat(500), c: "c".repeat(500) };

test("what changed and what went is sent to all that have the base, in the same bytes", async () => {
  await using plane = await start();
  using one = await synced(plane, "one");
  using two = await synced(plane, "two");
  plane.fleet.retarget(plane.target(2, { a: large.a, b: "changed", d: "new" }));
  const response = await one.next();
  assert.deepEqual(contentOf(response), { base: "r1", upserts: ["b", "d"], removals: ["c"] });
  one.ack(response);
  const other = await two.next();
  assert.deepEqual([summary(other), other.nonce], ["r2 delta", response.nonce]);
});

test("a proxy that did not say that it takes changes gets everything", async () => {
  await using plane = await start();
  using proxy = await synced(plane, "old", []);
  plane.fleet.retarget(plane.target(2, { ...large, b: "changed" }));
  assert.equal(summary(await proxy.next()), "r2 snapshot");
});

test("changes that are no smaller than the whole are sent as the whole", async () => {
  await using plane = await start();
  using proxy = await synced(plane, "a");
  plane.fleet.retarget(plane.target(2, { a: "z".repeat(500), b: "z".repeat(500), c: "z".repeat(500) }));
  assert.equal(summary(await proxy.next()), "r2 snapshot");
});

test("a proxy that comes back with a version of late gets what changed since", async () => {
  await using plane = await start();
  const first = plane.target(1, large);
  plane.fleet.retarget(first);
  for (const revision of [2, 3]) plane.fleet.retarget(plane.target(revision, { ...large, b: String(revision) }));
  using proxy = plane.connect("a");
  proxy.hello({ features, knownVersion: "r1", knownDigest: first.digest, storeUid: "store" });
  assert.deepEqual(contentOf(await proxy.next()), { base: "r1", upserts: ["b"], removals: [] });
});

for (const [what, answer] of [
  ["a Nack with BASE_MISMATCH", (proxy, response) => proxy.nack(response, { reason: NackReason.BASE_MISMATCH })],
  ["a Nack with DIGEST_MISMATCH", (proxy, response) => proxy.nack(response, { reason: NackReason.DIGEST_MISMATCH })],
  ["an Ack with another digest", (proxy, response) => proxy.ack(response, { digest: Buffer.alloc(32, 9) })],
] as readonly (readonly [string, (proxy: FakeProxy, response: StreamSnapshotsResponse) => void])[]) {
  test(`${what} after a change is answered with everything, and is no refusal`, async () => {
    await using plane = await start();
    using proxy = await synced(plane, "a");
    plane.fleet.retarget(plane.target(2, { ...large, b: "changed" }));
    const delta = await proxy.next();
    assert.equal(summary(delta), "r2 delta");
    answer(proxy, delta);
    const full = await proxy.next();
    assert.equal(summary(full), "r2 snapshot");
    // The first answer again, out of order: it is for something that is not on the way any more.
    answer(proxy, delta);
    proxy.ack(full);
    assert.equal(await plane.state("a", ProxyState.SYNCED), "SYNCED");
    assert.equal(plane.fleet.proxies()[0]?.lastNack, undefined);
    assert.equal(plane.fleet.rollout().refused.length, 0);
  });
}

test("a refused version is not sent again, not in five seconds either", async () => {
  await using plane = await start();
  using proxy = await synced(plane, "a");
  plane.fleet.retarget(plane.target(2, { ...large, b: "bad" }));
  proxy.nack(await proxy.next(), { reason: NackReason.INVALID_RESOURCE });
  await plane.state("a", ProxyState.NACKED);
  let sent = 0;
  const next = proxy.next().then((response) => {
    sent += 1;
    return response;
  });
  next.catch(() => undefined); // it waits for 5 s at most, as long as we do
  await sleep(5_100);
  await heard(plane, proxy);
  assert.equal(sent, 0);
});

test("a snapshot that is too large for one message comes in parts, and is answered once", async () => {
  await using plane = await start();
  const content = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`r${i}`, String(i).repeat(1024 * 1024)]));
  plane.fleet.retarget(plane.target(1, content));
  using proxy = plane.connect("a");
  proxy.hello({ features });
  const parts: StreamSnapshotsResponse[] = [await proxy.next()];
  const [first] = parts;
  assert.ok(first?.payload.case === "snapshot");
  while (parts.length < first.payload.value.parts) parts.push(await proxy.next());
  assert.ok(parts.length > 3, String(parts.length));
  const names = parts.flatMap(({ payload }) =>
    payload.case === "snapshot" ? payload.value.resources.map(({ name }) => name) : [],
  );
  assert.deepEqual(new Set(names), new Set(Object.keys(content)));
  assert.deepEqual(
    parts.map(({ nonce, payload }) => [nonce, payload.case === "snapshot" && payload.value.part]),
    parts.map((_, i) => [first.nonce, i]),
  );
  proxy.ack(first);
  assert.equal(await plane.state("a", ProxyState.SYNCED), "SYNCED");
});

/** A proxy that runs r1, which has `large`. */
async function synced(plane: TestPlane, id: string, can: string[] = features): Promise<FakeProxy> {
  if (plane.fleet.target() === undefined) plane.fleet.retarget(plane.target(1, large));
  const proxy = plane.connect(id);
  proxy.hello({ features: can });
  proxy.ack(await proxy.next());
  await plane.state(id, ProxyState.SYNCED);
  return proxy;
}

function contentOf({ payload }: StreamSnapshotsResponse): unknown {
  if (payload.case !== "delta") return payload.case;
  const { baseVersion, upserts, removals } = payload.value;
  return { base: baseVersion, upserts: upserts.map(({ name }) => name), removals };
}
