// Records of one kind, as values instead of texts.
import type { z } from "zod";
import type { RecordChange, Records, StoredRecord } from "../store/store.ts";

export interface Kept<T> {
  readonly id: string;
  readonly version: bigint;
  readonly value: T;
}

export interface Shelf<T> {
  get(id: string): Promise<Kept<T> | undefined>;
  /** Sorted by id. */
  list(): Promise<Kept<T>[]>;
  /** The change that makes it new. */
  add(id: string, value: T): RecordChange;
  /** The change of one that still is what was read. */
  replace(kept: Kept<T>, value: T): RecordChange;
  remove(id: string): RecordChange;
}

export function createShelf<T>(records: Records, kind: string, schema: z.ZodType<T>): Shelf<T> {
  const keep = ({ id, version, body }: StoredRecord): Kept<T> => ({ id, version, value: schema.parse(JSON.parse(body)) });
  return {
    async get(id) {
      const record = await records.get(kind, id);
      return record && keep(record);
    },
    list: async () => (await records.list(kind)).map(keep),
    add: (id, value) => ({ kind, id, body: JSON.stringify(value), expectedVersion: 0n }),
    replace: ({ id, version }, value) => ({ kind, id, body: JSON.stringify(value), expectedVersion: version }),
    remove: (id) => ({ kind, id, body: undefined }),
  };
}
