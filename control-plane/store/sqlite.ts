// The embedded store: one SQLite file, or memory. One process has it open; a second one is told so.
import { randomUUID } from "node:crypto";
import { chmodSync, existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { createChangeFeed } from "../change-feed.ts";
import { contentBytes, etagOf } from "./content.ts";
import { type Change, type Changed, type Commit, type CommitOptions, type Store, StoreError } from "./store.ts";

const schemaVersion = 1;

// Enough for a watcher that was away for an hour of busy editing, and small: a commit is a few kilobytes.
const revisionsKeptDefault = 1000;

const reasonCharactersMax = 1000;
const watchBatch = 100;

export interface SqliteOptions {
  /** Path of the file, created with its folder when absent; `:memory:` keeps nothing. */
  readonly file: string;
  /** Default: the system's clock. */
  readonly nowMs?: (() => number) | undefined;
  /** Commits whose changes can be read back. Default 1000, at least 1. */
  readonly revisionsKept?: number | undefined;
}

/** Opens or creates the store. Throws StoreError `unavailable` when the file can't be used. */
export function openSqliteStore(options: SqliteOptions): Store {
  const { file, nowMs = Date.now, revisionsKept = revisionsKeptDefault } = options;
  const db = openDatabase(file);
  const sql = prepare(db);
  const uid = String(sql.meta.get()?.store_uid);
  const feed = createChangeFeed();
  const closing = new AbortController();

  function commit(changes: readonly Change[], { reason, expectedRevision }: CommitOptions): Commit {
    const present = revisionOf(sql.meta.get());
    if (expectedRevision !== undefined && expectedRevision !== present) {
      throw new StoreError("conflict", `the store is at revision ${present}, not ${expectedRevision}`);
    }
    const changed = changes.flatMap((change) => effect(change, present + 1n));
    if (changed.length === 0) return { revision: present, changes: [] };
    // The number comes from a row that this transaction has changed, so that numbers follow the order of commits in every driver.
    const revision = revisionOf(sql.nextRevision.get());
    sql.addRevision.run(revision, reason.slice(0, reasonCharactersMax), nowMs());
    for (const { name, before, after } of changed) {
      if (after === undefined) sql.remove.run(name);
      else sql.put.run(name, after.etag, toBinary(ResourceSchema, after));
      sql.addChange.run(revision, name, encoded(before), encoded(after));
    }
    sql.forgetChanges.run(revision - BigInt(revisionsKept));
    sql.forgetRevisions.run(revision - BigInt(revisionsKept));
    return { revision, changes: changed };
  }

  function effect({ name, resource, expectedEtag }: Change, revision: bigint): Changed[] {
    const before = read(name);
    if (expectedEtag !== undefined && expectedEtag !== (before?.etag ?? "")) {
      const seen = before === undefined ? "it does not exist" : `it is ${before.etag}`;
      throw new StoreError("conflict", `"${name}" was expected to have etag ${expectedEtag}, but ${seen}`, { resource: name });
    }
    if (resource === undefined) return before === undefined ? [] : [{ name, before, after: undefined }];
    const etag = etagOf(contentBytes(resource));
    if (before?.etag === etag) return [];
    const time: Timestamp = timestampFromMs(nowMs());
    const createTime = before?.createTime ?? time;
    const after = create(ResourceSchema, { name, spec: resource.spec, revision, etag, createTime, updateTime: time });
    return [{ name, before, after }];
  }

  function read(name: string): Resource | undefined {
    const row = sql.get.get(name);
    return row === undefined ? undefined : decoded(row.body);
  }

  function changesSince(revision: bigint, limit: number): Commit[] {
    const present = revisionOf(sql.meta.get());
    const oldest = sql.oldestRevision.get()?.id;
    const known = revision <= present && (revision === present || (typeof oldest === "bigint" && revision >= oldest - 1n));
    if (!known)
      throw new StoreError("compacted", `the changes after revision ${revision} are not kept; the store is at ${present}`);
    const commits: { revision: bigint; changes: Changed[] }[] = [];
    for (const row of sql.changes.iterate(revision, revision + BigInt(limit))) {
      const at = BigInt(row.revision as bigint);
      if (commits.at(-1)?.revision !== at) commits.push({ revision: at, changes: [] });
      commits.at(-1)?.changes.push({ name: String(row.name), before: decoded(row.before), after: decoded(row.after) });
    }
    return commits;
  }

  async function* watch(revision: bigint, signal: AbortSignal): AsyncGenerator<Commit> {
    const ended = AbortSignal.any([signal, closing.signal]);
    for (let seen = revision; !ended.aborted; ) {
      const woken = feed.next(ended);
      const commits = changesSince(seen, watchBatch);
      for (const commit of commits) {
        if (ended.aborted) return;
        yield commit;
        seen = commit.revision;
      }
      if (commits.length === 0) await woken;
    }
  }

  return {
    uid,
    watch,
    async commit(changes, commitOptions) {
      const result = guarded(() => inTransaction(db, () => commit(changes, commitOptions)));
      if (result.changes.length > 0) feed.wake();
      return result;
    },
    async get(name) {
      return guarded(() => read(name));
    },
    async list() {
      return guarded(() =>
        inTransaction(db, () => ({
          revision: revisionOf(sql.meta.get()),
          resources: sql.list.all().map((row) => fromBinary(ResourceSchema, row.body as Uint8Array)),
        })),
      );
    },
    async changesSince(revision, limit) {
      return guarded(() => changesSince(revision, limit));
    },
    async history(limit) {
      return guarded(() =>
        sql.history.all(limit).map((row) => ({
          revision: BigInt(row.id as bigint),
          reason: String(row.reason),
          timeMs: Number(row.time_ms),
        })),
      );
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      if (db.isOpen) db.close();
    },
  };
}

function openDatabase(file: string): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    if (file !== ":memory:") makeFolder(dirname(file));
    db = new DatabaseSync(file, { timeout: 1000 });
    // Declared resources may hold literal credentials, which the original format allows.
    if (file !== ":memory:") chmodSync(file, 0o600);
    // EXCLUSIVE: a second control plane on the same file would push from its own memory of it. The lock is taken below.
    db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
    migrate(db);
    return db;
  } catch (error) {
    if (db?.isOpen) db.close();
    if (error instanceof StoreError) throw error;
    const busy = error instanceof Error && /locked|busy/i.test(error.message);
    const why = busy ? "another process has it open" : error instanceof Error ? error.message : String(error);
    throw new StoreError("unavailable", `can't open the store "${file}": ${why}`, { cause: error });
  }
}

