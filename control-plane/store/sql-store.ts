// The store over any database that speaks SQL: one text for all of them, so that they can't come to differ.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { createAnswers } from "./answers.ts";
import { cut, lineOfChange, lineOfCommit, lineOfDenied } from "./audit.ts";
import { createCatalogShelf } from "./catalogs.ts";
import { contentBytes, etagOf } from "./content.ts";
import { batches, type Database, placeholders, type Query, tuples, type Value } from "./database.ts";
import { createPeers } from "./peers.ts";
import { createRecords } from "./records.ts";
import {
  type AuditHead,
  type AuditLine,
  type Change,
  type Changed,
  type Commit,
  type CommitOptions,
  type Fence,
  type Leases,
  type Store,
  StoreError,
} from "./store.ts";

// Enough for a watcher that was away for an hour of busy editing, and small: a commit is a few kilobytes.
const revisionsKeptDefault = 1000;

// Some 50 MB. Who must keep more exports it.
const auditLinesKeptDefault = 100_000;

const watchBatch = 100;

const revisionMax = 2n ** 63n - 1n;

// How long a watcher waits for word that the medium is back before it tries by itself.
const awayMs = 2_000;

export interface StoreOptions {
  /** Default: the system's clock. */
  readonly nowMs?: (() => number) | undefined;
  /** Commits whose changes can be read back. Default 1000, at least 1. */
  readonly revisionsKept?: number | undefined;
  /** Lines of the audit trail. Default 100,000, at least 1. */
  readonly auditLinesKept?: number | undefined;
}

