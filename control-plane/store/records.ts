// Records in the same database as what is declared, and in its audit trail.
import type { Query, Row } from "./database.ts";
import { type Attempt, type RecordChange, type Records, type StoredRecord, StoreError } from "./store.ts";

/** `audited` runs the work in a transaction of its own, with a line of the audit trail for the names that the work gives. */
export function createRecords(
  query: Query,
  audited: (work: (tx: Query) => Promise<readonly string[]>, by: Attempt) => Promise<void>,
): Records {
  return {
    async get(kind, id) {
      const [row] = await query("SELECT * FROM record WHERE kind = ? AND id = ?", [kind, id]);
      return row && toRecord(row);
    },
    async list(kind) {
      return (await query("SELECT * FROM record WHERE kind = ? ORDER BY id", [kind])).map(toRecord);
    },
    change: (changes, by) =>
      audited(async (tx) => {
        for (const change of changes) await write(tx, change);
        return changes.map(({ kind, id }) => `${kind}/${id}`);
      }, by),
  };
}

async function write(tx: Query, { kind, id, body, expectedVersion }: RecordChange): Promise<void> {
  const [row] = await tx("SELECT version FROM record WHERE kind = ? AND id = ?", [kind, id]);
  const present = (row?.version ?? 0n) as bigint;
  if (expectedVersion !== undefined && expectedVersion !== present) {
    const message = `${kind}/${id} was expected at version ${expectedVersion}, and is at ${present}`;
    throw new StoreError("conflict", message, { resource: `${kind}/${id}` });
  }
  if (body === undefined) await tx("DELETE FROM record WHERE kind = ? AND id = ?", [kind, id]);
  else
    await tx(
      `INSERT INTO record (kind, id, version, body) VALUES (?, ?, ?, ?)
       ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, body = excluded.body`,
      [kind, id, present + 1n, body],
    );
}

function toRecord({ kind, id, version, body }: Row): StoredRecord {
  return { kind: String(kind), id: String(id), version: version as bigint, body: String(body) };
}
