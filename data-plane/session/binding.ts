// What ties a session to its caller: a tag that only this caller, on this virtual server, with this session id comes to again.
import { createHmac, type KeyObject, randomBytes, timingSafeEqual } from "node:crypto";
import type { Identity } from "../incoming-auth/identity.ts";
import { encode } from "../mcp/encode.ts";
import type { Keys } from "../mcp/seal.ts";

/**
 * `identity`: issuer, subject, client and key confirmation, so that a session outlives the refresh of a token. `token`: the very
 * token too, so that it does not. `anonymous`: everybody whom nobody asked who they are.
 */
export type BindingMode = "identity" | "token" | "anonymous";

export interface Binding {
  readonly mode: BindingMode;
  /** Of the key in the ring. */
  readonly keyId: string;
  /** 16 random bytes, base64url. */
  readonly salt: string;
  /** HMAC-SHA256, base64url. */
  readonly tag: string;
}

/** What a session is bound to. */
export interface Bound {
  readonly sessionId: string;
  readonly virtualServer: string;
  readonly identity: Identity;
}

/** The caller can't be told from others: without a name, or without a token in the mode that binds to tokens. */
export class UnboundCallerError extends Error {
  override name = "UnboundCallerError";
}

export interface Binder {
  /** Throws UnboundCallerError. */
  bind(bound: Bound): Binding;
  /** Whether the session is this caller's; "unknown_key" when nobody can tell any more. Never throws. */
  check(binding: Binding, bound: Bound): "match" | "mismatch" | "unknown_key";
}

/** `mode` is that of new sessions whose callers have names. */
export function createBinder({ keys, mode }: { keys: Keys; mode: "identity" | "token" }): Binder {
  // What matched last. An identity is made once per verified token and never changed, so the very same one matches again.
  const proven = new WeakMap<Binding, Bound>();
  return {
    bind(bound) {
      const own = bound.identity.isAnonymous ? "anonymous" : mode;
      const problem = problemOf(own, bound.identity);
      if (problem) throw new UnboundCallerError(`a session can't be bound to a caller ${problem}`);
      const { active } = keys;
      const salt = randomBytes(16).toString("base64url");
      const tag = tagOf(active.derive("binding"), own, salt, bound).toString("base64url");
      return { mode: own, keyId: active.id, salt, tag };
    },
    check(binding, bound) {
      const key = keys.find(binding.keyId);
      if (!key) return "unknown_key";
      if (isSame(proven.get(binding), bound)) return "match";
      if (bound.identity.isAnonymous !== (binding.mode === "anonymous")) return "mismatch";
      if (problemOf(binding.mode, bound.identity)) return "mismatch";
      const tag = Buffer.from(binding.tag, "base64url");
      const own = tagOf(key.derive("binding"), binding.mode, binding.salt, bound);
      if (tag.length !== tagBytes || !timingSafeEqual(own, tag)) return "mismatch";
      const { identity, sessionId, virtualServer } = bound;
      proven.set(binding, { identity, sessionId, virtualServer });
      return "match";
    },
  };
}

function isSame(one: Bound | undefined, { identity, sessionId, virtualServer }: Bound): boolean {
  return one?.identity === identity && one.sessionId === sessionId && one.virtualServer === virtualServer;
}

const tagBytes = 32;
const lengthMax = { issuer: 255, subject: 1_024 };

function problemOf(mode: BindingMode, { issuer, subject, tokenDigest }: Identity): string | undefined {
  if (!isName(issuer, lengthMax.issuer)) return "whose issuer is no name";
  if (!isName(subject, lengthMax.subject)) return "whose subject is no name";
  return mode === "token" && !tokenDigest ? "who showed no token" : undefined;
}

function isName(text: string, max: number): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.length > 0 && text.length <= max && !/[\u0000-\u001f\u007f]/.test(text);
}

function tagOf(key: KeyObject, mode: BindingMode, salt: string, { sessionId, virtualServer, identity }: Bound): Buffer {
  const { issuer, subject, client = "", confirmation = "", tokenDigest = "" } = identity;
  return createHmac("sha256", key)
    .update(encode("gw-bind/1", mode, salt, sessionId, virtualServer, issuer, subject, client, confirmation))
    .update(encode(mode === "token" ? tokenDigest : ""))
    .digest();
}
