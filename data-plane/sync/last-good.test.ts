// Whatever happens to the files: a proxy starts from one that is whole, or from none.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { resourceDigest, snapshotDigest } from "../../common/snapshot-digest.ts";
import { SnapshotResourceSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { startLastGoodWriter } from "../../test/support/last-good-writer.ts";
import { smallDisk } from "../../test/support/small-disk.ts";
import { openLastGood } from "./last-good.ts";
import { decodeSnapshot, encodeSnapshot, LastGoodError, type SavedSnapshot } from "./last-good-format.ts";

const log = pino({ level: "silent" });

test("what is saved is what is loaded, newest first, three of them, for this user only", async (t) => {
  const directory = await temporary(t);
  const files = await opened(directory);
  for (const revision of [1, 2, 3, 4, 5]) {
    files.save(snapshot(revision));
    await files.settled();
  }
  assert.deepEqual(versions(await files.load()), ["r5-e", "r4-e", "r3-e"]);
  assert.deepEqual((await files.load())[0], snapshot(5));
  const names = await readdir(directory);
  assert.equal(names.length, 3);
  for (const name of names) assert.equal((await stat(join(directory, name))).mode & 0o777, 0o600);
  assert.equal((await stat(directory)).mode & 0o777, 0o700);
});

test("of what comes while one is written only the newest is written", async (t) => {
  const files = await opened(await temporary(t));
  for (let revision = 1; revision <= 100; revision++) files.save(snapshot(revision));
  await files.settled();
  assert.deepEqual(versions(await files.load()), ["r100-e", "r1-e"]);
});

test("terms that came after the snapshot are kept with it", () => {
  const revocations = resource("revocations", "later");
  for (const terms of [
    { revision: 9n, revocations },
    { revision: 9n, revocations: undefined },
  ]) {
    assert.deepEqual(decodeSnapshot(encodeSnapshot({ ...snapshot(3), terms })).terms, terms);
  }
});

test("a file cut off anywhere is refused", () => {
  const file = encodeSnapshot(snapshot(1));
  for (let length = 0; length < file.length; length++) {
    assert.throws(() => decodeSnapshot(file.subarray(0, length)), LastGoodError, `${length} of ${file.length} bytes`);
  }
});

test("a file with any byte changed is refused", () => {
  const file = encodeSnapshot({ ...snapshot(1), terms: { revision: 2n, revocations: resource("revocations", "x") } });
  for (let at = 0; at < file.length; at++) {
    const changed = Buffer.from(file);
    changed[at] = (changed[at] ?? 0) ^ (1 << randomInt(8));
    assert.throws(() => decodeSnapshot(changed), LastGoodError, `byte ${at} of ${file.length}`);
  }
});

test("bytes after the end are refused, and so is what another software wrote", () => {
  const file = encodeSnapshot(snapshot(1));
  assert.throws(() => decodeSnapshot(Buffer.concat([file, Buffer.from("\n")])), /torn or was changed/);
  const other = Buffer.from(file.toString("latin1").replace("VMCP-LAST-GOOD 1 ", "VMCP-LAST-GOOD 2 "), "latin1");
  assert.throws(() => decodeSnapshot(other), /its format is 2/);
});

for (const [what, damage] of [
  ["torn", (file: Buffer) => file.subarray(0, file.length / 2)],
  ["empty", () => Buffer.alloc(0)],
  ["of zeros, as after a power cut", (file: Buffer) => Buffer.alloc(file.length)],
] as const) {
  test(`when the newest is ${what}, the one before is there; and the next is newer than both`, async (t) => {
    const directory = await temporary(t);
    const files = await opened(directory);
    for (const revision of [1, 2]) {
      files.save(snapshot(revision));
      await files.settled();
    }
    const newest = join(directory, (await readdir(directory)).sort().at(-1) ?? "");
    await writeFile(newest, damage(await readFile(newest)));
    assert.deepEqual(versions(await files.load()), ["r1-e"]);
    files.save(snapshot(3));
    await files.settled();
    assert.deepEqual(versions(await files.load()), ["r3-e", "r1-e"]);
  });
}

test("a directory that can't be used is said once, and nothing is kept", async (t) => {
  const directory = await temporary(t);
  await writeFile(join(directory, "file"), "");
  assert.equal(await openLastGood(join(directory, "file", "below"), log), undefined);
});

test("when the disk is full, what was there stays, and when there is room again it goes on", async (t) => {
  await using disk = await smallDisk(64 * 1024);
  if (disk === undefined) return t.skip("this user may not mount a small disk");
  const files = await opened(join(disk.path, "state"));
  files.save(snapshot(1));
  await files.settled();
  const filler = join(disk.path, "filler");
  await writeFile(filler, Buffer.alloc(50 * 1024));
  files.save({ ...snapshot(2), ...contentOf([resource("large", "x".repeat(40 * 1024))]) });
  await files.settled();
  assert.deepEqual(versions(await files.load()), ["r1-e"]);
  assert.deepEqual((await readdir(files.directory)).length, 1, "nothing half written is left");
  await rm(filler);
  files.save(snapshot(3));
  await files.settled();
  assert.deepEqual(versions(await files.load()), ["r3-e", "r1-e"]);
});

test("a process that is killed while it writes, again and again, leaves one that is whole, and none older than it said", async (t) => {
  const directory = await temporary(t);
  let said = 0;
  for (let round = 0; round < 8; round++) {
    const writer = await startLastGoodWriter(directory, said + 1);
    await sleep(20 + randomInt(120));
    said = Math.max(said, await writer.kill());
    const files = await opened(directory);
    const [newest] = await files.load();
    assert.ok(newest, `round ${round}: nothing to start from`);
    assert.ok(newest.revision >= BigInt(said), `round ${round}: r${newest.revision} is there, and r${said} was written`);
    assert.equal((await readdir(directory)).filter((name) => name.startsWith(".")).length, 0, "what was half written is gone");
    said = Number(newest.revision);
  }
  assert.ok(said > 8, `only ${said} were written`);
});

async function temporary(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "vmcp-last-good-"));
  await chmod(directory, 0o700);
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function opened(directory: string) {
  const files = await openLastGood(directory, log);
  assert.ok(files);
  return files;
}

function snapshot(revision: number): SavedSnapshot {
  const content = contentOf([resource("a", `of ${revision}`), resource("b", "b")]);
  return {
    ...content,
    version: `r${revision}-e`,
    revision: BigInt(revision),
    storeUid: "store",
    createdMs: 1_000,
    terms: undefined,
  };
}

function contentOf(resources: SavedSnapshot["resources"]) {
  return { resources, digest: snapshotDigest(resources) };
}

function resource(name: string, text: string) {
  const value = Buffer.from(text);
  const digest = resourceDigest(value);
  return create(SnapshotResourceSchema, { name, digest, body: { typeUrl: "type.googleapis.com/test.Text", value } });
}

function versions(saved: readonly SavedSnapshot[]): string[] {
  return saved.map(({ version }) => version);
}
