// Tokens that users signed in for, and what makes a sign-in happen once. Unlike tokens that can be obtained again, these are only
// here: where they are kept must be asked, and when it can't be, nobody is called signed out.
import { createHmac } from "node:crypto";
import { encode } from "../mcp/encode.ts";
import type { Keys } from "../mcp/seal.ts";
import { NoCredentialError } from "./credential.ts";

export interface UserToken {
  readonly access: string;
  /** It is good once when the server rotates, so it is only used by whoever holds the lock. */
  readonly refresh: string | undefined;
  /** The authorization server that gave it; it is refreshed nowhere else. */
  readonly issuer: string;
  /** The client that it was given to; no other may refresh it. */
  readonly clientId: string;
  /** Milliseconds since 1970. */
  readonly obtainedMs: number;
  /** Of the access token; milliseconds since 1970. */
  readonly endsMs: number;
}

/**
 * Keeps a token with a refresh token until 30 days after its last use, others until they end. Everything rejects with
 * StoreDownError when there is no answer.
 */
export interface UserTokens extends AsyncDisposable {
  read(key: string): Promise<UserToken | undefined>;
  write(key: string, token: UserToken): Promise<void>;
  /** Forgets the token if it is still this one. */
  remove(key: string, token: UserToken): Promise<void>;
  /**
   * The right to change what is there, until it is given back with the result, or for 30 s when its holder is lost; undefined
   * while another has it. The result never rejects.
   */
  lock(key: string): Promise<(() => Promise<void>) | undefined>;
  /** True the first time within `ms`, wherever it is asked. */
  claim(id: string, ms: number): Promise<boolean>;
}

export class StoreDownError extends NoCredentialError {
  override name = "StoreDownError";

  constructor(cause?: unknown) {
    super("sign-ins can't be looked up right now", { fault: "temporary", cause });
  }
}

export const unusedMs = 30 * 24 * 60 * 60_000;
/** Longer than a token endpoint may take, with everything. */
export const lockMs = 30_000;

/** A name for a user's token: HMAC-SHA256 under the ring's active key. */
export function userTokenKey(keys: Keys, fields: readonly string[]): string {
  return createHmac("sha256", keys.active.derive("user-token-key"))
    .update(encode("user-token/1", ...fields))
    .digest("base64url");
}

export interface MemoryTokensOptions {
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
  /** Beyond it, the token unused for longest is forgotten, and its user signs in again. Default 20,000. */
  readonly tokensMax?: number;
}

/** In this process alone; for one proxy. */
export function createMemoryTokens({ nowMs, tokensMax = 20_000 }: MemoryTokensOptions): UserTokens {
  // In the order of use: a Map keeps insertion order, and every use inserts anew.
  const tokens = new Map<string, { readonly token: UserToken; readonly untilMs: number }>();
  const locks = new Set<string>();
  const claims = new Map<string, number>();

  function put(key: string, token: UserToken): void {
    tokens.delete(key);
    tokens.set(key, { token, untilMs: lifeEndMs(token, nowMs()) });
    forgetFirst(tokens, tokensMax);
  }

  return {
    async read(key) {
      const found = tokens.get(key);
      if (!found) return undefined;
      if (found.untilMs <= nowMs()) tokens.delete(key);
      else put(key, found.token);
      return tokens.get(key)?.token;
    },
    write: async (key, token) => put(key, token),
    async remove(key, { access }) {
      if (tokens.get(key)?.token.access === access) tokens.delete(key);
    },
    async lock(key) {
      if (locks.has(key)) return undefined;
      locks.add(key);
      return async () => void locks.delete(key); // whoever has it is in this process, and can't be lost with it
    },
    async claim(id, ms) {
      const now = nowMs();
      for (const [one, untilMs] of claims) {
        if (untilMs > now) break; // all are claimed for about as long
        claims.delete(one);
      }
      if (claims.has(id)) return false;
      // To forget one that may still come would let it in again.
      if (claims.size >= tokensMax) throw new StoreDownError();
      claims.set(id, now + ms);
      return true;
    },
    async [Symbol.asyncDispose]() {
      tokens.clear();
    },
  };
}

/** When a token is of no use any more unless it is used until then; milliseconds since 1970. */
export function lifeEndMs({ refresh, endsMs }: UserToken, nowMs: number): number {
  return refresh === undefined ? endsMs : nowMs + unusedMs;
}

function forgetFirst(map: Map<string, unknown>, max: number): void {
  if (map.size > max) map.delete(map.keys().next().value as string);
}

/** A store that is asked while it is still being opened. */
export function opening(store: Promise<UserTokens>): UserTokens {
  const opened = store.catch((error: unknown) => {
    throw new StoreDownError(error);
  });
  opened.catch(() => undefined); // whoever asks hears of it
  return {
    read: async (key) => (await opened).read(key),
    write: async (key, token) => (await opened).write(key, token),
    remove: async (key, token) => (await opened).remove(key, token),
    lock: async (key) => (await opened).lock(key),
    claim: async (id, ms) => (await opened).claim(id, ms),
    [Symbol.asyncDispose]: async () => (await opened.catch(() => undefined))?.[Symbol.asyncDispose](),
  };
}
