// Sealed tokens: what we hand to a client so that any replica understands it when it comes back, and nobody else can read,
// change or make one. Ids of server requests, cursors and event ids carry their routes in such tokens.
import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject, randomFillSync } from "node:crypto";

/** Seals and opens tokens of one purpose under one key. */
export interface Sealer {
  /**
   * A token for `payload`: visible ASCII without quotes, slashes or dots but one; about 4/3 of the payload and 41 characters.
   * `context` (session, caller) is not inside, but opening asks for the same. Throws RangeError when the payload is too long.
   */
  seal(payload: Buffer, context: string): string;
  /** The payload; undefined when the token is not ours, or of another key, purpose or context, without saying which. */
  open(token: string, context: string): Buffer | undefined;
}

/** What a token may be sealed or opened with; a ring changes while it is in use. */
export interface Keys {
  /** Seals. */
  readonly active: Key;
  /** Opens what it once sealed; undefined when no such key is good any more. */
  find(id: string): Key | undefined;
}

/** One secret, as keys for many purposes. */
export interface Key {
  /** Two characters, visible in tokens. */
  readonly id: string;
  /** The key of a purpose: 32 bytes, see deriveKey. */
  derive(purpose: string): KeyObject;
}

// The first byte of what is authenticated says how the rest is made; the prefix says so, and by which key, to whoever opens it.
const formatVersion = 1;
const prefixPattern = /^s1([A-Za-z0-9]{2})\./;
const prefixLength = 5;
/** Longest token unless its maker says otherwise, in characters: more would not fit into a header or a database key. */
const tokenLengthMax = 4096;
const nonceBytes = 12;
const tagBytes = 16;
/** Longest payload that fits into such a token. */
export const payloadBytesMax = Math.floor(((tokenLengthMax - prefixLength) * 3) / 4) - nonceBytes - tagBytes;

const secretBytesMin = 32;

/**
 * A 32-byte key for one purpose: HKDF-SHA256 (RFC 5869) with the purpose as info and the key's id as salt. Different purposes
 * give unrelated keys. Throws RangeError when the secret has fewer than 32 bytes.
 */
export function deriveKey(secret: Buffer, purpose: string, keyId: string): KeyObject {
  if (secret.length < secretBytesMin)
    throw new RangeError(`a secret of ${secret.length} bytes is too short, at least ${secretBytesMin} are needed`);
  return createSecretKey(Buffer.from(hkdfSync("sha256", secret, keyId, purpose, 32)));
}

/** A key whose derivations are made once. Throws RangeError when the secret has fewer than 32 bytes. */
export function createKey(id: string, secret: Buffer): Key {
  const derived = new Map<string, KeyObject>();
  deriveKey(secret, "", id); // throws when it is too short
  return {
    id,
    derive(purpose) {
      const existing = derived.get(purpose);
      if (existing) return existing;
      const key = deriveKey(secret, purpose, id);
      derived.set(purpose, key);
      return key;
    },
  };
}

/** The keys of one secret that is never changed. */
export function oneKey(secret: Buffer, id = "k1"): Keys {
  const key = createKey(id, secret);
  return { active: key, find: (asked) => (asked === id ? key : undefined) };
}

/**
 * A sealer for one purpose: AES-256-GCM under a key of its own, a random 96-bit nonce per token, version, purpose and context
 * authenticated. `bytesMax` is the longest payload.
 *
 * Random nonces bound a key's life: after 2^32 tokens two of them share one with a probability of 2^-33 (NIST SP 800-38D,
 * 8.3); at a thousand a second that takes 50 days, so a busy fleet changes its secret now and then.
 */
export function createSealer(keys: Keys, purpose: string, bytesMax = payloadBytesMax): Sealer {
  const lengthMax = prefixLength + Math.ceil(((bytesMax + nonceBytes + tagBytes) * 4) / 3);
  const nextNonce = createNonces();
  const purposePart = framed(purpose);

  function seal(payload: Buffer, context: string): string {
    if (payload.length > bytesMax)
      throw new RangeError(`a payload of ${payload.length} bytes does not fit into a token, which holds ${bytesMax}`);
    const nonce = nextNonce();
    const { active } = keys;
    const cipher = createCipheriv("aes-256-gcm", active.derive(purpose), nonce, { authTagLength: tagBytes });
    cipher.setAAD(bound(context));
    const body = cipher.update(payload);
    cipher.final();
    const sealed = Buffer.concat([nonce, body, cipher.getAuthTag()]).toString("base64url");
    return `s1${active.id}.${sealed}`;
  }

  function open(token: string, context: string): Buffer | undefined {
    const keyId = token.length <= lengthMax ? prefixPattern.exec(token)?.[1] : undefined;
    const key = keyId === undefined ? undefined : keys.find(keyId);
    const sealed = key && readToken(token.slice(prefixLength));
    if (!sealed) return undefined;
    const decipher = createDecipheriv("aes-256-gcm", key.derive(purpose), sealed.subarray(0, nonceBytes), {
      authTagLength: tagBytes,
    });
    decipher.setAAD(bound(context));
    decipher.setAuthTag(sealed.subarray(-tagBytes));
    const payload = decipher.update(sealed.subarray(nonceBytes, -tagBytes));
    try {
      decipher.final();
      return payload;
    } catch {
      return undefined; // not authentic: nothing of the payload may leave
    }
  }

  function bound(context: string): Buffer {
    return Buffer.concat([Buffer.of(formatVersion), purposePart, framed(context)]);
  }

  return { seal, open };
}

// Length first, so that no two pairs of purpose and context give the same bytes. UTF-16, because UTF-8 writes all lone
// surrogates alike, and a context may hold what a caller was named by others.
function framed(text: string): Buffer {
  const bytes = Buffer.alloc(4 + text.length * 2);
  bytes.writeUInt32BE(text.length * 2);
  bytes.write(text, 4, "utf16le");
  return bytes;
}

/** The bytes of a token that could be ours; undefined when it is too short or not written as we write it. */
function readToken(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, "base64url");
  if (bytes.length < nonceBytes + tagBytes) return undefined;
  // Node skips characters that base64url doesn't have; one token must not have several spellings.
  return bytes.toString("base64url") === text ? bytes : undefined;
}

// Asking the system for random bytes costs more than encrypting, so they are fetched for many nonces at once.
function createNonces(): () => Buffer {
  const pool = Buffer.alloc(nonceBytes * 256);
  let used = pool.length;
  return () => {
    if (used === pool.length) {
      randomFillSync(pool);
      used = 0;
    }
    used += nonceBytes;
    return pool.subarray(used - nonceBytes, used);
  };
}
