// What holds for a server that others use too, and that may be away.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { pino } from "pino";
import { whyMissing } from "../../test/support/debian.ts";
import { eventually } from "../../test/support/eventually.ts";
import { startFaultProxy } from "../../test/support/fault-proxy.ts";
import { type PostgresServer, startPostgres } from "../../test/support/postgres.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { by, group, put } from "./examples.ts";
import { openPostgresStore } from "./postgres.ts";
import type { Commit } from "./store.ts";

const skip = await whyMissing("postgres", "postgresql");
const server = skip === false ? await startPostgres() : (undefined as unknown as PostgresServer);
after(() => server?.[Symbol.asyncDispose]());

const lines: string[] = [];
const log = pino({ level: "debug" }, { write: (line: string) => void lines.push(line) });
const open = (address: string) => openPostgresStore({ address, log, env: {} });

test("control planes that start together make the tables once", { skip }, async () => {
  const address = server.freshUrl();
  const stores = await Promise.all(Array.from({ length: 6 }, () => open(address)));
  assert.equal(new Set(stores.map(({ uid }) => uid)).size, 1);
  await Promise.all(stores.map((store) => store[Symbol.asyncDispose]()));
});

test("stores of two schemas know nothing of each other", { skip }, async () => {
  await using one = await open(server.freshUrl());
  await using other = await open(server.freshUrl());
  await one.commit([put(group("g"))], by);
  assert.deepEqual((await other.list()).resources, []);
  assert.notEqual(one.uid, other.uid);
});

test("a commit of one is heard of by another sooner than it would ask", { skip }, async () => {
  const address = server.freshUrl();
  await using one = await open(address);
  await using other = await open(address);
  const watching = other.watch(0n, AbortSignal.timeout(30_000))[Symbol.asyncIterator]();
  const waitsMs: number[] = [];
  for (let at = 1; at <= 9; at += 1) {
    const next = watching.next();
    const sinceMs = performance.now();
    await one.commit([put(group("g", String(at)))], by);
    assert.equal((await next).value?.revision, BigInt(at));
    waitsMs.push(performance.now() - sinceMs);
  }
  assert.ok((waitsMs.sort((a, b) => a - b)[4] ?? 0) < 500, waitsMs.join(" "));
});

test("a change that nobody was told of is found all the same", { skip }, async () => {
  const address = server.freshUrl();
  await using store = await open(address);
  const watching = store.watch(0n, AbortSignal.timeout(30_000))[Symbol.asyncIterator]();
  const next = watching.next();
  await server.sql(address, "UPDATE meta SET revision = 1; INSERT INTO change VALUES (1, 'groups/x', NULL, NULL)");
  assert.equal((await next).value?.revision, 1n);
});

test("a commit whose answer is lost is not called a failure", { skip }, async () => {
  await using network = await startFaultProxy({ port: server.port });
  const address = server.freshUrl();
  await using store = await open(address.replace(`:${server.port}/`, `:${network.port}/`));
  const cut = network.cutNext({ match: (chunk) => chunk.includes("COMMIT") });
  await assert.rejects(store.commit([put(group("g"))], by), { code: "uncertain", message: /lost while it committed/ });
  await cut;
  assert.equal((await store.list()).revision, 1n, "here it was made");
});

for (const [what, breakIt, mend] of [
  ["stops", () => server.stop(), () => server.start()],
  ["hangs", () => server.freeze(), () => server.thaw()],
] as const) {
  test(`a server that ${what} is said to be away; a watcher goes on where it was when it is back`, { skip }, async () => {
    const address = server.freshUrl();
    await using store = await open(address);
    const seen: Commit[] = [];
    const watching = (async () => {
      for await (const commit of store.watch(0n, AbortSignal.timeout(60_000))) if (seen.push(commit) === 2) return;
    })();
    await store.commit([put(group("before"))], by);
    await eventually("the watcher saw it", () => seen.length === 1);
    lines.length = 0;
    await breakIt();
    const sinceMs = performance.now();
    await assert.rejects(store.commit([put(group("meanwhile"))], by), { code: "unavailable" });
    await assert.rejects(store.list(), { code: "unavailable" });
    assert.ok(performance.now() - sinceMs < 12_000, "each has a deadline of 5 s");
    await eventually("it is said", () => logged("PostgreSQL is away"), 12_000);
    await mend();
    await eventually("it is back", () => logged("PostgreSQL is back"), 20_000);
    assert.equal((await store.commit([put(group("after"))], by)).revision, 2n);
    await watching;
    assert.deepEqual(
      seen.flatMap(({ changes }) => changes.map(({ name }) => name)),
      ["groups/before", "groups/after"],
    );
    assert.doesNotMatch(lines.join(""), new RegExp(server.password));
  });
}

