// Session ids: random, and authenticated, so that a made-up one costs microseconds and no look into any store.
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { Key, Keys } from "../mcp/seal.ts";

export interface SessionIds {
  /** A new id: `g1.<key id>.<144 random bits>.<96 bits of MAC>`, 47 characters of visible ASCII. */
  mint(): string;
  /** What the session is called in stores, logs and lists; undefined when we did not make the id, or its key is no longer good. */
  keyOf(id: string): string | undefined;
}

const pattern = /^g1\.([A-Za-z0-9]{2})\.([A-Za-z0-9_-]{24})\.([A-Za-z0-9_-]{16})$/;
const randomLength = 18;
const macBytes = 12;

export function createSessionIds(keys: Keys): SessionIds {
  return {
    mint() {
      const { active } = keys;
      const random = randomBytes(randomLength).toString("base64url");
      return `g1.${active.id}.${random}.${macOf(active, random).toString("base64url")}`;
    },
    keyOf(id) {
      const [, keyId, random, mac] = pattern.exec(id) ?? [];
      if (keyId === undefined || random === undefined || mac === undefined) return undefined;
      const key = keys.find(keyId);
      return key && timingSafeEqual(macOf(key, random), Buffer.from(mac, "base64url")) ? publicKeyOf(id) : undefined;
    },
  };
}

/** The id can't be found from it: 132 bits of its SHA-256. */
export function publicKeyOf(id: string): string {
  return createHash("sha256").update(id).digest("base64url").slice(0, 22);
}

function macOf(key: Key, random: string): Buffer {
  return createHmac("sha256", key.derive("sid-mac")).update(`gw-sid/1|${key.id}|${random}`).digest().subarray(0, macBytes);
}
