// Who gets a new version when, and who does not.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ProxyState, RolloutState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { NackReason } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { FakeProxy } from "./fake-proxy.ts";
import { heard, manualClock, snapshotResource, startTestPlane as start, summary, type TestPlane } from "./test-plane.ts";

const refusal = {
  reason: NackReason.INVALID_RESOURCE,
  error: { $typeName: "google.rpc.Status" as const, code: 3, message: "env:TOKEN is not set", details: [] },
};

test("one proxy gets a new version first, and the others when it has taken it", async () => {
  await using plane = await start();
  await using fleet = await synced(plane, "abc");
  plane.fleet.retarget(plane.target(2));
  const tried = await fleet.a.next();
  assert.equal(summary(tried), "r2 snapshot");
  assert.deepEqual(statesOf(plane), { a: "PENDING", b: "HELD", c: "HELD" });
  assert.deepEqual(shown(plane), { state: RolloutState.CANARY, canaries: ["a"], acknowledged: 0, pending: 1, held: 2 });
  fleet.a.ack(tried);
  for (const proxy of [fleet.b, fleet.c]) proxy.ack(await proxy.next());
  await plane.state("b", ProxyState.SYNCED);
  await plane.state("c", ProxyState.SYNCED);
  assert.deepEqual(shown(plane), { state: RolloutState.COMPLETE, canaries: ["a"], acknowledged: 3, pending: 0, held: 0 });
  assert.equal(plane.fleet.rollout().approvedVersion, "r2");
});

test("of thirty proxies, three are tried, and each of them has to take it", async () => {
  await using plane = await start();
  const ids = Array.from({ length: 30 }, (_, i) => `p${String(i).padStart(2, "0")}`);
  await using fleet = await synced(plane, ids);
  plane.fleet.retarget(plane.target(2));
  const tried = ids.slice(0, 3).map((id) => fleet[id] as FakeProxy);
  const responses = await Promise.all(tried.map((proxy) => proxy.next()));
  assert.deepEqual(plane.fleet.rollout().canaries, ["p00", "p01", "p02"]);
  for (const at of [0, 1]) tried[at]?.ack(responses[at] as never);
  await plane.until(() => plane.fleet.rollout().acknowledged === 2);
  assert.equal(plane.fleet.rollout().held, 27);
  tried[2]?.ack(responses[2] as never);
  assert.equal(summary(await (fleet.p29 as FakeProxy).next()), "r2 snapshot");
});

test("a refusal halts it: the others keep what they have, who comes gets that too, and another revision goes on", async () => {
  await using plane = await start();
  await using fleet = await synced(plane, "abc");
  plane.fleet.retarget(plane.target(2));
  fleet.a.nack(await fleet.a.next(), refusal);
  await plane.state("a", ProxyState.NACKED);
  const { state, reason, refused, approvedVersion } = plane.fleet.rollout();
  assert.deepEqual([state, approvedVersion], [RolloutState.HALTED, "r1"]);
  assert.match(reason, /^a refused r2: env:TOKEN is not set$/);
  assert.deepEqual(
    refused.map(({ node }) => node?.id),
    ["a"],
  );
  using late = plane.connect("late");
  late.hello();
  const given = await late.next();
  assert.equal(summary(given), "r1 snapshot");
  late.ack(given);
  assert.equal(await plane.state("late", ProxyState.HELD), "HELD");
  await heard(plane, fleet.b);
  // Were r2 sent to anybody, it would be the next response there.
  plane.fleet.retarget(plane.target(3));
  const next = await fleet.b.next();
  assert.equal(summary(next), "r3 snapshot", "one that has not refused anything is tried now");
  fleet.b.ack(next);
  for (const proxy of [fleet.a, fleet.c, late]) {
    const response = await proxy.next();
    assert.equal(summary(response), "r3 snapshot");
    proxy.ack(response);
  }
  await plane.until(() => plane.fleet.rollout().state === RolloutState.COMPLETE);
});

