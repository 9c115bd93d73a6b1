// Tokens that were verified lately. Nothing in it tells what a token was to somebody who reads the keys.
import { createHmac, createSecretKey, randomBytes } from "node:crypto";

/** Names tokens: HMAC-SHA256 under a key that nobody else has, and that ends with this process. */
export function createTokenNames(): (token: string) => string {
  const key = createSecretKey(randomBytes(32));
  return (token) => createHmac("sha256", key).update(token).digest("base64");
}

export interface TokenCache<T> {
  /** Also what is no longer good: the caller knows. */
  get(name: string): T | undefined;
  /** `bytes`: what keeping it costs, more or less. */
  set(name: string, entry: T, bytes: number): void;
  delete(name: string): void;
  readonly size: number;
}

export interface TokenCacheOptions {
  readonly entriesMax: number;
  readonly bytesMax: number;
}

/** The least recently used goes first. */
export function createTokenCache<T>({ entriesMax, bytesMax }: TokenCacheOptions): TokenCache<T> {
  const entries = new Map<string, { readonly entry: T; readonly bytes: number }>();
  let bytes = 0;

  function remove(name: string): void {
    bytes -= entries.get(name)?.bytes ?? 0;
    entries.delete(name);
  }

  return {
    get(name) {
      const kept = entries.get(name);
      if (!kept) return undefined;
      // A Map keeps the order in which names came.
      entries.delete(name);
      entries.set(name, kept);
      return kept.entry;
    },
    set(name, entry, entryBytes) {
      remove(name);
      entries.set(name, { entry, bytes: entryBytes });
      bytes += entryBytes;
      while (entries.size > entriesMax || bytes > bytesMax) remove(entries.keys().next().value as string);
    },
    delete: remove,
    get size() {
      return entries.size;
    },
  };
}
