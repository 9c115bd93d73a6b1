// The promises of a store, over every driver.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { pino } from "pino";
import { whyMissing } from "../../test/support/debian.ts";
import { eventually } from "../../test/support/eventually.ts";
import { type PostgresServer, startPostgres } from "../../test/support/postgres.ts";
import { faultOf, readEntry, verifyAudit } from "./audit.ts";
import { by, group, put, remove, resource } from "./examples.ts";
import { openPostgresStore } from "./postgres.ts";
import type { StoreOptions } from "./sql-store.ts";
import { openSqliteStore } from "./sqlite.ts";
import type { Answering, Commit, Fence, Peer, Store } from "./store.ts";

interface Driver {
  readonly name: string;
  /** A fresh, empty store. */
  open(options?: StoreOptions): Promise<Store>;
  /** The same store as another process would have it, where the driver allows that. */
  share(store: Store, options?: StoreOptions): Promise<Store>;
  /** Runs SQL behind the back of the store, which may be closed and opened for it; gives the store. Undefined where nobody could. */
  readonly tamper: ((store: Store, sql: string) => Promise<Store>) | undefined;
}

/** Why PostgreSQL is not among the drivers; false when it is. */
const noPostgres = await whyMissing("postgres", "postgresql");

const log = pino({ level: "silent" });

const drivers: readonly Driver[] = [
  sqliteInMemory(),
  sqliteInFile(),
  ...(noPostgres === false ? [postgresDriver(await startPostgres())] : []),
];

test("postgres is tested", { skip: noPostgres }, () => assert.equal(drivers.length, 3));

