// The tokens of one credential: whose token is shown, found without a detour when it is at hand.
import { createHash, createHmac } from "node:crypto";
import { encode } from "../mcp/encode.ts";
import type { Keys } from "../mcp/seal.ts";
import type { HeaderList } from "./credential.ts";
import type { Token } from "./token-answer.ts";
import type { Held, TokenCache, Way } from "./token-cache.ts";
import type { TokenCounters } from "./token-metrics.ts";

export interface TokenSource<Who extends object> {
  /** Rejects with TokenRequestError. Not a promise when the token is in memory. */
  show(who: Who): HeaderList | Promise<HeaderList>;
  /** As in Credential. */
  refused(who: Who, shown: HeaderList): Promise<boolean>;
}

export interface TokenSourceOptions<Who extends object> {
  readonly cache: TokenCache;
  readonly counters: TokenCounters;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
  /** Names everything that the token of `who` depends on. */
  readonly keyOf: (who: Who) => string;
  /** When the token may not be shown any more, whatever it says itself. */
  readonly endsMsOf: (who: Who) => number;
  readonly obtain: (who: Who) => Promise<Token>;
}

export function createTokenSource<Who extends object>(options: TokenSourceOptions<Who>): TokenSource<Who> {
  const { cache, counters, nowMs, keyOf, endsMsOf, obtain } = options;
  // A caller is one object as long as its token is known, so that a call costs one look-up and no hash.
  const ways = new WeakMap<Who, Way>();
  const latest = new WeakMap<Who, Held>();

  function wayOf(who: Who): Way {
    const existing = ways.get(who);
    if (existing) return existing;
    const way = { key: keyOf(who), endsMs: endsMsOf(who), obtain: () => obtain(who), counters };
    ways.set(who, way);
    return way;
  }

  function shownTo(who: Who, held: Held, now: number): HeaderList {
    held.isUsed = true;
    if (now >= held.refreshMs) cache.refresh(held, wayOf(who));
    return held.headers;
  }

  return {
    show(who) {
      const now = nowMs();
      const last = latest.get(who);
      const held = last && !last.isGone && now < last.untilMs ? last : cache.find(wayOf(who).key);
      if (held) {
        counters.memoryHits++;
        if (held !== last) latest.set(who, held);
        return shownTo(who, held, now);
      }
      return cache.get(wayOf(who)).then((one) => {
        latest.set(who, one);
        return one.headers;
      });
    },
    async refused(who, shown) {
      const token = shown[1]?.replace(/^Bearer /, "");
      return token !== undefined && cache.refused(wayOf(who), token);
    },
  };
}

/** A name for what the fields say: HMAC-SHA256 under the ring's active key, so that nobody can guess fields by it. */
export function cacheKey(keys: Keys, fields: readonly string[]): string {
  return createHmac("sha256", keys.active.derive("token-cache-key"))
    .update(encode("token/1", ...fields))
    .digest("base64url");
}

/** SHA-256 over everything that a strategy's block says, the same on every replica. */
export function configDigest(block: object): string {
  const entries = Object.entries(block).sort(([one], [other]) => (one < other ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(entries)).digest("base64url");
}
