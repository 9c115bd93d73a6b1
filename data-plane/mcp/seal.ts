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

// The first byte of what is authenticated says how the rest is made; the prefix says so to a reader of logs.
const formatVersion = 1;
const prefix = "s1.";
/** Longest token unless its maker says otherwise, in characters: more would not fit into a header or a database key. */
const tokenLengthMax = 4096;
const nonceBytes = 12;
const tagBytes = 16;
/** Longest payload that fits into such a token. */
export const payloadBytesMax = Math.floor(((tokenLengthMax - prefix.length) * 3) / 4) - nonceBytes - tagBytes;

const secretBytesMin = 32;

/**
 * A 32-byte key for one purpose: HKDF-SHA256 (RFC 5869) with the purpose as info. Different purposes give unrelated keys.
 * `keyId` (default: none) is the salt, for secrets that are members of a ring. Throws RangeError when the secret has fewer
 * than 32 bytes.
 */
export function deriveKey(secret: Buffer, purpose: string, keyId = ""): KeyObject {
  if (secret.length < secretBytesMin)
    throw new RangeError(`a secret of ${secret.length} bytes is too short, at least ${secretBytesMin} are needed`);
  return createSecretKey(Buffer.from(hkdfSync("sha256", secret, keyId, purpose, 32)));
}

/**
 * A sealer for one purpose: AES-256-GCM under a key of its own, a random 96-bit nonce per token, version, purpose and context
 * authenticated. `bytesMax` is the longest payload. Throws RangeError when the secret has fewer than 32 bytes.
 *
 * Random nonces bound a key's life: after 2^32 tokens two of them share one with a probability of 2^-33 (NIST SP 800-38D,
 * 8.3); at a thousand a second that takes 50 days, so a busy fleet changes its secret now and then.
 */
export function createSealer(secret: Buffer, purpose: string, bytesMax = payloadBytesMax): Sealer {
  const lengthMax = prefix.length + Math.ceil(((bytesMax + nonceBytes + tagBytes) * 4) / 3);
  const key = deriveKey(secret, purpose);
  const nextNonce = createNonces();
  const purposePart = framed(purpose);

  function seal(payload: Buffer, context: string): string {
    if (payload.length > bytesMax)
      throw new RangeError(`a payload of ${payload.length} bytes does not fit into a token, which holds ${bytesMax}`);
    const nonce = nextNonce();
    const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: tagBytes });
    cipher.setAAD(bound(context));
    const body = cipher.update(payload);
    cipher.final();
    return prefix + Buffer.concat([nonce, body, cipher.getAuthTag()]).toString("base64url");
  }

  function open(token: string, context: string): Buffer | undefined {
    const sealed = token.length <= lengthMax ? readToken(token) : undefined;
    if (!sealed) return undefined;
    const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, nonceBytes), { authTagLength: tagBytes });
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
function readToken(token: string): Buffer | undefined {
  if (!token.startsWith(prefix)) return undefined;
  const text = token.slice(prefix.length);
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