/** The store in a database whose tables are there. Closes it when disposed. */
export async function createSqlStore(database: Database, options: StoreOptions): Promise<Store> {
  const { nowMs = Date.now, revisionsKept = revisionsKeptDefault, auditLinesKept = auditLinesKeptDefault } = options;
  const { query, transaction } = database;
  const closing = new AbortController();
  const [row] = await query("SELECT store_uid FROM meta");
  const uid = String(row?.store_uid);
  const answers = createAnswers(query, nowMs);

  async function commit(tx: Query, changes: readonly Change[], commitOptions: CommitOptions): Promise<Commit> {
    const { expectedRevision, fence, answer, actor, reason, requestId } = commitOptions;
    const { revision: present, forgotten, audit } = await lock(tx);
    // First of all: what it did has moved the store on.
    if (answer) await answers.refuseRepeated(tx, answer.id);
    if (expectedRevision !== undefined && expectedRevision !== present) {
      throw new StoreError("conflict", `the store is at revision ${present}, not ${expectedRevision}`);
    }
    if (fence) await checkFence(tx, fence);
    const revision = present + 1n;
    const timeMs = nowMs();
    const before = await read(
      tx,
      changes.map(({ name }) => name),
    );
    const changed = changes.flatMap((change) => effect(change, { before: before.get(change.name), revision, timeMs }));
    const done = { revision: changed.length === 0 ? present : revision, changes: changed };
    if (answer) await answers.keep(tx, answer, done);
    if (changed.length === 0) return done;
    await write(tx, revision, changed);
    await tx("INSERT INTO revision (id, reason, time_ms, actor, request_id) VALUES (?, ?, ?, ?, ?)", [
      ...[revision, cut(reason), timeMs, cut(actor), cut(requestId)],
    ]);
    await tx("UPDATE meta SET revision = ?", [revision]);
    await forget(tx, { from: forgotten, to: revision - BigInt(revisionsKept) });
    await append(tx, lineOfCommit(audit, { ...commitOptions, revision, changes: changed, timeMs }));
    return done;
  }

  async function append(tx: Query, { id, entry, hash }: AuditLine): Promise<void> {
    await tx("INSERT INTO audit (id, entry, hash) VALUES (?, ?, ?)", [id, entry, hash]);
    await tx("UPDATE meta SET audit_id = ?, audit_hash = ?", [id, hash]);
    const last = id - BigInt(auditLinesKept);
    if (last > 0n) await tx("DELETE FROM audit WHERE id <= ?", [last]);
  }

  async function changesSince(revision: bigint, limit: number): Promise<Commit[]> {
    const rows = await query(
      `SELECT m.revision AS present, m.forgotten, c.revision, c.name, c.before, c.after
       FROM meta m LEFT JOIN change c ON c.revision > ? AND c.revision <= ? ORDER BY c.revision, c.name`,
      [within(revision), within(revision + BigInt(limit))],
    );
    const { present, forgotten } = rows[0] as { present: bigint; forgotten: bigint };
    if (revision > present || revision < forgotten) {
      throw new StoreError("compacted", `the changes after revision ${revision} are not kept; the store is at ${present}`);
    }
    const commits: { revision: bigint; changes: Changed[] }[] = [];
    for (const { revision: at, name, before, after } of rows) {
      if (typeof at !== "bigint") continue; // nothing was joined
      if (commits.at(-1)?.revision !== at) commits.push({ revision: at, changes: [] });
      commits.at(-1)?.changes.push({ name: String(name), before: decoded(before), after: decoded(after) });
    }
    return commits;
  }

  async function* watch(revision: bigint, signal: AbortSignal): AsyncGenerator<Commit> {
    const ended = AbortSignal.any([signal, closing.signal]);
    for (let seen = revision; !ended.aborted; ) {
      const woken = database.commits.next(ended);
      const commits = await changesSince(seen, watchBatch).catch(whileAway);
      for (const commit of commits ?? []) {
        if (ended.aborted) return;
        yield commit;
        seen = commit.revision;
      }
      if (commits === undefined) await database.commits.next(AbortSignal.any([ended, AbortSignal.timeout(awayMs)]));
      else if (commits.length === 0) await woken;
    }
  }

  const leases: Leases = {
    async acquire(name, { holder, ttlMs }) {
      const rows = await query(
        `INSERT INTO lease (name, holder, token, until_ms) VALUES (?, ?, 1, ${database.clock} + ?)
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = lease.token + 1, until_ms = excluded.until_ms
         WHERE lease.until_ms <= ${database.clock} RETURNING token`,
        [name, holder, ttlMs],
      );
      return rows[0] === undefined ? undefined : { lease: name, token: rows[0].token as bigint };
    },
    async claim(names, { holder, ttlMs }) {
      const held: string[] = [];
      for (const part of batches(names)) {
        const rows = await query(
          `INSERT INTO lease (name, holder, token, until_ms) VALUES ${tuples(part.length, 3, `, ${database.clock} + ${Number(ttlMs)}`)}
           ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms,
             token = lease.token + CASE WHEN lease.holder = excluded.holder THEN 0 ELSE 1 END
           WHERE lease.until_ms <= ${database.clock} OR lease.holder = excluded.holder RETURNING name`,
          part.flatMap((name) => [name, holder, 1]),
        );
        held.push(...rows.map(({ name }) => String(name)));
      }
      return held;
    },
    async renew({ lease, token }, ttlMs) {
      const rows = await query(
        `UPDATE lease SET until_ms = ${database.clock} + ?
         WHERE name = ? AND token = ? AND until_ms > ${database.clock} RETURNING token`,
        [ttlMs, lease, token],
      );
      return rows.length > 0;
    },
    async release({ lease, token }) {
      // The row stays, so that the next token is higher.
      await query("UPDATE lease SET until_ms = 0 WHERE name = ? AND token = ?", [lease, token]);
    },
    async disclaim(names, holder) {
      for (const part of batches(names))
        await query(`DELETE FROM lease WHERE holder = ? AND name IN ${placeholders(part.length)}`, [holder, ...part]);
    },
  };

  const records = createRecords(query, (work, by) =>
    transaction(async (tx) => {
      const { audit } = await lock(tx);
      const targets = await work(tx);
      await append(tx, lineOfChange(audit, { ...by, targets, timeMs: nowMs() }));
    }),
  );
  const catalogs = createCatalogShelf(database, {
    nowMs,
    async append(tx, lines) {
      let { audit } = await lock(tx);
      for (const line of lines) {
        const next = lineOfChange(audit, { ...line, timeMs: nowMs() });
        await append(tx, next);
        audit = next;
      }
    },
  });

  return {
    uid,
    watch,
    changesSince,
    leases,
    records,
    catalogs,
    answered: answers.find,
    peers: createPeers(database),
    commit: (changes, commitOptions) => transaction((tx) => commit(tx, changes, commitOptions)),
    async get(name) {
      return (await read(query, [name])).get(name);
    },
    async list() {
      const rows = await query("SELECT m.revision, r.body FROM meta m LEFT JOIN resource r ON TRUE ORDER BY r.name");
      return { revision: rows[0]?.revision as bigint, resources: rows.flatMap(({ body }) => decoded(body) ?? []) };
    },
    async history({ limit, before }) {
      const rows = await query(
        `SELECT r.*, (SELECT count(*) FROM change c WHERE c.revision = r.id) AS changes
         FROM revision r WHERE r.id < ? ORDER BY r.id DESC LIMIT ?`,
        [within(before ?? revisionMax), limit],
      );
      return rows.map((one) => ({
        revision: one.id as bigint,
        actor: String(one.actor),
        reason: String(one.reason),
        requestId: String(one.request_id),
        timeMs: Number(one.time_ms),
        changeCount: Number(one.changes),
      }));
    },
    audit: (denied) =>
      transaction(async (tx) => append(tx, lineOfDenied((await lock(tx)).audit, { ...denied, timeMs: nowMs() }))),
    async auditTrail(id, limit) {
      const rows = await query(
        `SELECT m.audit_id, m.audit_hash, a.id, a.entry, a.hash
         FROM meta m LEFT JOIN audit a ON a.id > ? ORDER BY a.id LIMIT ?`,
        [id, limit],
      );
      const lines = rows.filter((one) => one.id !== null);
      return {
        lines: lines.map((line) => ({ id: line.id as bigint, entry: String(line.entry), hash: String(line.hash) })),
        head: { id: rows[0]?.audit_id as bigint, hash: String(rows[0]?.audit_hash) },
      };
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      await database[Symbol.asyncDispose]();
    },
  };
}

