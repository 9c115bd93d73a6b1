// What a driver gives the store: statements, transactions, and word that something was committed.
import type { ChangeFeed } from "../change-feed.ts";

/** Integers are bigint, bytes Uint8Array, absent values null. */
export type Row = Readonly<Record<string, unknown>>;
export type Value = string | bigint | number | Uint8Array | null;

/** One statement, with a `?` for each value. */
export type Query = (text: string, values?: readonly Value[]) => Promise<Row[]>;

/** What goes wrong in it is a StoreError that shows no value and no password. */
export interface Database extends AsyncDisposable {
  /** Sees what is committed, and one moment of it. */
  readonly query: Query;
  /** Commits when `work` resolves, and undoes everything when it throws. Every statement of it sees those before. */
  transaction<T>(work: (query: Query) => Promise<T>): Promise<T>;
  /** Wakes when something may have been committed, here or by somebody else, and when the medium is back. */
  readonly commits: Pick<ChangeFeed, "next">;
  /** An expression of SQL: milliseconds now, by the clock that all users of the database share. */
  readonly clock: string;
}

/** How the types of the tables are called. */
export interface Dialect {
  /** Compared byte by byte. */
  readonly text: string;
  readonly integer: string;
  readonly bytes: string;
  /** What ends a `CREATE TABLE`. */
  readonly options: string;
}

/** The format of the tables that this version reads and writes. */
export const format = 6;

/** What makes an empty store of the present format. */
export function tables({ text, integer, bytes, options }: Dialect): string {
  return `
    CREATE TABLE meta (
      id ${integer} PRIMARY KEY CHECK (id = 1),
      store_uid ${text} NOT NULL,
      revision ${integer} NOT NULL,
      forgotten ${integer} NOT NULL DEFAULT 0,
      audit_id ${integer} NOT NULL DEFAULT 0,
      audit_hash ${text} NOT NULL DEFAULT ''
    ) ${options};
    CREATE TABLE resource (name ${text} PRIMARY KEY, etag ${text} NOT NULL, body ${bytes} NOT NULL) ${options};
    CREATE TABLE revision (
      id ${integer} PRIMARY KEY,
      reason ${text} NOT NULL,
      time_ms ${integer} NOT NULL,
      actor ${text} NOT NULL DEFAULT '',
      request_id ${text} NOT NULL DEFAULT ''
    ) ${options};
    CREATE TABLE change (
      revision ${integer} NOT NULL, name ${text} NOT NULL, before ${bytes}, after ${bytes}, PRIMARY KEY (revision, name)
    ) ${options};
    ${tablesSince(1, { text, integer, bytes, options })}
  `;
}

/** What later formats than this have besides. */
export function tablesSince(found: number, dialect: Dialect): string {
  return [tablesOfFormat2, tablesOfFormat3, tablesOfFormat4, tablesOfFormat5, tablesOfFormat6]
    .slice(found - 1)
    .map((tablesOf) => tablesOf(dialect))
    .join("");
}

function tablesOfFormat2({ text, integer, options }: Dialect): string {
  return `
    CREATE TABLE audit (id ${integer} PRIMARY KEY, entry ${text} NOT NULL, hash ${text} NOT NULL) ${options};
    CREATE TABLE lease (
      name ${text} PRIMARY KEY, holder ${text} NOT NULL, token ${integer} NOT NULL, until_ms ${integer} NOT NULL
    ) ${options};
  `;
}

function tablesOfFormat3({ text, integer, options }: Dialect): string {
  return `
    CREATE TABLE record (
      kind ${text} NOT NULL, id ${text} NOT NULL, version ${integer} NOT NULL, body ${text} NOT NULL, PRIMARY KEY (kind, id)
    ) ${options};
  `;
}

function tablesOfFormat4({ text, integer, bytes, options }: Dialect): string {
  return `
    CREATE TABLE catalog (
      name ${text} PRIMARY KEY, version ${integer} NOT NULL, body ${bytes} NOT NULL, time_ms ${integer} NOT NULL
    ) ${options};
  `;
}

function tablesOfFormat5({ text, integer, bytes, options }: Dialect): string {
  return `
    CREATE TABLE answer (
      request_id ${text} PRIMARY KEY, fingerprint ${text} NOT NULL, body ${bytes} NOT NULL, time_ms ${integer} NOT NULL
    ) ${options};
  `;
}

function tablesOfFormat6({ text, integer, bytes, options }: Dialect): string {
  return `
    CREATE TABLE control_plane (
      id ${text} PRIMARY KEY,
      number ${integer} NOT NULL,
      body ${bytes} NOT NULL,
      heard_ms ${integer} NOT NULL,
      until_ms ${integer} NOT NULL
    ) ${options};
    CREATE TABLE proxy_status (
      control_plane ${text} NOT NULL,
      proxy ${text} NOT NULL,
      number ${integer} NOT NULL,
      body ${bytes} NOT NULL,
      PRIMARY KEY (control_plane, proxy)
    ) ${options};
  `;
}

// Rows of one statement: databases bound the number of values.
const batchSize = 500;

export function batches<T>(all: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(all.length / batchSize) }, (_, at) => all.slice(at * batchSize, (at + 1) * batchSize));
}

/** `(?, ?, ?)` */
export function placeholders(count: number): string {
  return `(${Array(count).fill("?").join(", ")})`;
}

/** `(?, ?), (?, ?)`; `more` goes to the end of each. */
export function tuples(count: number, width: number, more = ""): string {
  return Array(count)
    .fill(`${placeholders(width).slice(0, -1)}${more})`)
    .join(", ");
}
