// PostgreSQL, for any number of control planes that all take changes. A notification only wakes; what happened is read from the
// tables, and asked for every 2 s besides, so that one that got lost costs 2 s.
import { randomUUID } from "node:crypto";
import { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { Log } from "../../common/log.ts";
import { type ChangeFeed, createChangeFeed } from "../change-feed.ts";
import { type Database, type Dialect, format, type Query, type Row, tables, tablesSince, type Value } from "./database.ts";
import { type PostgresAddress, postgresName, readPostgresAddress } from "./postgres-address.ts";
import { createSqlStore, type StoreOptions } from "./sql-store.ts";
import { type Store, StoreError } from "./store.ts";

const connectMs = 2_000;

// The server gives up first, so that it says why; a server that says nothing is given up a second later.
const statementMs = 4_000;
const queryMs = 5_000;

// A control plane that hangs in the middle of a commit holds the lock that all others wait for, so it loses it before they give up.
const idleInTransactionMs = 3_000;

// A commit holds one for a few milliseconds, and a lock lets them commit one after the other anyway.
const connectionsMax = 8;

const pollMs = 2_000;
const backoffMaxMs = 2_000;

export interface PostgresOptions extends StoreOptions {
  /** `postgres://user@host:port/database`, see postgres-address.ts. */
  readonly address: string;
  readonly log: Log;
  /** Where a password may be. Default: the environment of this process. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
}

/**
 * Opens the store, and makes its tables when they are not there. Throws StoreError: `unavailable` when the server does not answer, so
 * that trying again may help, `unusable` when it does not take us.
 */
export async function openPostgresStore({ address, env = process.env, log, ...options }: PostgresOptions): Promise<Store> {
  const where = readPostgresAddress(address, env);
  const config = configOf(where);
  await using opened = new AsyncDisposableStack();
  // Idle connections to a server that hangs must not keep this process.
  const pool = opened.adopt(new pg.Pool({ ...config, max: connectionsMax, allowExitOnIdle: true }), (one) => one.end());
  // A connection that breaks tells whoever waits for its answer; that it also emits would end this process.
  pool.on("error", () => undefined).on("connect", (client) => client.on("error", () => undefined));
  const transaction = transactionOn(pool, where.schema);
  const feed = createChangeFeed();
  const closing = new AbortController();
  try {
    await transaction((query) => migrate(query, where.schema));
    const listening = listen({ config, where, feed, log, signal: closing.signal });
    opened.defer(async () => {
      closing.abort();
      await listening;
    });
    const query: Query = (text, values) => ask(pool, text, values);
    const clock = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    const database = { query, transaction, commits: feed, clock, [Symbol.asyncDispose]: () => owned.disposeAsync() };
    const store = await createSqlStore(database, options);
    const owned = opened.move();
    return store;
  } catch (error) {
    throw openingError(where, error);
  }
}

type Config = pg.ClientConfig & { readonly password: (() => string) | undefined };

function configOf({ host, port, user, database, schema, tls, password }: PostgresAddress): Config {
  return {
    ...{ host, port, user, database, password, ssl: tls ?? false },
    application_name: "vmcp",
    options: `-c search_path=${schema}`,
    connectionTimeoutMillis: connectMs,
    statement_timeout: statementMs,
    query_timeout: queryMs,
    idle_in_transaction_session_timeout: idleInTransactionMs,
    keepAlive: true,
    types: { getTypeParser: (oid, as) => (oid === pg.types.builtins.INT8 ? BigInt : pg.types.getTypeParser(oid, as)) },
  };
}

function transactionOn(pool: pg.Pool, channel: string): Database["transaction"] {
  return async (work) => {
    const client = await pool.connect().catch((error) => {
      throw failure(error);
    });
    const query: Query = (text, values) => ask(client, text, values);
    let isCommitting = false;
    try {
      await query("BEGIN");
      const result = await work(query);
      await query("SELECT pg_notify(?, '')", [channel]);
      isCommitting = true;
      await query("COMMIT");
      client.release();
      return result;
    } catch (error) {
      const isBroken = !(error instanceof StoreError) || error.code === "unavailable";
      // Without the connection the server undoes what was not committed; asking a broken one to would only be waiting.
      if (isBroken) client.release(true);
      else
        await query("ROLLBACK").then(
          () => client.release(),
          () => client.release(true),
        );
      throw isCommitting
        ? new StoreError("uncertain", `the store was lost while it committed: ${(error as Error).message}`)
        : error;
    }
  };
}

async function ask(on: pg.Pool | pg.ClientBase, text: string, values: readonly Value[] = []): Promise<Row[]> {
  let at = 0;
  try {
    return (
      await on.query(
        text.replaceAll("?", () => `$${++at}`),
        [...values],
      )
    ).rows;
  } catch (error) {
    throw failure(error);
  }
}

const dialect: Dialect = { text: `TEXT COLLATE "C"`, integer: "BIGINT", bytes: "BYTEA", options: "" };

/** Control planes that start together take turns, and all but the first find everything there. */
async function migrate(query: Query, schema: string): Promise<void> {
  await query("SELECT pg_advisory_xact_lock(hashtext(?))", [`vmcp ${schema}`]);
  const [present] = await query("SELECT to_regclass('store_format') IS NOT NULL AS is_there");
  if (!present?.is_there) await makeTables(query, schema);
  const [row] = await query("SELECT format FROM store_format");
  const found = Number(row?.format);
  if (found >= 2 && found < format) {
    await run(query, tablesSince(found, dialect));
    await query("UPDATE store_format SET format = ?", [format]);
    return;
  }
  if (row?.format !== BigInt(format)) {
    throw new StoreError("unusable", `the store has format ${row?.format}; this version reads and writes ${format}`);
  }
}

async function makeTables(query: Query, schema: string): Promise<void> {
  // Asked first, because even IF NOT EXISTS wants the right to make one.
  const [found] = await query("SELECT to_regnamespace(?) IS NOT NULL AS is_there", [schema]);
  if (!found?.is_there) await query(`CREATE SCHEMA ${schema}`);
  await run(query, tables(dialect));
  await query("CREATE TABLE store_format (format BIGINT NOT NULL)");
  await query("INSERT INTO store_format (format) VALUES (?)", [format]);
  await query("INSERT INTO meta (id, store_uid, revision) VALUES (1, ?, 0)", [randomUUID()]);
}

async function run(query: Query, statements: string): Promise<void> {
  for (const statement of statements.split(";")) if (statement.trim() !== "") await query(statement);
}

interface Listening {
  readonly config: Config;
  readonly where: PostgresAddress;
  readonly feed: ChangeFeed;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Wakes the feed on a connection of its own, and makes a new one when that breaks, until the signal aborts. */
async function listen({ config, where, feed, log, signal }: Listening): Promise<void> {
  let isAway = false;
  for (let failures = 0; !signal.aborted; failures += 1) {
    // Ours, so that it can be let go at once: a polite end waits for a server that may hang.
    const socket = new Socket();
    const client = new pg.Client({ ...config, stream: () => socket });
    const letGo = () => void socket.destroy();
    signal.addEventListener("abort", letGo);
    client.on("error", () => undefined).on("notification", () => feed.wake());
    try {
      await client.connect();
      await ask(client, `LISTEN ${where.schema}`);
      if (isAway) log.info({ store: postgresName(where) }, "PostgreSQL is back");
      isAway = false;
      failures = 0;
      await poll(client, feed, signal);
    } catch (error) {
      if (!isAway && !signal.aborted) {
        const reason = failure(error).message;
        log.warn({ store: postgresName(where), reason }, "PostgreSQL is away: proxies keep what they have, changes are refused");
      }
      isAway = true;
    } finally {
      signal.removeEventListener("abort", letGo);
      letGo();
    }
    const backoffMs = Math.min(backoffMaxMs, 100 * 2 ** failures);
    await delay(backoffMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
  }
}

/** Returns when the signal aborts, throws when the server does not answer. */
async function poll(client: pg.Client, feed: ChangeFeed, signal: AbortSignal): Promise<void> {
  for (let seen: unknown; !signal.aborted; ) {
    const [row] = await ask(client, "SELECT revision FROM meta");
    if (row?.revision !== seen) feed.wake();
    seen = row?.revision;
    await delay(pollMs, undefined, { signal }).catch(() => undefined);
  }
}

// SQLSTATE of what an operator must mend: authorization (28), no such database, role or right.
const refusals = /^(28...|3D000|42501)$/;

function openingError(where: PostgresAddress, error: unknown): StoreError {
  const { code, message, cause } = failure(error);
  const isHopeless = code === "unusable" || refusals.test(String(cause));
  return new StoreError(isHopeless ? "unusable" : "unavailable", `can't open the store ${postgresName(where)}: ${message}`);
}

/**
 * What went wrong, in one line. The driver's error is not passed on: it holds the connection with its password, and may show values.
 * The cause is the code alone.
 */
function failure(error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const { code = "", message = "" } = error as Partial<pg.DatabaseError>;
  const text = message === "" ? code : message;
  return new StoreError("unavailable", `the store failed: ${text}`, { cause: code });
}