// One level only: Node's recursive mkdir never returns for some paths that can't be made, such as those below /proc.
function makeFolder(folder: string): void {
  if (!existsSync(folder)) mkdirSync(folder);
}

function migrate(db: DatabaseSync): void {
  const found = Number(db.prepare("PRAGMA user_version").get()?.user_version);
  if (found > schemaVersion) {
    throw new StoreError("unavailable", `the store has format ${found}; this version reads up to ${schemaVersion}`);
  }
  inTransaction(db, () => {
    if (found === 0) db.exec(tables);
    db.prepare("INSERT INTO meta (id, store_uid, revision) VALUES (1, ?, 0) ON CONFLICT DO NOTHING").run(randomUUID());
    db.exec(`PRAGMA user_version = ${schemaVersion}`);
  });
}

const tables = `
  CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), store_uid TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
  CREATE TABLE resource (name TEXT PRIMARY KEY, etag TEXT NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE revision (id INTEGER PRIMARY KEY, reason TEXT NOT NULL, time_ms INTEGER NOT NULL) STRICT;
  CREATE TABLE change (
    revision INTEGER NOT NULL, name TEXT NOT NULL, before BLOB, after BLOB, PRIMARY KEY (revision, name)
  ) STRICT, WITHOUT ROWID;
`;

function prepare(db: DatabaseSync) {
  const statement = (text: string) => {
    const prepared = db.prepare(text);
    prepared.setReadBigInts(true);
    return prepared;
  };
  return {
    meta: statement("SELECT store_uid, revision FROM meta"),
    nextRevision: statement("UPDATE meta SET revision = revision + 1 RETURNING revision"),
    get: statement("SELECT body FROM resource WHERE name = ?"),
    list: statement("SELECT body FROM resource ORDER BY name"),
    put: statement("INSERT INTO resource VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET etag = excluded.etag, body = excluded.body"),
    remove: statement("DELETE FROM resource WHERE name = ?"),
    addRevision: statement("INSERT INTO revision VALUES (?, ?, ?)"),
    addChange: statement("INSERT INTO change VALUES (?, ?, ?, ?)"),
    changes: statement("SELECT * FROM change WHERE revision > ? AND revision <= ? ORDER BY revision, name"),
    oldestRevision: statement("SELECT min(id) AS id FROM revision"),
    forgetChanges: statement("DELETE FROM change WHERE revision <= ?"),
    forgetRevisions: statement("DELETE FROM revision WHERE id <= ?"),
    history: statement("SELECT * FROM revision ORDER BY id DESC LIMIT ?"),
  };
}

function inTransaction<T>(db: DatabaseSync, work: () => T): T {
  db.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    db.exec("COMMIT");
    return result;
  } catch (error) {
    // A failed COMMIT (a full disk) leaves the transaction open; a failed statement may have ended it already.
    if (db.isTransaction) db.exec("ROLLBACK");
    throw error;
  }
}

function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof StoreError) throw error;
    throw new StoreError("unavailable", `the store failed: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
}

function revisionOf(row: Record<string, unknown> | undefined): bigint {
  return BigInt((row?.revision as bigint | undefined) ?? 0n);
}

function encoded(resource: Resource | undefined): Uint8Array | null {
  return resource === undefined ? null : toBinary(ResourceSchema, resource);
}

function decoded(body: unknown): Resource | undefined {
  return body instanceof Uint8Array ? fromBinary(ResourceSchema, body) : undefined;
}
