// The promises of a store, over every driver.
import assert from "node:assert/strict";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { eventually } from "../../test/support/eventually.ts";
import { faultOf, readEntry } from "./audit.ts";
import type { StoreOptions } from "./sql-store.ts";
import { openSqliteStore } from "./sqlite.ts";
import type { Change, Commit, Fence, Store } from "./store.ts";

const by = { actor: "alice", method: "Test", reason: "test", requestId: "one" };

interface Driver {
  readonly name: string;
  /** A fresh, empty store. */
  open(options?: StoreOptions): Promise<Store>;
}

const drivers: readonly Driver[] = [
  { name: "sqlite in memory", open: (options) => openSqliteStore({ file: ":memory:", ...options }) },
];

for (const { name, open } of drivers) {
  test(`${name}: a commit is read back with its revision, etag and times`, async () => {
    let now = 1_000;
    await using store = await open({ nowMs: () => now });
    const { revision } = await store.commit([put(group("g", "first"))], by);
    const made = await store.get("groups/g");
    now = 5_000;
    await store.commit([put(group("g", "second"))], by);
    const changed = await store.get("groups/g");
    assert.equal(revision, 1n);
    assert.deepEqual([made?.revision, changed?.revision], [1n, 2n]);
    assert.notEqual(made?.etag, changed?.etag);
    assert.equal(made?.etag.length, 32);
    assert.ok(changed?.createTime && changed.updateTime);
    assert.deepEqual([timestampMs(changed.createTime), timestampMs(changed.updateTime)], [1_000, 5_000]);
    assert.deepEqual(changed.spec.case === "group" && changed.spec.value.description, "second");
    assert.equal(await store.get("groups/other"), undefined);
  });

  test(`${name}: a commit that alters nothing makes no revision`, async () => {
    await using store = await open();
    await store.commit([put(group("g"))], by);
    const again = await store.commit([put(group("g")), remove("groups/none")], by);
    assert.deepEqual(again, { revision: 1n, changes: [] });
    assert.equal((await store.history({ limit: 10 })).length, 1);
  });

  test(`${name}: the order of map entries is not a change`, async () => {
    await using store = await open();
    const withLabels = (metadata: Record<string, string>) =>
      resource({ name: "groups/g/backends/b", spec: { case: "backend", value: { name: "b", metadata } } });
    await store.commit([put(withLabels({ a: "1", b: "2" }))], by);
    const again = await store.commit([put(withLabels({ b: "2", a: "1" }))], by);
    assert.equal(again.revision, 1n);
  });

  test(`${name}: all changes of a commit happen or none`, async () => {
    await using store = await open();
    await store.commit([put(group("old"))], by);
    const changes = [put(group("new")), remove("groups/old", "not its etag")];
    await assert.rejects(store.commit(changes, by), { code: "conflict", resource: "groups/old" });
    const { revision, resources } = await store.list();
    assert.deepEqual([revision, resources.map((one) => one.name)], [1n, ["groups/old"]]);
  });

  test(`${name}: an expected etag or revision guards a commit`, async () => {
    await using store = await open();
    await store.commit([put(group("g"))], by);
    const etag = (await store.get("groups/g"))?.etag;
    const second = await store.commit([{ ...put(group("g", "two")), expectedEtag: etag }], { ...by, expectedRevision: 1n });
    assert.equal(second.revision, 2n);
    const stale = store.commit([put(group("g", "three"))], { ...by, expectedRevision: 1n });
    await assert.rejects(stale, { code: "conflict" });
  });

  test(`${name}: changes since a revision carry both sides, in order`, async () => {
    await using store = await open();
    await store.commit([put(group("a"))], by);
    await store.commit([put(group("a", "x")), put(group("b"))], by);
    await store.commit([remove("groups/a")], by);
    const commits = await store.changesSince(1n, 10);
    assert.deepEqual(commits.map(summary), ["2: groups/a update, groups/b create", "3: groups/a delete"]);
    assert.deepEqual((await store.changesSince(0n, 2)).map(summary), [
      "1: groups/a create",
      "2: groups/a update, groups/b create",
    ]);
    assert.deepEqual(await store.changesSince(3n, 10), []);
  });

  test(`${name}: forgotten changes and future revisions are refused, not skipped`, async () => {
    await using store = await open({ revisionsKept: 2 });
    for (const description of ["1", "2", "3", "4"])
      await store.commit([put(group("g", description))], { ...by, reason: description });
    assert.deepEqual((await store.changesSince(2n, 10)).map(summary), ["3: groups/g update", "4: groups/g update"]);
    await assert.rejects(store.changesSince(1n, 10), { code: "compacted" });
    await assert.rejects(store.changesSince(5n, 10), { code: "compacted" });
    assert.deepEqual(
      (await store.history({ limit: 10 })).map(({ reason }) => reason),
      ["4", "3"],
    );
  });

  test(`${name}: a watcher sees what was and what comes, in order, and ends with its signal`, async () => {
    await using store = await open();
    const stop = new AbortController();
    await store.commit([put(group("a"))], by);
    const seen: Commit[] = [];
    const watching = (async () => {
      for await (const commit of store.watch(0n, stop.signal)) {
        seen.push(commit);
        if (seen.length === 3) stop.abort();
      }
    })();
    await store.commit([put(group("b"))], by);
    await store.commit([remove("groups/a")], by);
    await watching;
    assert.deepEqual(seen.map(summary), ["1: groups/a create", "2: groups/b create", "3: groups/a delete"]);
  });

  test(`${name}: a watcher that falls behind what is kept is told so`, async () => {
    await using store = await open({ revisionsKept: 2 });
    await store.commit([put(group("g", "1"))], by);
    const watching = store.watch(0n, new AbortController().signal)[Symbol.asyncIterator]();
    assert.equal((await watching.next()).value?.revision, 1n);
    for (const description of ["2", "3", "4"]) await store.commit([put(group("g", description))], by);
    await assert.rejects(watching.next(), { code: "compacted" });
  });

  test(`${name}: the history says who, why and how much, newest first, page by page`, async () => {
    await using store = await open({ nowMs: () => 7_000 });
    await store.commit([put(group("a")), put(group("b"))], by);
    await store.commit([remove("groups/b")], { ...by, actor: "bob", reason: "x".repeat(2_000), requestId: "two" });
    const [newest, ...others] = await store.history({ limit: 1 });
    assert.deepEqual(others, []);
    assert.deepEqual(newest, {
      ...{ revision: 2n, actor: "bob", reason: "x".repeat(1_000), requestId: "two", timeMs: 7_000, changeCount: 1 },
    });
    const older = await store.history({ limit: 10, before: 2n });
    assert.deepEqual(
      older.map(({ revision, actor, changeCount }) => [revision, actor, changeCount]),
      [[1n, "alice", 2]],
    );
  });

  test(`${name}: many changes are one commit`, async () => {
    await using store = await open();
    const names = Array.from({ length: 1_203 }, (_, at) => `g${String(at).padStart(4, "0")}`);
    await store.commit(
      names.map((one) => put(group(one))),
      by,
    );
    const half = names.map((one, at) => (at % 2 === 0 ? put(group(one, "changed")) : remove(`groups/${one}`)));
    const { revision, changes } = await store.commit(half, by);
    assert.deepEqual([revision, changes.length], [2n, 1_203]);
    const { resources } = await store.list();
    assert.deepEqual([resources.length, resources[0]?.name, resources.at(-1)?.name], [602, "groups/g0000", "groups/g1202"]);
    const [commit] = await store.changesSince(1n, 1);
    assert.deepEqual([commit?.changes.length, commit?.changes[1]?.name], [1_203, "groups/g0001"]);
  });

  test(`${name}: every commit and every refusal has a line in the audit trail, chained to the one before`, async () => {
    await using store = await open({ nowMs: () => 9_000 });
    await store.commit([put(group("g"))], { ...by, reason: "a 'quoted' \ud800 reason\0" });
    await store.commit([put(group("g"))], by); // nothing changes
    await store.audit({ ...by, actor: "mallory", code: "PERMISSION_DENIED", targets: ["groups/g"] });
    await assert.rejects(store.commit([remove("groups/g", "not its etag")], by), { code: "conflict" });
    await store.commit([remove("groups/g")], by);
    const { lines, head } = await store.auditTrail(0n, 10);
    const said = lines.map((line) => {
      const { actor, decision, code, revision, changes, timeMs } = readEntry(line);
      return [actor, decision, code, revision, changes.map((one) => `${one.name} ${one.before && 1} ${one.after && 1}`), timeMs];
    });
    assert.deepEqual(said, [
      ["alice", "allowed", "OK", "1", ["groups/g  1"], 9_000],
      ["mallory", "denied", "PERMISSION_DENIED", "", ["groups/g  "], 9_000],
      ["alice", "allowed", "OK", "2", ["groups/g 1 "], 9_000],
    ]);
    assert.deepEqual(
      lines.map((line, at) => faultOf(line, lines[at - 1])),
      [undefined, undefined, undefined],
    );
    assert.deepEqual(head, { id: 3n, hash: lines[2]?.hash });
    assert.deepEqual(
      (await store.auditTrail(1n, 1)).lines.map(({ id }) => id),
      [2n],
    );
    assert.deepEqual((await store.auditTrail(3n, 1)).lines, []);
  });

  test(`${name}: of the audit trail the newest lines are kept, and still fit`, async () => {
    await using store = await open({ auditLinesKept: 2 });
    for (const description of ["1", "2", "3"]) await store.commit([put(group("g", description))], by);
    const { lines, head } = await store.auditTrail(0n, 10);
    assert.deepEqual(
      lines.map(({ id }) => id),
      [2n, 3n],
    );
    assert.deepEqual([lines.map((line, at) => faultOf(line, lines[at - 1])), head.id], [[undefined, undefined], 3n]);
  });

  test(`${name}: a lease has one holder; it can be renewed, released, and runs out; tokens grow`, async () => {
    await using store = await open();
    const claims = ["a", "b"].map((holder) => store.leases.acquire("rollout", { holder, ttlMs: 60_000 }));
    const taken = (await Promise.all(claims)).filter((fence) => fence !== undefined);
    assert.deepEqual(taken, [{ lease: "rollout", token: 1n }]);
    const [first] = taken as [Fence];
    assert.equal(await store.leases.renew(first, 60_000), true);
    assert.ok(await store.leases.acquire("other", { holder: "b", ttlMs: 60_000 }));
    await store.leases.release(first);
    assert.equal(await store.leases.renew(first, 60_000), false);
    const second = await store.leases.acquire("rollout", { holder: "b", ttlMs: 1 });
    assert.deepEqual(second, { lease: "rollout", token: 2n });
    const third = await eventually("it runs out", () => store.leases.acquire("rollout", { holder: "a", ttlMs: 60_000 }));
    assert.equal(third.token, 3n);
    assert.equal(await store.leases.renew(second, 60_000), false);
    await store.leases.release(second);
    assert.equal(await store.leases.renew(third, 60_000), true, "a release that comes late takes nothing away");
  });

  test(`${name}: who lost a lease can't commit any more`, async () => {
    await using store = await open();
    const old = await store.leases.acquire("rollout", { holder: "a", ttlMs: 1 });
    const { fence: now } = await eventually("it runs out", async () => {
      const fence = await store.leases.acquire("rollout", { holder: "b", ttlMs: 60_000 });
      return fence && { fence };
    });
    await assert.rejects(store.commit([put(group("g"))], { ...by, fence: old }), { code: "conflict" });
    assert.equal((await store.commit([put(group("g"))], { ...by, fence: now })).revision, 1n);
  });

  test(`${name}: closing the store ends its watchers`, async () => {
    const store = await open();
    const seen: Commit[] = [];
    const watching = (async () => {
      for await (const commit of store.watch(0n, new AbortController().signal)) seen.push(commit);
    })();
    await store[Symbol.asyncDispose]();
    await watching;
    assert.deepEqual(seen, []);
    await assert.rejects(store.list(), { code: "unavailable" });
  });
}

