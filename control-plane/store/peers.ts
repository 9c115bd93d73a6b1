// What control planes tell each other through the database: a row for each of them, and one for each proxy that it has, or had.
import { batches, type Database, placeholders, type Query, tuples } from "./database.ts";
import type { Peer, Peers, Telling } from "./store.ts";

export function createPeers({ query, transaction, commits, clock }: Database): Peers {
  async function write(tx: Query, id: string, { number, body, ttlMs, proxies, forgotten }: Telling): Promise<void> {
    await tx(
      `INSERT INTO control_plane (id, number, body, heard_ms, until_ms) VALUES (?, ?, ?, ${clock}, ${clock} + ?)
       ON CONFLICT (id) DO UPDATE SET
         number = excluded.number, body = excluded.body, heard_ms = excluded.heard_ms, until_ms = excluded.until_ms`,
      [id, number, body, ttlMs],
    );
    for (const part of batches([...proxies]))
      await tx(
        `INSERT INTO proxy_status (control_plane, proxy, number, body) VALUES ${tuples(part.length, 4)}
         ON CONFLICT (control_plane, proxy) DO UPDATE SET number = excluded.number, body = excluded.body`,
        part.flatMap(([proxy, row]) => [id, proxy, number, row]),
      );
    for (const part of batches(forgotten))
      await tx(`DELETE FROM proxy_status WHERE control_plane = ? AND proxy IN ${placeholders(part.length)}`, [id, ...part]);
  }

  /** What one told of proxies after a number. */
  async function rowsOf(id: string, after: bigint): Promise<Map<string, Uint8Array>> {
    const rows = await query("SELECT proxy, body FROM proxy_status WHERE control_plane = ? AND number > ?", [id, after]);
    return new Map(rows.map(({ proxy, body }) => [String(proxy), body as Uint8Array]));
  }

  return {
    changes: commits,
    tell: (id, telling) =>
      // That one is still there need not wake anybody.
      telling.proxies.size + telling.forgotten.length > 0 || telling.ttlMs === 0
        ? transaction((tx) => write(tx, id, telling))
        : write(query, id, telling),
    async hear(heard) {
      const rows = await query(
        `SELECT id, number, body, heard_ms, until_ms - ${clock} AS left_ms FROM control_plane ORDER BY id`,
      );
      const peers: Peer[] = [];
      for (const row of rows) {
        const id = String(row.id);
        const number = row.number as bigint;
        const after = heard.get(id) ?? 0n;
        peers.push({
          ...{ id, number, body: row.body as Uint8Array },
          isThere: (row.left_ms as bigint) > 0n,
          heardMs: Number(row.heard_ms),
          proxies: number > after ? await rowsOf(id, after) : new Map(),
        });
      }
      return peers;
    },
    forget: (goneMs) =>
      transaction(async (tx) => {
        const gone = `until_ms < ${clock} - ?`;
        await tx(`DELETE FROM proxy_status WHERE control_plane IN (SELECT id FROM control_plane WHERE ${gone})`, [goneMs]);
        await tx(`DELETE FROM control_plane WHERE ${gone}`, [goneMs]);
      }),
  };
}
