// Who is asked to tell of calls, and whose word counts.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { FakeProxy } from "./fake-proxy.ts";
import { heard, startTestPlane, type TestPlane } from "./test-plane.ts";

const wanted = { filter: undefined, sample: 0, perSecond: 7, sumOver: undefined };

test("proxies that are there and that come are asked, and told when it is over", async () => {
  await using plane = await startTestPlane();
  using early = await come(plane, "early");
  using old = await come(plane, "old", []);
  const told: string[] = [];
  const tapped = plane.fleet.tapCalls(wanted, (proxy, { leftOut }) => told.push(`${proxy} ${leftOut}`));
  assert.deepEqual([tapped?.asked, tapped?.unable], [["early"], ["old"]]);
  const query = await queryOf(early);
  assert.equal(query.perSecond, 7);
  using late = await come(plane, "late");
  assert.equal((await queryOf(late)).id, query.id);
  early.calls({ queryId: query.id, leftOut: 1n });
  late.calls({ queryId: query.id, leftOut: 2n });
  early.calls({ queryId: query.id + 1n, leftOut: 3n });
  old.calls({ queryId: query.id, leftOut: 4n });
  for (const proxy of [early, late, old]) await heard(plane, proxy);
  assert.deepEqual(told.sort(), ["early 1", "late 2"]);
  tapped?.[Symbol.dispose]();
  for (const proxy of [early, late]) assert.deepEqual([(await queryOf(proxy)).stop], [true]);
  early.calls({ queryId: query.id, leftOut: 5n });
  await heard(plane, early);
  assert.equal(told.length, 2);
});

test("one that is named alone is asked alone, and there is an end to asking", async () => {
  await using plane = await startTestPlane();
  using one = await come(plane, "one");
  using _other = await come(plane, "other");
  const filter = {
    $typeName: "vmcp.discovery.v1.CallFilter",
    group: "",
    virtualServer: "",
    workload: "",
    tool: "",
    status: "",
    proxy: "one",
  } as const;
  assert.deepEqual(plane.fleet.tapCalls({ ...wanted, filter }, () => undefined)?.asked, ["one"]);
  assert.equal((await queryOf(one)).filter?.proxy, "one");
  for (let at = 1; at < 16; at += 1) assert.ok(plane.fleet.tapCalls(wanted, () => undefined));
  assert.equal(
    plane.fleet.tapCalls(wanted, () => undefined),
    undefined,
  );
});

async function come(plane: TestPlane, id: string, features: string[] = ["calls"]): Promise<FakeProxy> {
  if (!plane.fleet.target()) plane.fleet.retarget(plane.target(1));
  const proxy = plane.connect(id);
  proxy.hello({ features });
  // What it gets first is what it should run; with a query it may come in either order.
  await plane.until(() => plane.fleet.proxies().some(({ node }) => node?.id === id));
  return proxy;
}

async function queryOf(proxy: FakeProxy) {
  for (;;) {
    const { payload } = await proxy.next();
    if (payload.case === "callsQuery") return payload.value;
  }
}
