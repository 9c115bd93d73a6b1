// From what an operator writes to a store.
import type { Log } from "../../common/log.ts";
import { isPostgresAddress } from "./postgres-address.ts";
import type { StoreOptions } from "./sql-store.ts";
import { openSqliteStore } from "./sqlite.ts";
import type { Store } from "./store.ts";

export interface OpenOptions extends StoreOptions {
  /** A `postgres://` address, the path of an SQLite file, or `:memory:`. */
  readonly place: string;
  readonly log: Log;
}

/** Throws StoreError: `unavailable` when trying again may help, else `unusable`. */
export async function openStore({ place, log, ...options }: OpenOptions): Promise<Store> {
  if (!isPostgresAddress(place)) return openSqliteStore({ file: place, ...options });
  // Loaded only by those who use it.
  const { openPostgresStore } = await import("./postgres.ts");
  return openPostgresStore({ address: place, log, ...options });
}

/** Whether this is a file, beside which others can be kept. */
export function isFile(place: string): boolean {
  return place !== ":memory:" && !isPostgresAddress(place);
}
