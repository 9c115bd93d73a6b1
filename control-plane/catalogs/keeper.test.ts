// What is kept of what proxies list, by one control plane and by several, and which definitions of tools are approved.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { pino } from "pino";
import { CatalogSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { eventually } from "../../test/support/eventually.ts";
import { readEntry } from "../store/audit.ts";
import { by } from "../store/examples.ts";
import { openSqliteStore } from "../store/sqlite.ts";
import type { Store } from "../store/store.ts";
import { listing } from "./examples.ts";
import { type CatalogKeeper, createCatalogKeeper } from "./keeper.ts";

const log = pino({ level: "silent" });
const name = "groups/g/backends/bank/catalogs/0123456789ab";

test("what a proxy lists is in the store and in snapshots, and survives the control plane", async () => {
  await using store = await openSqliteStore({ file: ":memory:" });
  {
    await using keeper = await start(store);
    await take(keeper, { pay: "Pays", look: "Looks" });
    assert.deepEqual(inSnapshot(keeper), { tools: ["pay", "look"], pins: [] });
  }
  await using again = await start(store);
  assert.deepEqual(inSnapshot(again), { tools: ["pay", "look"], pins: [] });
  assert.deepEqual(await lines(store), ["FIRST_SEEN proxy:p look,pay"]);
});

test("several control planes agree: each finds what another was told, and the last word counts", async () => {
  await using store = await openSqliteStore({ file: ":memory:" });
  await using one = await start(store);
  await using two = await start(store);
  await take(one, { pay: "Pays" });
  await eventually("two has it", () => two.digestOf(name) === one.digestOf(name));
  // Both at once: neither overwrites what it has not seen.
  await Promise.all([take(one, { pay: "Pays", a: "A" }), take(two, { pay: "Pays", b: "B" })]);
  await eventually("they agree", () => two.digestOf(name) === one.digestOf(name));
  const approved = one.tools().filter(({ changedMs }) => changedMs === undefined);
  assert.equal(approved.length, 2);
  assert.deepEqual((await lines(store)).sort(), ["FIRST_SEEN proxy:p a", "FIRST_SEEN proxy:p b", "FIRST_SEEN proxy:p pay"]);
});

test("a changed definition is changed until it is approved by its hash, or is what it was", async () => {
  await using store = await openSqliteStore({ file: ":memory:" });
  await using keeper = await start(store);
  await take(keeper, { pay: "Pays", look: "Looks" });
  await take(keeper, { pay: "Steals", look: "Looks" });
  const [changed] = keeper.tools().filter(({ changedMs }) => changedMs !== undefined);
  assert.equal(changed?.tool, "pay");
  assert.equal(changed?.approvedDefinition, '{"name":"pay","description":"Pays"}');
  assert.deepEqual(inSnapshot(keeper).pins, [`pay ${changed?.approvedHash}`], "proxies know what is approved");

  await take(keeper, { pay: "Steals more", look: "Looks" });
  const asked = { catalog: name, tool: "pay", hash: changed?.hash as string };
  assert.deepEqual(await keeper.approve([asked], by), [asked], "what was looked at is not what is there");
  const [now] = keeper.tools().filter(({ changedMs }) => changedMs !== undefined);
  assert.equal(now?.approvedDefinition, '{"name":"pay","description":"Pays"}', "still shows what was approved");
  assert.deepEqual(await keeper.approve([{ ...asked, hash: now?.hash as string }], by), []);
  assert.deepEqual(inSnapshot(keeper).pins, []);

  await take(keeper, { pay: "Pays", look: "Looks" });
  assert.equal(
    keeper.tools().filter(({ changedMs }) => changedMs !== undefined).length,
    1,
    "the old one is not approved any more",
  );
  assert.deepEqual(await lines(store), [
    "FIRST_SEEN proxy:p look,pay",
    "CHANGED proxy:p pay",
    "APPROVED alice pay",
    "CHANGED proxy:p pay",
  ]);
});

test("a tool that comes back as something else is changed, and so is one of a backend that is spoken to in another way", async () => {
  await using store = await openSqliteStore({ file: ":memory:" });
  await using keeper = await start(store);
  await take(keeper, { pay: "Pays", look: "Looks" });
  await take(keeper, { look: "Looks" });
  assert.match(String(inSnapshot(keeper).pins), /^pay /, "proxies that see it come back know");
  await take(keeper, { pay: "Steals", look: "Looks" });
  assert.deepEqual(changedOf(keeper), ["pay"]);

  const other = "groups/g/backends/bank/catalogs/ba9876543210";
  keeper.use(new Set([other]));
  await keeper.take({ catalog: other, listing: listing({ pay: "Steals", look: "Looks", new: "New" }), digest: "", proxy: "p" });
  assert.deepEqual(changedOf(keeper), ["pay"]);
  assert.deepEqual([...keeper.resources().keys()], [other], "what it was listed as before is forgotten");
});

test("members in another order, and _meta, change nothing", async () => {
  await using store = await openSqliteStore({ file: ":memory:" });
  await using keeper = await start(store);
  const { toolHash } = await import("../../common/tool-hash.ts");
  const hash = (json: string) => Buffer.from(toolHash(json)).toString("hex");
  const one = '{"name":"t","inputSchema":{"type":"object","properties":{"a":{},"b":{}}},"_meta":{"x":1}}';
  assert.equal(hash(one), hash('{"inputSchema":{"properties":{"b":{},"a":{}},"type":"object"}, "name":"t"}'));
  assert.notEqual(hash(one), hash('{"name":"t","inputSchema":{"type":"object","properties":{"a":{},"b":{"description":"!"}}}}'));
  assert.notEqual(hash('{"name":"t","__proto__":{"a":1}}'), hash('{"name":"t"}'));
  assert.equal(
    hash(`{"a":${"[".repeat(20_000)}${"]".repeat(20_000)}}`).length,
    64,
    "nor does it fall over what is nested deeply",
  );
  assert.equal(keeper.tools().length, 0);
});

for (const [what, report] of [
  ["of a backend that is not in use", { catalog: "groups/g/backends/other/catalogs/0123456789ab", listing: listing({ a: "A" }) }],
  ["that is no listing", { catalog: name, listing: Buffer.from([255, 255, 255]) }],
] as const) {
  test(`a report ${what} is not taken`, async () => {
    await using store = await openSqliteStore({ file: ":memory:" });
    await using keeper = await start(store);
    await keeper.take({ ...report, digest: "", proxy: "p" });
    assert.deepEqual(await store.catalogs.list(), []);
  });
}

test("a listing that is too large to be shared takes the old one away, and keeps what is approved", async () => {
  await using store = await openSqliteStore({ file: ":memory:" });
  await using keeper = await start(store);
  await take(keeper, { pay: "Pays" });
  await keeper.take({ catalog: name, listing: new Uint8Array(), digest: "abcd", proxy: "p" });
  assert.equal(keeper.digestOf(name), "abcd");
  assert.equal(keeper.resources().size, 0);
  await take(keeper, { pay: "Steals" });
  assert.deepEqual(changedOf(keeper), ["pay"]);
});

async function start(store: Store): Promise<CatalogKeeper> {
  const keeper = await createCatalogKeeper({ store, log, nowMs: () => 5 });
  keeper.use(new Set([name]));
  return keeper;
}

function take(keeper: CatalogKeeper, tools: Readonly<Record<string, string>>): Promise<void> {
  return keeper.take({ catalog: name, listing: listing(tools), digest: "", proxy: "p" });
}

function changedOf(keeper: CatalogKeeper): string[] {
  return keeper.tools().flatMap(({ tool, changedMs }) => (changedMs === undefined ? [] : tool));
}

function inSnapshot(keeper: CatalogKeeper) {
  const { listing: listed, pins } = fromBinary(CatalogSchema, keeper.resources().get(name)?.body?.value ?? new Uint8Array());
  const items = listed?.lists.flatMap((list) => list.items) ?? [];
  return {
    tools: items.map((item) => JSON.parse(Buffer.from(item).toString()).name),
    pins: pins.map(({ tool, hash }) => `${tool} ${Buffer.from(hash).toString("hex")}`),
  };
}

/** The audit trail, as `CODE actor tools`. */
async function lines(store: Store): Promise<string[]> {
  const { lines: trail } = await store.auditTrail(0n, 100);
  return trail.map((line) => {
    const { code, actor, changes } = readEntry(line);
    return `${code} ${actor} ${changes.map(({ name: target }) => target.split("/").at(-1)).sort()}`;
  });
}
