// What backends offer, in the store: the newest of each name, under a version of its own.
import type { Database, Query, Row } from "./database.ts";
import { type CatalogEntry, type CatalogShelf, StoreError, type UncommittedChange } from "./store.ts";

export interface CatalogShelfOptions {
  readonly nowMs: () => number;
  /** Adds lines to the audit trail. */
  readonly append: (tx: Query, lines: readonly UncommittedChange[]) => Promise<void>;
}

export function createCatalogShelf({ query, transaction, commits }: Database, options: CatalogShelfOptions): CatalogShelf {
  const { nowMs, append } = options;
  return {
    list: async () => (await query("SELECT * FROM catalog ORDER BY name")).map(toEntry),
    async versions() {
      const rows = await query("SELECT name, version FROM catalog");
      return new Map(rows.map(({ name, version }) => [String(name), version as bigint]));
    },
    async get(name) {
      const [row] = await query("SELECT * FROM catalog WHERE name = ?", [name]);
      return row && toEntry(row);
    },
    put: ({ name, body }, { expectedVersion, lines }) =>
      transaction(async (tx) => {
        if (lines.length > 0) await append(tx, lines);
        const values = [name, expectedVersion + 1n, body, nowMs()] as const;
        const [row] =
          expectedVersion === 0n
            ? await tx(
                "INSERT INTO catalog (name, version, body, time_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING name",
                values,
              )
            : await tx(
                "UPDATE catalog SET name = ?, version = ?, body = ?, time_ms = ? WHERE name = ? AND version = ? RETURNING name",
                [...values, name, expectedVersion],
              );
        if (row === undefined) throw new StoreError("conflict", `the catalog "${name}" is not at version ${expectedVersion}`);
        return expectedVersion + 1n;
      }),
    remove: (names) =>
      transaction(async (tx) => {
        for (const name of names) await tx("DELETE FROM catalog WHERE name = ?", [name]);
      }),
    changed: (signal) => commits.next(signal),
  };
}

function toEntry({ name, version, body, time_ms }: Row): CatalogEntry {
  return { name: String(name), version: version as bigint, body: body as Uint8Array, timeMs: Number(time_ms) };
}
