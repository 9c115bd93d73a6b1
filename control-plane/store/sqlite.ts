// The embedded database: one SQLite file, or memory. One process has it open; a second one is told so.
import { randomUUID } from "node:crypto";
import { chmodSync, existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { createChangeFeed } from "../change-feed.ts";
import { type Database, type Dialect, format, type Query, tables, tablesSince } from "./database.ts";
import { createSqlStore, type StoreOptions } from "./sql-store.ts";
import { type Store, StoreError } from "./store.ts";

export interface SqliteOptions extends StoreOptions {
  /** Path of the file, created with its folder when absent; `:memory:` keeps nothing. */
  readonly file: string;
}

/** Opens or creates the store. Throws StoreError `unusable` when the file can't be used. */
export async function openSqliteStore({ file, nowMs = Date.now, ...options }: SqliteOptions): Promise<Store> {
  const db = openFile(file, nowMs);
  return createSqlStore(createDatabase(db), { nowMs, ...options });
}

function createDatabase(db: DatabaseSync): Database {
  const feed = createChangeFeed();
  // One connection: who reads while somebody's transaction is under way would see what is not committed.
  let last: Promise<unknown> = Promise.resolve();

  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work);
    last = turn.catch(() => undefined);
    return turn;
  }

  const query: Query = async (text, values = []) =>
    guarded(() => {
      const statement = db.prepare(text);
      statement.setReadBigInts(true);
      return statement.all(...values);
    });

  async function transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    guarded(() => db.exec("BEGIN IMMEDIATE"));
    try {
      const result = await work(query);
      guarded(() => db.exec("COMMIT"));
      feed.wake();
      return result;
    } catch (error) {
      // A failed COMMIT (a full disk) leaves the transaction open; a failed statement may have ended it already.
      if (db.isOpen && db.isTransaction) db.exec("ROLLBACK");
      throw error;
    }
  }

  return {
    query: (text, values) => inTurn(() => query(text, values)),
    transaction: (work) => inTurn(() => transaction(work)),
    commits: feed,
    clock: "now_ms()",
    async [Symbol.asyncDispose]() {
      await inTurn(async () => db.isOpen && db.close());
    },
  };
}

function openFile(file: string, nowMs: () => number): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    if (file !== ":memory:") makeFolder(dirname(file));
    db = new DatabaseSync(file, { timeout: 1000 });
    // Declared resources may hold literal credentials, which the original format allows.
    if (file !== ":memory:") chmodSync(file, 0o600);
    // EXCLUSIVE: a second control plane on the same file would push from its own memory of it. The lock is taken below.
    db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
    db.function("now_ms", () => nowMs());
    migrate(db);
    checkPages(db);
    return db;
  } catch (error) {
    if (db?.isOpen) db.close();
    throw new StoreError("unusable", `can't open the store "${file}": ${whyNot(error)}`, { cause: error });
  }
}

// One level only: Node's recursive mkdir never returns for some paths that can't be made, such as those below /proc.
function makeFolder(folder: string): void {
  if (!existsSync(folder)) mkdirSync(folder);
}

const dialect: Dialect = { text: "TEXT", integer: "INTEGER", bytes: "BLOB", options: "STRICT" };

function migrate(db: DatabaseSync): void {
  const found = Number(db.prepare("PRAGMA user_version").get()?.user_version);
  if (found > format) throw new Error(`it has format ${found}; this version reads up to ${format}`);
  if (found === format) return;
  db.exec("BEGIN IMMEDIATE");
  if (found === 0) db.exec(tables(dialect));
  if (found === 1) db.exec(fromFormat1);
  if (found > 0) db.exec(tablesSince(found, dialect));
  db.prepare("INSERT INTO meta (id, store_uid, revision) VALUES (1, ?, 0) ON CONFLICT DO NOTHING").run(randomUUID());
  db.exec(`PRAGMA user_version = ${format}; COMMIT`);
}

const fromFormat1 = `
  ALTER TABLE meta ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE meta ADD COLUMN audit_id INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE meta ADD COLUMN audit_hash TEXT NOT NULL DEFAULT '';
  UPDATE meta SET forgotten = coalesce((SELECT min(id) FROM revision) - 1, revision);
  ALTER TABLE revision ADD COLUMN actor TEXT NOT NULL DEFAULT '';
  ALTER TABLE revision ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
`;

/** Better no control plane than one that pushes what is left of a damaged file. */
function checkPages(db: DatabaseSync): void {
  const found = db.prepare("PRAGMA quick_check(1)").get()?.quick_check;
  if (found !== "ok") throw new Error(`the file is damaged: ${found}`);
}

function whyNot(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  if (/locked|busy/i.test(text)) return "another process has it open";
  if (/malformed/.test(text)) return "the file is damaged";
  return /not a database/.test(text) ? "the file is no store" : text;
}

function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StoreError("unavailable", `the store failed: ${reason}`, { cause: error });
  }
}