test("a control plane that hangs while it commits does not stop the others for long", { skip }, async () => {
  const address = server.freshUrl();
  await using store = await open(address);
  const schema = new URL(address).searchParams.get("schema");
  // As a hanging one would have it: the lock taken, and nothing after that.
  const hanging = server.sql(address, `BEGIN; UPDATE ${schema}.meta SET revision = revision; SELECT pg_sleep(3)`);
  await eventually("it has the lock", async () => (await sessions(address, "%pg_sleep(3)")) !== "0");
  assert.equal((await store.commit([put(group("g"))], by)).revision, 1n);
  await hanging;
});

test("a refused password is said at the start, and not shown", { skip }, async () => {
  const address = server.freshUrl().replace(server.password, "not-the-password");
  const error = await open(address).catch((caught) => caught);
  assert.equal(error.code, "unusable");
  assert.match(error.message, /127\.0\.0\.1:\d+\/postgres\?schema=vmcp_\d+: .*password authentication failed for user "vmcp"/);
  assert.doesNotMatch(JSON.stringify([error.message, error.stack, error.cause]), /not-the-password/);
});

test("a server that is not there may come; that is another code", { skip }, async () => {
  const error = await open("postgres://vmcp:secret@127.0.0.1:1/postgres").catch((caught) => caught);
  assert.equal(error.code, "unavailable");
  assert.match(error.message, /can't open the store postgres:\/\/127\.0\.0\.1:1\/postgres\?schema=vmcp: .*ECONNREFUSED/);
});

test("the password may come from a file, which is read again for each connection", { skip }, async () => {
  await using folder = await temporaryDirectory();
  const file = await folder.write("password", `${server.password}\n`);
  const address = server.freshUrl().replace(`:${server.password}`, "");
  await using _store = await openPostgresStore({ address, log, env: { VMCP_STORE_PASSWORD_FILE: file } });
  await folder.write("password", "another");
  await assert.rejects(openPostgresStore({ address, log, env: { VMCP_STORE_PASSWORD_FILE: file } }), { code: "unusable" });
});

test("a store of another format is refused", { skip }, async () => {
  const address = server.freshUrl();
  await (await open(address))[Symbol.asyncDispose]();
  await server.sql(address, "UPDATE store_format SET format = 99");
  await assert.rejects(open(address), { code: "unusable", message: /format 99; this version reads and writes 6/ });
});

for (const [format, drop] of [
  [2, "DROP TABLE record, catalog, answer, control_plane, proxy_status"],
  [4, "DROP TABLE answer, control_plane, proxy_status"],
]) {
  test(`a store of format ${format} is taken over, while a control plane that made it goes on`, { skip }, async () => {
    const address = server.freshUrl();
    await using before = await open(address);
    await server.sql(address, `${drop}; UPDATE store_format SET format = ${format}`);
    await using store = await open(address);
    assert.equal(await store.answered("one"), undefined);
    await store.records.change([{ kind: "k", id: "1", body: "kept" }], by);
    assert.equal((await store.records.get("k", "1"))?.body, "kept");
    assert.deepEqual([await store.catalogs.list(), await store.peers.hear(new Map())], [[], []]);
    assert.equal((await before.list()).revision, 0n);
  });
}

/** How many sessions run, or ran last, a statement like this. */
async function sessions(address: string, like: string): Promise<string> {
  return server.sql(address, `SELECT count(*) FROM pg_stat_activity WHERE query LIKE '${like}' AND pid <> pg_backend_pid()`);
}

function logged(message: string): boolean {
  return lines.some((line) => line.includes(message));
}
