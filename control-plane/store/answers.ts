// Answers to requests with an id, in the same database as what they did.
import type { Query } from "./database.ts";
import { type Answered, type Answering, type Commit, StoreError } from "./store.ts";

// As many as commits, which hold the same content: so answers cost no more than the history.
const kept = 1000;
const keptMs = 60 * 60_000;

export interface Answers {
  find(id: string): Promise<Answered | undefined>;
  /** Within the transaction that does what was asked, before that. Throws StoreError `repeated` when there is an answer already. */
  refuseRepeated(tx: Query, id: string): Promise<void>;
  /** Within the same transaction, after it. */
  keep(tx: Query, answering: Answering, done: Commit): Promise<void>;
}

export function createAnswers(query: Query, nowMs: () => number): Answers {
  async function find(ask: Query, id: string): Promise<Answered | undefined> {
    const sinceMs = nowMs() - keptMs;
    const [row] = await ask("SELECT fingerprint, body FROM answer WHERE request_id = ? AND time_ms > ?", [id, sinceMs]);
    return row && { fingerprint: String(row.fingerprint), body: row.body as Uint8Array };
  }

  return {
    find: (id) => find(query, id),
    async refuseRepeated(tx, id) {
      if (await find(tx, id)) throw new StoreError("repeated", `the request ${id} has been made already`);
    },
    async keep(tx, { id, fingerprint, encode }, done) {
      const timeMs = nowMs();
      await tx("DELETE FROM answer WHERE time_ms <= ?", [timeMs - keptMs]);
      await tx("INSERT INTO answer (request_id, fingerprint, body, time_ms) VALUES (?, ?, ?, ?)", [
        ...[id, fingerprint, encode(done), timeMs],
      ]);
      await tx(
        `DELETE FROM answer WHERE request_id IN
         (SELECT request_id FROM answer ORDER BY time_ms DESC, request_id LIMIT 1000000 OFFSET ${kept})`,
      );
    },
  };
}