interface Meta {
  readonly revision: bigint;
  /** The newest revision whose changes are not kept. */
  readonly forgotten: bigint;
  readonly audit: AuditHead;
}

/** From here on this transaction is the only one that writes: revisions and lines follow the order of commits. */
async function lock(tx: Query): Promise<Meta> {
  const [row] = await tx("UPDATE meta SET revision = revision RETURNING revision, forgotten, audit_id, audit_hash");
  return {
    revision: row?.revision as bigint,
    forgotten: row?.forgotten as bigint,
    audit: { id: row?.audit_id as bigint, hash: String(row?.audit_hash) },
  };
}

async function checkFence(tx: Query, { lease, token }: Fence): Promise<void> {
  const rows = await tx("SELECT token FROM lease WHERE name = ? AND token = ?", [lease, token]);
  if (rows.length === 0) throw new StoreError("conflict", `the lease "${lease}" has been taken by somebody else`);
}

async function read(query: Query, names: readonly string[]): Promise<Map<string, Resource>> {
  const found = new Map<string, Resource>();
  for (const part of batches(names)) {
    const rows = await query(`SELECT name, body FROM resource WHERE name IN ${placeholders(part.length)}`, part);
    for (const { name, body } of rows) found.set(String(name), decoded(body) as Resource);
  }
  return found;
}

interface At {
  readonly before: Resource | undefined;
  readonly revision: bigint;
  readonly timeMs: number;
}

/** What a change does to what is there: one thing, or nothing. */
function effect({ name, resource, expectedEtag }: Change, { before, revision, timeMs }: At): Changed[] {
  if (expectedEtag !== undefined && expectedEtag !== (before?.etag ?? "")) {
    const seen = before === undefined ? "it does not exist" : `it is ${before.etag}`;
    throw new StoreError("conflict", `"${name}" was expected to have etag ${expectedEtag}, but ${seen}`, { resource: name });
  }
  if (resource === undefined) return before === undefined ? [] : [{ name, before, after: undefined }];
  const etag = etagOf(contentBytes(resource));
  if (before?.etag === etag) return [];
  const updateTime = timestampFromMs(timeMs);
  const createTime = before?.createTime ?? updateTime;
  const after = create(ResourceSchema, { name, spec: resource.spec, revision, etag, createTime, updateTime });
  return [{ name, before, after }];
}

async function write(tx: Query, revision: bigint, changed: readonly Changed[]): Promise<void> {
  for (const part of batches(changed)) {
    const gone = part.filter(({ after }) => after === undefined).map(({ name }) => name);
    const kept = part.flatMap(({ after }) => after ?? []);
    if (gone.length > 0) await tx(`DELETE FROM resource WHERE name IN ${placeholders(gone.length)}`, gone);
    if (kept.length > 0)
      await tx(
        `INSERT INTO resource (name, etag, body) VALUES ${tuples(kept.length, 3)}
         ON CONFLICT (name) DO UPDATE SET etag = excluded.etag, body = excluded.body`,
        kept.flatMap((after) => [after.name, after.etag, encoded(after)]),
      );
    await tx(
      `INSERT INTO change (revision, name, before, after) VALUES ${tuples(part.length, 4)}`,
      part.flatMap(({ name, before, after }) => [revision, name, encoded(before), encoded(after)]),
    );
  }
}

/** Forgets the changes up to a revision. */
async function forget(tx: Query, { from, to }: { readonly from: bigint; readonly to: bigint }): Promise<void> {
  if (to <= from) return;
  await tx("DELETE FROM change WHERE revision <= ?", [to]);
  await tx("DELETE FROM revision WHERE id <= ?", [to]);
  await tx("UPDATE meta SET forgotten = ?", [to]);
}

/** Databases count up to 2^63; whoever asks for more asks for the future. */
function within(revision: bigint): bigint {
  return revision > revisionMax ? revisionMax : revision;
}

/** For a watcher: what may pass by itself is undefined, and the rest is thrown. */
function whileAway(error: unknown): undefined {
  if (!(error instanceof StoreError) || error.code !== "unavailable") throw error;
}

function encoded(resource: Resource | undefined): Value {
  return resource === undefined ? null : toBinary(ResourceSchema, resource);
}

function decoded(body: unknown): Resource | undefined {
  return body instanceof Uint8Array ? fromBinary(ResourceSchema, body) : undefined;
}