for (const { name, open, share, tamper } of drivers) {
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

  test(`${name}: the answer to a request is kept with its commit, and another commit for it refused`, async () => {
    await using store = await open();
    const answer = answering("one");
    await store.commit([put(group("g", "first"))], { ...by, answer });
    const again = store.commit([put(group("g", "second"))], { ...by, answer, expectedRevision: 0n });
    await assert.rejects(again, { code: "repeated" });
    await store.commit([put(group("g", "first"))], { ...by, answer: answering("two") });
    assert.deepEqual(await answerOf(store, "one"), ["print of one", "1: groups/g create"]);
    assert.deepEqual(await answerOf(store, "two"), ["print of two", "1: "]);
    assert.equal(await store.answered("three"), undefined);
    assert.equal((await store.list()).revision, 1n);
    await using shared = await share(store);
    assert.deepEqual(await answerOf(shared, "one"), ["print of one", "1: groups/g create"]);
  });

  test(`${name}: a commit that fails leaves no answer`, async () => {
    await using store = await open();
    await assert.rejects(store.commit([put(group("g"))], { ...by, answer: answering("one"), expectedRevision: 7n }));
    assert.equal(await store.answered("one"), undefined);
    await store.commit([put(group("g"))], { ...by, answer: answering("one") });
    assert.ok(await store.answered("one"));
  });

  test(`${name}: an answer is kept for an hour`, async () => {
    let now = 1_000;
    await using store = await open({ nowMs: () => now });
    await store.commit([put(group("g"))], { ...by, answer: answering("one") });
    now += 3_599_999;
    assert.ok(await store.answered("one"));
    now += 1;
    assert.equal(await store.answered("one"), undefined);
    await store.commit([put(group("g", "changed"))], { ...by, answer: answering("one") });
    assert.deepEqual(await answerOf(store, "one"), ["print of one", "2: groups/g update"]);
  });

  test(`${name}: of the answers the newest thousand are kept`, async () => {
    let now = 1_000;
    await using store = await open({ nowMs: () => now });
    for (; now <= 2_001; now += 1) await store.commit([], { ...by, answer: answering(String(now)) });
    const known = await Promise.all(["1000", "1001", "1002", "2001"].map(async (id) => (await store.answered(id)) !== undefined));
    assert.deepEqual(known, [false, false, true, true]);
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

  test(`${name}: records change together or not at all, with a line in the audit trail`, async () => {
    await using store = await open();
    const { records } = store;
    await records.change(
      ["a", "b"].map((id) => ({ kind: "tokens", id, body: `first ${id}`, expectedVersion: 0n })),
      by,
    );
    const both = (b: bigint) =>
      records.change(
        [
          { kind: "tokens", id: "a", body: "second a", expectedVersion: 1n },
          { kind: "tokens", id: "b", body: undefined, expectedVersion: b },
        ],
        { ...by, method: "Second" },
      );
    await assert.rejects(both(7n), { code: "conflict", resource: "tokens/b" });
    assert.deepEqual(
      (await records.list("tokens")).map(({ id, version, body }) => `${id} ${version} ${body}`),
      ["a 1 first a", "b 1 first b"],
    );
    await both(1n);
    assert.deepEqual(await records.list("tokens"), [{ kind: "tokens", id: "a", version: 2n, body: "second a" }]);
    assert.deepEqual(await records.list("others"), []);
    assert.equal(await records.get("tokens", "b"), undefined);
    await assert.rejects(records.change([{ kind: "tokens", id: "a", body: "again", expectedVersion: 0n }], by), {
      code: "conflict",
    });
    const entries = (await store.auditTrail(0n, 10)).lines.map(readEntry);
    assert.deepEqual(
      entries.map(({ method, decision, code, revision, changes }) => [
        ...[method, decision, code, revision],
        ...changes.map((one) => one.name),
      ]),
      [
        ["Test", "allowed", "OK", "", "tokens/a", "tokens/b"],
        ["Second", "allowed", "OK", "", "tokens/a", "tokens/b"],
      ],
    );
    assert.equal((await verifyAudit(store)).fault, undefined);
    assert.equal((await store.list()).revision, 0n);
  });

  test(`${name}: of those who change a record at once, one does`, async () => {
    await using store = await open();
    await using other = await share(store);
    await store.records.change([{ kind: "k", id: "1", body: "0" }], by);
    const tries = [store, other, store, other].map((one, at) =>
      one.records.change([{ kind: "k", id: "1", body: String(at), expectedVersion: 1n }], by),
    );
    const outcomes = await Promise.allSettled(tries);
    assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 1);
    assert.equal((await store.records.get("k", "1"))?.version, 2n);
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

  test(`${name}: what a control plane tells is heard by all, once, and stays what it was until it is told anew`, async () => {
    await using store = await open();
    await using other = await share(store);
    const telling = (number: bigint, body: string, proxies: Record<string, string>, forgotten: string[] = []) => ({
      ...{ number, body: Buffer.from(body), ttlMs: 60_000, forgotten },
      proxies: new Map(Object.entries(proxies).map(([id, text]) => [id, Buffer.from(text)])),
    });
    await store.peers.tell("a", telling(1n, "first", { p: "p1", q: "q1" }));
    await other.peers.tell("b", telling(1n, "b", { p: "p of b" }));
    const heard = await other.peers.hear(new Map());
    assert.deepEqual(heard.map(peerSummary), ["a 1 first there: p=p1 q=q1", "b 1 b there: p=p of b"]);
    assert.ok(heard.every(({ heardMs }) => Math.abs(heardMs - Date.now()) < 60_000));
    await store.peers.tell("a", telling(2n, "second", { q: "q2" }));
    const numbers = new Map(heard.map(({ id, number }) => [id, number]));
    assert.deepEqual((await other.peers.hear(numbers)).map(peerSummary), ["a 2 second there: q=q2", "b 1 b there:"]);
    await store.peers.tell("a", telling(3n, "third", {}, ["q"]));
    assert.deepEqual(peerSummary((await other.peers.hear(new Map()))[0]), "a 3 third there: p=p1");
    const many = Object.fromEntries(Array.from({ length: 1_200 }, (_, at) => [`many-${at}`, String(at)]));
    await store.peers.tell("a", telling(4n, "fourth", many));
    const [all] = await other.peers.hear(new Map([["a", 3n]]));
    assert.equal(all?.proxies.size, 1_200);
    assert.equal(String(Buffer.from(all?.proxies.get("many-1199") ?? [])), "1199");
  });

  test(`${name}: who tells nothing any more, or goes, is not there; it is forgotten with what it told`, async () => {
    await using store = await open();
    const telling = { number: 1n, body: Buffer.from("x"), proxies: new Map([["p", Buffer.from("p")]]), forgotten: [] };
    await store.peers.tell("silent", { ...telling, ttlMs: 1 });
    await store.peers.tell("gone", { ...telling, ttlMs: 0 });
    await store.peers.tell("there", { ...telling, ttlMs: 60_000 });
    const summaries = async () => (await store.peers.hear(new Map())).map(peerSummary);
    await eventually("its time is over", async () => (await summaries())[1] === "silent 1 x gone: p=p");
    assert.deepEqual(await summaries(), ["gone 1 x gone: p=p", "silent 1 x gone: p=p", "there 1 x there: p=p"]);
    await store.peers.forget(60_000);
    assert.equal((await summaries()).length, 3);
    await eventually("they are forgotten", async () => {
      await store.peers.forget(0);
      return (await summaries()).length === 1;
    });
    assert.deepEqual(await summaries(), ["there 1 x there: p=p"]);
  });

  test(`${name}: what is told of a proxy wakes those who wait`, async () => {
    await using store = await open();
    await using other = await share(store);
    const woken = other.peers.changes.next(AbortSignal.timeout(30_000));
    const proxies = new Map([["p", Buffer.from("p")]]);
    await store.peers.tell("a", { number: 1n, body: Buffer.from(""), ttlMs: 1_000, proxies, forgotten: [] });
    await woken;
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

  if (tamper)
    test(`${name}: an altered line of the audit trail is found, and so is one that is gone from the end`, async () => {
      let store = await open();
      for (const description of ["1", "2", "3"]) await store.commit([put(group("g", description))], by);
      const { head } = await store.auditTrail(3n, 1);
      assert.deepEqual(await verifyAudit(store), { firstId: 1n, head, fault: undefined });
      const faultAfter = async (sql: string) => {
        store = await tamper(store, sql);
        return (await verifyAudit(store)).fault;
      };
      const rewrite = (from: string, to: string) => `UPDATE audit SET entry = replace(entry, '${from}', '${to}') WHERE id = 2`;
      assert.equal(await faultAfter(rewrite("alice", "mallory")), "line 2 is not what was written");
      assert.equal(await faultAfter(rewrite("mallory", "alice")), undefined);
      assert.equal(await faultAfter("DELETE FROM audit WHERE id = 3"), "what comes after line 2 is gone, up to line 3");
      await store[Symbol.asyncDispose]();
    });

  test(`${name}: four writers of a thousand commits each lose no update, and a watcher skips none`, async () => {
    const each = 1_000;
    const sharedEach = 100;
    await using first = await open({ revisionsKept: 10_000 });
    await using stack = new AsyncDisposableStack();
    const shared = async () => {
      const store = await share(first, { revisionsKept: 10_000 });
      return store === first ? store : stack.use(store);
    };
    const watching = await shared();
    const writers = [first, await shared(), await shared(), await shared()];
    const seen = tail(watching, BigInt(each * 4));
    await Promise.all(
      writers.map(async (store, at) => {
        for (let count = 1; count <= each; count += 1) {
          const isShared = count % (each / sharedEach) === 0;
          if (isShared) await increment(store, "shared");
          else await store.commit([put(group(`own-${at}`, String(count)))], by);
        }
      }),
    );
    const commits = await seen;
    assert.deepEqual(
      commits.map(({ revision }) => revision),
      Array.from({ length: each * 4 }, (_, at) => BigInt(at + 1)),
    );
    assert.deepEqual(
      counts(commits, "shared"),
      Array.from({ length: sharedEach * 4 }, (_, at) => at + 1),
    );
    const own = Array.from({ length: each }, (_, at) => at + 1).filter((count) => count % (each / sharedEach) !== 0);
    for (const at of writers.keys()) assert.deepEqual(counts(commits, `own-${at}`), own);
    const { fault, head } = await verifyAudit(first);
    assert.deepEqual([fault, head.id], [undefined, BigInt(each * 4)]);
  });

  test(`${name}: a catalog takes the place of the version that was read, with lines of the audit trail`, async () => {
    await using store = await open({ nowMs: () => 7 });
    const { catalogs } = store;
    const seen = { ...by, code: "FIRST_SEEN", targets: ["echo"] };
    assert.equal(await catalogs.put({ name: "b", body: Buffer.from("1") }, { expectedVersion: 0n, lines: [seen, seen] }), 1n);
    assert.equal(await catalogs.put({ name: "a", body: Buffer.from("2") }, { expectedVersion: 0n, lines: [] }), 1n);
    for (const expectedVersion of [0n, 2n])
      await assert.rejects(catalogs.put({ name: "b", body: Buffer.from("lost") }, { expectedVersion, lines: [seen] }), {
        code: "conflict",
      });
    assert.equal(await catalogs.put({ name: "b", body: Buffer.from("3") }, { expectedVersion: 1n, lines: [] }), 2n);
    assert.deepEqual(
      (await catalogs.list()).map(({ name: one, version, body, timeMs }) => [one, version, Buffer.from(body).toString(), timeMs]),
      [
        ["a", 1n, "2", 7],
        ["b", 2n, "3", 7],
      ],
    );
    assert.deepEqual([...(await catalogs.versions())].sort(), [
      ["a", 1n],
      ["b", 2n],
    ]);
    const { lines } = await store.auditTrail(0n, 10);
    const entries = lines.map((line) => readEntry(line));
    assert.deepEqual(
      entries.map(({ code, decision, revision, changes }) => [code, decision, revision, changes[0]?.name]),
      Array(2).fill(["FIRST_SEEN", "allowed", "", "echo"]),
    );
    assert.equal((await verifyAudit(store)).fault, undefined);
    await catalogs.remove(["b", "unknown"]);
    assert.equal(await catalogs.get("b"), undefined);
    assert.equal((await catalogs.get("a"))?.version, 1n);
    assert.equal((await store.list()).revision, 0n, "nothing of it is a commit");
  });

  test(`${name}: another process hears of a catalog, and finds it`, async () => {
    await using store = await open();
    const other = await share(store);
    const heard = other.catalogs.changed(AbortSignal.timeout(5_000));
    await store.catalogs.put({ name: "a", body: Buffer.from("1") }, { expectedVersion: 0n, lines: [] });
    await heard;
    assert.equal((await other.catalogs.get("a"))?.version, 1n);
    if (other !== store) await other[Symbol.asyncDispose]();
  });

  test(`${name}: what one holder claims no other has, until it runs out or is let go`, async () => {
    let now = 1_000;
    await using store = await open({ nowMs: () => now });
    const { leases } = store;
    const claim = async (holder: string, names: readonly string[]) =>
      (await leases.claim(names, { holder, ttlMs: 2_000 })).sort();
    const many = Array.from({ length: 1200 }, (_, i) => `w/${i}`);
    assert.equal((await claim("one", many)).length, many.length);
    assert.deepEqual(await claim("two", ["w/1", "w/new"]), ["w/new"]);
    assert.deepEqual(await claim("one", ["w/1", "w/new"]), ["w/1"], "renewed");
    await leases.disclaim(["w/1"], "two");
    assert.deepEqual(await claim("two", ["w/1"]), [], "nobody lets go of what another holds");
    await leases.disclaim(["w/1"], "one");
    assert.deepEqual(await claim("two", ["w/1"]), ["w/1"]);
    now += 2_100;
    if (name === "postgres") await new Promise((resolve) => setTimeout(resolve, 2_100)); // its own clock
    assert.deepEqual(await claim("two", ["w/2"]), ["w/2"]);
    assert.deepEqual(await claim("one", []), []);
  });
}

function answering(id: string): Answering {
  return { id, fingerprint: `print of ${id}`, encode: (commit) => Buffer.from(summary(commit)) };
}

async function answerOf(store: Store, id: string): Promise<unknown> {
  const found = await store.answered(id);
  return found && [found.fingerprint, Buffer.from(found.body).toString()];
}

function sqliteInMemory(): Driver {
  return {
    name: "sqlite in memory",
    open: (options) => openSqliteStore({ file: ":memory:", ...options }),
    share: async (store) => store,
    tamper: undefined,
  };
}

function sqliteInFile(): Driver {
  const files = new WeakMap<Store, string>();
  const openAt = async (file: string, options?: StoreOptions) => {
    const store = await openSqliteStore({ file, ...options });
    files.set(store, file);
    return store;
  };
  return {
    name: "sqlite in a file",
    async open(options) {
      const folder = await mkdtemp(join(tmpdir(), "vmcp-store-"));
      after(() => rm(folder, { recursive: true }));
      return openAt(join(folder, "vmcp.db"), options);
    },
    share: async (store) => store,
    async tamper(store, sql) {
      const file = files.get(store) as string;
      await store[Symbol.asyncDispose]();
      const db = new DatabaseSync(file);
      db.exec(sql);
      db.close();
      return openAt(file);
    },
  };
}

function postgresDriver(server: PostgresServer): Driver {
  after(() => server[Symbol.asyncDispose]());
  const addresses = new WeakMap<Store, string>();
  const openAt = async (address: string, options?: StoreOptions) => {
    const store = await openPostgresStore({ address, log, ...options });
    addresses.set(store, address);
    return store;
  };
  return {
    name: "postgres",
    open: (options) => openAt(server.freshUrl(), options),
    share: (store, options) => openAt(addresses.get(store) as string, options),
    async tamper(store, sql) {
      await server.sql(addresses.get(store) as string, sql);
      return store;
    },
  };
}

/** The first so many revisions, as a watcher sees them. */
async function tail(store: Store, last: bigint): Promise<Commit[]> {
  const seen: Commit[] = [];
  for await (const commit of store.watch(0n, AbortSignal.timeout(100_000))) {
    seen.push(commit);
    if (commit.revision >= last) break;
  }
  return seen;
}

/** Reads, adds one, and writes if nobody else did; and again until nobody did. */
async function increment(store: Store, name: string): Promise<void> {
  for (;;) {
    const before = await store.get(`groups/${name}`);
    const count = before?.spec.case === "group" ? Number(before.spec.value.description) : 0;
    const change = { ...put(group(name, String(count + 1))), expectedEtag: before?.etag ?? "" };
    const done = await store.commit([change], by).catch((error) => {
      if (error.code !== "conflict") throw error;
    });
    if (done) return;
  }
}

/** What was written to a resource, in the order of the commits. */
function counts(commits: readonly Commit[], name: string): number[] {
  return commits
    .flatMap(({ changes }) => changes)
    .filter((change) => change.name === `groups/${name}`)
    .map(({ after }) => (after?.spec.case === "group" ? Number(after.spec.value.description) : -1));
}

function peerSummary(peer: Peer | undefined): string {
  const proxies = [...(peer?.proxies ?? [])].map(([id, row]) => ` ${id}=${Buffer.from(row)}`).sort();
  return `${peer?.id} ${peer?.number} ${Buffer.from(peer?.body ?? [])} ${peer?.isThere ? "there" : "gone"}:${proxies.join("")}`;
}

function summary({ revision, changes }: Commit): string {
  const words = changes.map(({ name, before, after }) => `${name} ${before ? (after ? "update" : "delete") : "create"}`);
  return `${revision}: ${words.join(", ")}`;
}