test("a proxy that refused and was started anew is asked again; when it takes it the others get it", async () => {
  await using plane = await start();
  await using fleet = await synced(plane, "ab");
  const bad = plane.target(2);
  plane.fleet.retarget(bad);
  fleet.a.nack(await fleet.a.next(), refusal);
  await plane.state("a", ProxyState.NACKED);
  fleet.a.leave();
  await plane.state("a", ProxyState.DISCONNECTED);
  // The stream alone is another one: it keeps what it has, and is told so.
  const { digest } = plane.target(1);
  using same = plane.connect("a", "1");
  same.hello({ knownVersion: "r1", knownDigest: digest, storeUid: "store" });
  assert.equal(summary(await same.next()), "r1 upToDate");
  using restarted = plane.connect("a", "2");
  restarted.hello({ knownVersion: "r1", knownDigest: digest, storeUid: "store" });
  const again = await restarted.next();
  assert.equal(summary(again), "r2 snapshot");
  restarted.ack(again);
  assert.equal(summary(await fleet.b.next()), "r2 snapshot");
});

test("one that is silent for 2 s is replaced; a version that silences proxies silences four", async () => {
  const clock = manualClock();
  await using plane = await start({ clock });
  await using fleet = await synced(plane, "abcdefg");
  plane.fleet.retarget(plane.target(2));
  for (const id of "abcd") {
    assert.equal(summary(await (fleet[id] as FakeProxy).next()), "r2 snapshot", id);
    clock.advance(2_000);
  }
  await heard(plane, fleet.e);
  assert.deepEqual(statesOf(plane), { ...of("abcd", "PENDING"), ...of("efg", "HELD") });
  assert.equal(plane.fleet.rollout().state, RolloutState.CANARY);
  plane.fleet.retarget(plane.target(3));
  assert.deepEqual(plane.fleet.rollout().canaries.length, 1, "another revision begins anew");
});

test("one that leaves while it is tried is replaced", async () => {
  await using plane = await start();
  await using fleet = await synced(plane, "ab");
  plane.fleet.retarget(plane.target(2));
  await fleet.a.next();
  fleet.a.leave();
  const response = await fleet.b.next();
  assert.equal(summary(response), "r2 snapshot");
  fleet.b.ack(response);
  await plane.until(() => plane.fleet.rollout().state === RolloutState.COMPLETE);
});

test("a revocation goes to all at once, and a halted rollout does not hold it back", async () => {
  await using plane = await start();
  await using fleet = await synced(plane, "ab");
  plane.fleet.retarget(plane.target(2, { only: "of r1", revocations: "one" }));
  // Nobody is tried first: both have it before either has answered.
  const [one, two] = [await fleet.a.next(), await fleet.b.next()];
  assert.deepEqual([summary(one), summary(two)], ["r2 snapshot", "r2 snapshot"]);
  fleet.a.ack(one);
  fleet.b.ack(two);
  await plane.until(() => plane.fleet.rollout().state === RolloutState.COMPLETE);

  plane.fleet.retarget(plane.target(3, { only: "bad", revocations: "one" }));
  fleet.a.nack(await fleet.a.next(), refusal);
  await plane.state("a", ProxyState.NACKED);
  plane.fleet.retarget(plane.target(4, { only: "bad", revocations: "two" }));
  const held = [await fleet.a.next(), await fleet.b.next()].find(({ version }) => version !== "r4");
  assert.ok(held?.payload.case === "snapshot");
  assert.equal(held.revision, 4n);
  const texts = held.payload.value.resources.map(({ name, body }) => [name, Buffer.from(body?.value ?? []).toString()]);
  assert.deepEqual(Object.fromEntries(texts), { only: "of r1", revocations: "two" });
  assert.deepEqual(held.payload.value.resources[1]?.digest, snapshotResource("revocations", "two").digest);
});

test("a control plane that has just started tries the newest on the first that comes; the rest keep what they have", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(5));
  const unknown = { knownVersion: "r4", knownDigest: Buffer.alloc(32, 4), storeUid: "store" };
  using first = plane.connect("first");
  first.hello(unknown);
  const tried = await first.next();
  assert.equal(summary(tried), "r5 snapshot");
  using second = plane.connect("second");
  second.hello(unknown);
  assert.equal(summary(await second.next()), "r4 upToDate");
  assert.equal(await plane.state("second", ProxyState.HELD), "HELD");
  first.ack(tried);
  assert.equal(summary(await second.next()), "r5 snapshot");
});

