// The last snapshots that were live, on disk: what a proxy starts from when no control plane answers. A file is there whole or
// not at all: it is written aside, synced, renamed, and its directory is synced.
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../../common/log.ts";
import { reasonOf } from "../backends/errors.ts";
import { decodeSnapshot, encodeSnapshot, type SavedSnapshot } from "./last-good-format.ts";

// When the newest is damaged there is one before it, and one more.
const keptMax = 3;

// A message of a control plane has half of it at most.
const fileBytesMax = 64 * 1024 * 1024;

const namePattern = /^(\d{12})-r\d+[-\w]*\.vmcp$/;

export interface LastGood extends AsyncDisposable {
  readonly directory: string;
  /** Those that can be used, newest first; the others are logged. */
  load(): Promise<SavedSnapshot[]>;
  /** Writes it when what is being written is there; the newest wins. Never throws: serving goes on without. */
  save(snapshot: SavedSnapshot): void;
  /** Resolves when nothing waits to be written. */
  settled(): Promise<void>;
}

/** Creates the directory, only for this user. Gives undefined, and says so in the log, when that can't be. */
export async function openLastGood(directory: string, log: Log): Promise<LastGood | undefined> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await removeLeftovers(directory);
  } catch (error) {
    log.warn({ directory, reason: reasonOf(error) }, "snapshots can't be kept on disk; a restart needs a control plane");
    return undefined;
  }
  let waiting: SavedSnapshot | undefined;
  let writing: Promise<void> | undefined;
  let isFailing = false;

  async function writeAll(): Promise<void> {
    while (waiting !== undefined) {
      const next = waiting;
      waiting = undefined;
      try {
        await write(directory, next);
        isFailing = false;
      } catch (error) {
        if (!isFailing) log.error({ directory, reason: reasonOf(error) }, "a snapshot could not be kept on disk");
        isFailing = true;
      }
    }
    writing = undefined;
  }

  const settled = async (): Promise<void> => {
    while (writing !== undefined) await writing;
  };

  return {
    directory,
    async load() {
      const usable: SavedSnapshot[] = [];
      for (const name of (await listed(directory)).reverse()) {
        try {
          usable.push(await readSnapshotFile(join(directory, name)));
        } catch (error) {
          log.error({ file: join(directory, name), reason: reasonOf(error) }, "a snapshot on disk can't be used");
        }
      }
      return usable;
    },
    save(snapshot) {
      waiting = snapshot;
      writing ??= writeAll();
    },
    settled,
    [Symbol.asyncDispose]: settled,
  };
}

/** Throws when there is none, or LastGoodError. */
export async function readSnapshotFile(path: string): Promise<SavedSnapshot> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    if (size > fileBytesMax) throw new Error(`it has ${size} bytes; ${fileBytesMax} at most are read`);
    return decodeSnapshot(await file.readFile());
  } finally {
    await file.close();
  }
}

/** Oldest first: each name begins with a number that grows. */
async function listed(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => namePattern.test(name)).sort();
}

async function write(directory: string, snapshot: SavedSnapshot): Promise<void> {
  const before = await listed(directory);
  const sequence = Number(namePattern.exec(before.at(-1) ?? "")?.[1] ?? 0) + 1;
  const name = `${String(sequence).padStart(12, "0")}-${snapshot.version}.vmcp`;
  const aside = join(directory, `.${name}.${process.pid}`);
  try {
    const file = await open(aside, "w", 0o600);
    try {
      await file.writeFile(encodeSnapshot(snapshot));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(aside, join(directory, name));
  } catch (error) {
    await rm(aside, { force: true });
    throw error;
  }
  await syncDirectory(directory);
  for (const old of before.slice(0, -(keptMax - 1))) await rm(join(directory, old), { force: true });
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Of processes that were killed while they wrote. */
async function removeLeftovers(directory: string): Promise<void> {
  for (const name of await readdir(directory)) if (/^\.\d{12}-/.test(name)) await rm(join(directory, name), { force: true });
}
