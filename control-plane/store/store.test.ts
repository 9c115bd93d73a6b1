// The promises of a store, over every driver.
import assert from "node:assert/strict";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { openSqliteStore } from "./sqlite.ts";
import type { Change, Commit, Store } from "./store.ts";

interface Driver {
  readonly name: string;
  /** A fresh, empty store. */
  open(options?: { readonly revisionsKept?: number; readonly nowMs?: () => number }): Store;
}

const drivers: readonly Driver[] = [
  { name: "sqlite in memory", open: (options) => openSqliteStore({ file: ":memory:", ...options }) },
];

for (const { name, open } of drivers) {
  test(`${name}: a commit is read back with its revision, etag and times`, async () => {
    let now = 1_000;
    await using store = open({ nowMs: () => now });
    const { revision } = await store.commit([put(group("g", "first"))], { reason: "test" });
    const made = await store.get("groups/g");
    now = 5_000;
    await store.commit([put(group("g", "second"))], { reason: "test" });
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
    await using store = open();
    await store.commit([put(group("g"))], { reason: "test" });
    const again = await store.commit([put(group("g")), remove("groups/none")], { reason: "test" });
    assert.deepEqual(again, { revision: 1n, changes: [] });
    assert.equal((await store.history(10)).length, 1);
  });

  test(`${name}: the order of map entries is not a change`, async () => {
    await using store = open();
    const withLabels = (metadata: Record<string, string>) =>
      resource({ name: "groups/g/backends/b", spec: { case: "backend", value: { name: "b", metadata } } });
    await store.commit([put(withLabels({ a: "1", b: "2" }))], { reason: "test" });
    const again = await store.commit([put(withLabels({ b: "2", a: "1" }))], { reason: "test" });
    assert.equal(again.revision, 1n);
  });

  test(`${name}: all changes of a commit happen or none`, async () => {
    await using store = open();
    await store.commit([put(group("old"))], { reason: "test" });
    const changes = [put(group("new")), remove("groups/old", "not its etag")];
    await assert.rejects(store.commit(changes, { reason: "test" }), { code: "conflict", resource: "groups/old" });
    const { revision, resources } = await store.list();
    assert.deepEqual([revision, resources.map((one) => one.name)], [1n, ["groups/old"]]);
  });

  test(`${name}: an expected etag or revision guards a commit`, async () => {
    await using store = open();
    await store.commit([put(group("g"))], { reason: "test" });
    const etag = (await store.get("groups/g"))?.etag;
    const second = await store.commit([{ ...put(group("g", "two")), expectedEtag: etag }], {
      reason: "test",
      expectedRevision: 1n,
    });
    assert.equal(second.revision, 2n);
    const stale = store.commit([put(group("g", "three"))], { reason: "test", expectedRevision: 1n });
    await assert.rejects(stale, { code: "conflict" });
  });

  test(`${name}: changes since a revision carry both sides, in order`, async () => {
    await using store = open();
    await store.commit([put(group("a"))], { reason: "test" });
    await store.commit([put(group("a", "x")), put(group("b"))], { reason: "test" });
    await store.commit([remove("groups/a")], { reason: "test" });
    const commits = await store.changesSince(1n, 10);
    assert.deepEqual(commits.map(summary), ["2: groups/a update, groups/b create", "3: groups/a delete"]);
    assert.deepEqual((await store.changesSince(0n, 2)).map(summary), [
      "1: groups/a create",
      "2: groups/a update, groups/b create",
    ]);
    assert.deepEqual(await store.changesSince(3n, 10), []);
  });

  test(`${name}: forgotten changes and future revisions are refused, not skipped`, async () => {
    await using store = open({ revisionsKept: 2 });
    for (const description of ["1", "2", "3", "4"]) await store.commit([put(group("g", description))], { reason: description });
    assert.deepEqual((await store.changesSince(2n, 10)).map(summary), ["3: groups/g update", "4: groups/g update"]);
    await assert.rejects(store.changesSince(1n, 10), { code: "compacted" });
    await assert.rejects(store.changesSince(5n, 10), { code: "compacted" });
    assert.deepEqual(
      (await store.history(10)).map(({ reason }) => reason),
      ["4", "3"],
    );
  });

  test(`${name}: a watcher sees what was and what comes, in order, and ends with its signal`, async () => {
    await using store = open();
    const stop = new AbortController();
    await store.commit([put(group("a"))], { reason: "test" });
    const seen: Commit[] = [];
    const watching = (async () => {
      for await (const commit of store.watch(0n, stop.signal)) {
        seen.push(commit);
        if (seen.length === 3) stop.abort();
      }
    })();
    await store.commit([put(group("b"))], { reason: "test" });
    await store.commit([remove("groups/a")], { reason: "test" });
    await watching;
    assert.deepEqual(seen.map(summary), ["1: groups/a create", "2: groups/b create", "3: groups/a delete"]);
  });

  test(`${name}: closing the store ends its watchers`, async () => {
    const store = open();
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
    const first = openSqliteStore({ file });
    await first.commit([put(group("g"))], { reason: "test" });
    await first[Symbol.asyncDispose]();
    await using second = openSqliteStore({ file });
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
    await using _first = openSqliteStore({ file });
    assert.throws(() => openSqliteStore({ file }), { code: "unavailable", message: /another process has it open/ });
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