test("a proxy of another store refuses alone: it halts nothing", async () => {
  await using plane = await start();
  await using fleet = await synced(plane, "b");
  plane.fleet.retarget(plane.target(2));
  using stranger = plane.connect("a");
  stranger.hello({ knownVersion: "r9", knownDigest: Buffer.alloc(32), storeUid: "another" });
  stranger.nack(await stranger.next(), { reason: NackReason.FOREIGN_STORE });
  assert.equal(await plane.state("a", ProxyState.NACKED), "NACKED");
  assert.equal(plane.fleet.rollout().state, RolloutState.CANARY);
  fleet.b.ack(await fleet.b.next());
  await plane.until(() => plane.fleet.rollout().state === RolloutState.PARTIAL);
});

type Connected = AsyncDisposable & Record<string, FakeProxy> & Record<"a" | "b" | "c" | "e", FakeProxy>;

/** Proxies that run r1, which was approved. */
async function synced(plane: TestPlane, ids: Iterable<string>): Promise<Connected> {
  plane.fleet.retarget(plane.target(1));
  const proxies: Record<string, FakeProxy> = {};
  for (const id of ids) {
    const proxy = plane.connect(id);
    proxies[id] = proxy;
    proxy.hello();
    proxy.ack(await proxy.next());
    await plane.state(id, ProxyState.SYNCED);
  }
  const [Symbol_] = [Symbol.asyncDispose] as const;
  return { ...proxies, [Symbol_]: async () => void Object.values(proxies).map((proxy) => proxy[Symbol.dispose]()) } as Connected;
}

function of(ids: string, state: string): Record<string, string> {
  return Object.fromEntries([...ids].map((id) => [id, state]));
}

function statesOf(plane: TestPlane): Record<string, string> {
  const name = (state: ProxyState) => Object.entries(ProxyState).find(([, value]) => value === state)?.[0] ?? "";
  return Object.fromEntries(plane.fleet.proxies().map(({ node, state }) => [node?.id ?? "", name(state)]));
}

function shown(plane: TestPlane) {
  const { state, canaries, acknowledged, pending, held } = plane.fleet.rollout();
  return { state, canaries, acknowledged, pending, held };
}

test("what backends list is no version to try: it goes to all at once", async () => {
  await using plane = await start();
  await using fleet = await synced(plane, "abc");
  plane.fleet.retarget(plane.target(2, { only: "of r1", [catalog]: "listed" }));
  for (const proxy of [fleet.a, fleet.b, fleet.c]) proxy.ack(await proxy.next());
  await plane.state("c", ProxyState.SYNCED);
  assert.equal(plane.fleet.rollout().state, RolloutState.COMPLETE);
});

test("a halted version stays halted when backends list something else, and those that keep an earlier one get that", async () => {
  await using plane = await start();
  await using fleet = await synced(plane, "abc");
  plane.fleet.retarget(plane.target(2));
  fleet.a.nack(await fleet.a.next(), refusal);
  await plane.state("a", ProxyState.NACKED);
  plane.fleet.retarget(plane.target(2, { only: "of r2", [catalog]: "listed" }));
  for (const proxy of [fleet.a, fleet.b, fleet.c]) {
    const given = await proxy.next();
    const { resources } = given.payload.case === "snapshot" ? given.payload.value : { resources: [] };
    assert.deepEqual(
      resources.map(({ name, body }) => `${name}: ${Buffer.from(body?.value ?? []).toString()}`),
      [`${catalog}: listed`, "only: of r1"],
    );
    proxy.ack(given);
  }
  assert.equal(plane.fleet.rollout().state, RolloutState.HALTED);
  assert.match(plane.fleet.rollout().reason, /^a refused r2/);
});

const catalog = "groups/g/backends/b/catalogs/0123456789ab";