test("a file keeps its content and its uid, and only its owner may read it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "vmcp-store-"));
  try {
    const file = join(folder, "new", "vmcp.db");
    const first = await openSqliteStore({ file });
    await first.commit([put(group("g"))], by);
    await first[Symbol.asyncDispose]();
    await using second = await openSqliteStore({ file });
    assert.equal(second.uid, first.uid);
    assert.deepEqual((await second.list()).revision, 1n);
    assert.equal((await stat(file)).mode & 0o777, 0o600);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a file that another control plane has open is refused with a readable reason", async () => {
  const folder = await mkdtemp(join(tmpdir(), "vmcp-store-"));
  try {
    const file = join(folder, "vmcp.db");
    await using _first = await openSqliteStore({ file });
    await assert.rejects(openSqliteStore({ file }), { code: "unusable", message: /another process has it open/ });
  } finally {
    await rm(folder, { recursive: true });
  }
});

function resource(init: MessageInitShape<typeof ResourceSchema>): Resource {
  return create(ResourceSchema, init);
}

function group(name: string, description = ""): Resource {
  return resource({ name: `groups/${name}`, spec: { case: "group", value: { description } } });
}

function put(of: Resource): Change {
  return { name: of.name, resource: of };
}

function remove(name: string, expectedEtag?: string): Change {
  return { name, resource: undefined, expectedEtag };
}

function summary({ revision, changes }: Commit): string {
  const words = changes.map(({ name, before, after }) => `${name} ${before ? (after ? "update" : "delete") : "create"}`);
  return `${revision}: ${words.join(", ")}`;
}
