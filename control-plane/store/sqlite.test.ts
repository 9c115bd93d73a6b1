// What holds for files: their owner, their format, damage, and a process that dies in the middle.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { toBinary } from "@bufbuild/protobuf";
import { ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { verifyAudit } from "./audit.ts";
import { by, group, put } from "./examples.ts";
import { openSqliteStore } from "./sqlite.ts";

test("a file keeps its content and its uid, and only its owner may read it", async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, "new", "vmcp.db");
  const first = await openSqliteStore({ file });
  await first.commit([put(group("g"))], by);
  await first[Symbol.asyncDispose]();
  await using second = await openSqliteStore({ file });
  assert.equal(second.uid, first.uid);
  assert.deepEqual((await second.list()).revision, 1n);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
});

test("a file that another control plane has open is refused with a readable reason", async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, "vmcp.db");
  await using _first = await openSqliteStore({ file });
  await assert.rejects(openSqliteStore({ file }), { code: "unusable", message: /another process has it open/ });
});

test("a file of the first format is taken over with its history", async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, "vmcp.db");
  const db = new DatabaseSync(file);
  db.exec(format1);
  const body = toBinary(ResourceSchema, { ...group("g"), etag: "e", revision: 3n });
  db.prepare("INSERT INTO resource VALUES ('groups/g', 'e', ?)").run(body);
  db.prepare("INSERT INTO change VALUES (2, 'groups/g', NULL, ?), (3, 'groups/g', ?, ?)").run(body, body, body);
  db.close();
  await using store = await openSqliteStore({ file });
  assert.equal(store.uid, "its uid");
  const { revision, resources } = await store.list();
  assert.deepEqual([revision, resources.map(({ name }) => name)], [3n, ["groups/g"]]);
  await assert.rejects(store.changesSince(0n, 10), { code: "compacted" });
  assert.deepEqual((await store.changesSince(1n, 10)).length, 2);
  assert.equal((await store.commit([put(group("h"))], by)).revision, 4n);
  assert.deepEqual(
    (await store.history({ limit: 10 })).map(({ reason, actor }) => [reason, actor]),
    [
      ["test", "alice"],
      ["third", ""],
      ["second", ""],
    ],
  );
  await store.records.change([{ kind: "k", id: "1", body: "kept" }], by);
  assert.equal((await store.records.get("k", "1"))?.body, "kept");
  assert.equal((await verifyAudit(store)).fault, undefined);
});

const later = "DROP TABLE control_plane; DROP TABLE proxy_status";
for (const [format, drop] of [
  [2, `DROP TABLE record; DROP TABLE catalog; DROP TABLE answer; ${later}`],
  [4, `DROP TABLE answer; ${later}`],
  [5, later],
]) {
  test(`a file of format ${format} is taken over`, async () => {
    await using folder = await temporaryDirectory();
    const file = join(folder.path, "vmcp.db");
    await (await openSqliteStore({ file }))[Symbol.asyncDispose]();
    await sql(file, `${drop}; PRAGMA user_version = ${format}`);
    await using store = await openSqliteStore({ file });
    assert.equal(await store.answered("one"), undefined);
    assert.equal(await store.records.get("k", "1"), undefined);
    assert.deepEqual(await store.peers.hear(new Map()), []);
  });
}

for (const [what, spoil, wanted] of [
  ["of a newer format", (file: string) => sql(file, "PRAGMA user_version = 99"), /it has format 99; this version reads up to 6/],
  ["that is something else", (file: string) => writeFile(file, "kind: Group\n".repeat(1_000)), /the file is no store/],
  ["that was cut off", async (file: string) => truncate(file, (await stat(file)).size / 2), /the file is damaged/],
] as const) {
  test(`a file ${what} is refused, and stays as it is`, async () => {
    await using folder = await temporaryDirectory();
    const file = join(folder.path, "vmcp.db");
    const store = await openSqliteStore({ file });
    for (let at = 0; at < 50; at += 1) await store.commit([put(group(`g${at}`, "x".repeat(500)))], by);
    await store[Symbol.asyncDispose]();
    await spoil(file);
    const { size } = await stat(file);
    await assert.rejects(openSqliteStore({ file }), { code: "unusable", message: wanted });
    assert.equal((await stat(file)).size, size);
  });
}

test("a process that is killed while it commits leaves whole commits only", async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, "vmcp.db");
  let last = 0n;
  for (let round = 0; round < 8; round += 1) {
    const writer = spawn(process.execPath, ["--input-type=module", "-e", writerProgram, file], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(writer.stdout, "data");
    // Not a wait for anything: a different moment of its work each time.
    await new Promise((resolve) => setTimeout(resolve, 7 * round));
    writer.kill("SIGKILL");
    await once(writer, "close");

    await using store = await openSqliteStore({ file });
    const { revision, resources } = await store.list();
    assert.ok(revision > last, `it committed, ${last} to ${revision}`);
    last = revision;
    const values = resources.map(({ spec }) => spec.case === "group" && spec.value.description);
    assert.deepEqual(values, Array(20).fill(String(revision)));
    const [newest] = await store.history({ limit: 1 });
    assert.deepEqual([newest?.revision, newest?.changeCount], [revision, 20]);
    const { fault, head } = await verifyAudit(store);
    assert.deepEqual([fault, head.id], [undefined, revision]);
  }
});

const writerProgram = `
  import { openSqliteStore } from "${join(import.meta.dirname, "sqlite.ts")}";
  const store = await openSqliteStore({ file: process.argv[1] });
  const by = { actor: "alice", method: "Test", reason: "test", requestId: "one" };
  for (let { revision } = await store.list(); ; revision += 1n) {
    const value = { description: String(revision + 1n) };
    const changes = Array.from({ length: 20 }, (_, at) => ({
      name: "groups/g" + at,
      resource: { $typeName: "vmcp.resource.v1.Resource", name: "groups/g" + at, spec: { case: "group", value: { $typeName: "vmcp.resource.v1.Group", ...value } } },
    }));
    await store.commit(changes, by);
    process.stdout.write(".");
  }
`;

const format1 = `
  CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), store_uid TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
  CREATE TABLE resource (name TEXT PRIMARY KEY, etag TEXT NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE revision (id INTEGER PRIMARY KEY, reason TEXT NOT NULL, time_ms INTEGER NOT NULL) STRICT;
  CREATE TABLE change (
    revision INTEGER NOT NULL, name TEXT NOT NULL, before BLOB, after BLOB, PRIMARY KEY (revision, name)
  ) STRICT, WITHOUT ROWID;
  INSERT INTO meta VALUES (1, 'its uid', 3);
  INSERT INTO revision VALUES (2, 'second', 2000), (3, 'third', 3000);
  PRAGMA user_version = 1;
`;

async function sql(file: string, text: string): Promise<void> {
  const db = new DatabaseSync(file);
  db.exec(text);
  db.close();
}
