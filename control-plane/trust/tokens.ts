// Enrolment tokens: made once, shown once, stored as a hash of their secret.
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import { formatToken, parseToken, tokenSecretBytes } from "../../common/enrolment-token.ts";
import { segmentPattern } from "../../common/spiffe.ts";
import type { Attempt, RecordChange, Records } from "../store/store.ts";
import type { Authority } from "./authority.ts";
import { TrustError } from "./errors.ts";
import { createShelf, type Kept } from "./shelf.ts";

const hourMs = 60 * 60_000;
const ttlMsMax = 7 * 24 * hourMs;
const usesMax = 1_000;
const tokensMax = 1_000;

// How long one that has ended is still shown.
const shownMs = 24 * hourMs;

const tokenSchema = z.object({
  scope: z.string(),
  namePrefix: z.string(),
  /** SHA-256, in hex. It is of 24 random bytes, so nothing slower is needed. */
  secretHash: z.string(),
  uses: z.number(),
  usesLeft: z.number(),
  createdMs: z.number(),
  expiresMs: z.number(),
  creator: z.string(),
});

export type StoredToken = z.infer<typeof tokenSchema>;
export type Token = Omit<StoredToken, "secretHash"> & { readonly id: string };

export interface TokenTerms {
  /** Empty: `default`. */
  readonly scope: string;
  readonly namePrefix: string;
  /** Undefined: 1 h. */
  readonly ttlMs: number | undefined;
  /** 0: 1. */
  readonly uses: number;
}

export interface Tokens {
  create(terms: TokenTerms, by: Attempt): Promise<{ readonly text: string; readonly token: Token }>;
  /** Sorted by id. */
  list(): Promise<Token[]>;
  remove(id: string, by: Attempt): Promise<void>;
  /** Throws TrustError unless this text lets this name enrol now; else its scope, and the change that takes one of its uses. */
  spend(
    text: string,
    name: string,
  ): Promise<{ readonly scope: string; readonly createdMs: number; readonly change: RecordChange }>;
}

export function createTokens(records: Records, authority: Authority | undefined, nowMs: () => number): Tokens {
  const shelf = createShelf(records, "enrolmentTokens", tokenSchema);

  return {
    async create(terms, by) {
      if (authority === undefined) throw noAuthority();
      const { scope, namePrefix, uses, ttlMs } = checked(terms);
      const stored = await shelf.list();
      const past = stored.filter(({ value }) => value.expiresMs + shownMs < nowMs());
      if (stored.length - past.length >= tokensMax) throw new TrustError("full", `there are ${tokensMax} tokens; delete some`);
      const [id, secret] = [randomBytes(6).toString("hex"), randomBytes(tokenSecretBytes)];
      const createdMs = nowMs();
      const value = {
        ...{ scope, namePrefix, uses, usesLeft: uses, createdMs, expiresMs: createdMs + ttlMs, creator: by.actor },
        secretHash: hashOf(secret).toString("hex"),
      };
      await records.change([shelf.add(id, value), ...past.map((one) => shelf.remove(one.id))], by);
      return { text: formatToken({ id, secret, pin: authority.pin }), token: shown({ id, value }) };
    },
    async list() {
      return (await shelf.list()).filter(({ value }) => value.expiresMs + shownMs >= nowMs()).map(shown);
    },
    async remove(id, by) {
      const found = await shelf.get(id);
      if (found === undefined) throw new TrustError("not_found", `there is no token "${id}"`);
      await records.change([shelf.remove(id)], by);
    },
    async spend(text, name) {
      const said = parseToken(text);
      const found = said && (await shelf.get(said.id));
      // One message for all of these: who has no token learns nothing of those that there are.
      if (!said || !found || !timingSafeEqual(hashOf(said.secret), Buffer.from(found.value.secretHash, "hex")))
        throw new TrustError("unproven", "the enrolment token is not valid");
      const { expiresMs, usesLeft, namePrefix, scope, createdMs } = found.value;
      if (expiresMs <= nowMs()) throw new TrustError("unproven", `the enrolment token ${said.id} ended; ask for another`);
      if (usesLeft < 1) throw new TrustError("denied", `the enrolment token ${said.id} is used up; ask for another`);
      if (!name.startsWith(namePrefix))
        throw new TrustError("denied", `the enrolment token ${said.id} is for names that begin with "${namePrefix}"`);
      return { scope, createdMs, change: shelf.replace(found, { ...found.value, usesLeft: usesLeft - 1 }) };
    },
  };
}

export function noAuthority(): TrustError {
  return new TrustError(
    "no_authority",
    "this control plane has no certificate authority: start it with --trust-dir, or --ca-cert and --ca-key",
  );
}

function checked({ scope: wanted, namePrefix, ttlMs = hourMs, uses: count }: TokenTerms) {
  const [scope, uses] = [wanted || "default", count || 1];
  if (!segmentPattern.test(scope))
    throw new TrustError("invalid", `"${scope}" is no scope; wanted letters, digits, ".", "_", "-"`);
  if (namePrefix !== "" && !segmentPattern.test(namePrefix))
    throw new TrustError("invalid", `no name begins with "${namePrefix}"; wanted letters, digits, ".", "_", "-"`);
  if (ttlMs < 1_000 || ttlMs > ttlMsMax) throw new TrustError("invalid", "a token lasts 1 second to 7 days");
  if (uses > usesMax) throw new TrustError("invalid", `a token is good for 1 to ${usesMax} uses`);
  return { scope, namePrefix, ttlMs, uses };
}

function shown({ id, value: { secretHash: _, ...value } }: Pick<Kept<StoredToken>, "id" | "value">): Token {
  return { id, ...value };
}

function hashOf(secret: Uint8Array): Buffer {
  return createHash("sha256").update(secret).digest();
}
