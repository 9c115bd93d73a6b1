import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import type { Identity } from "../incoming-auth/identity.ts";
import { encode } from "../mcp/encode.ts";
import { createKey, type Keys, oneKey } from "../mcp/seal.ts";
import { type Bound, createBinder, UnboundCallerError } from "./binding.ts";

const secret = randomBytes(32);
const keys = oneKey(secret);
const byIdentity = createBinder({ keys, mode: "identity" });
const byToken = createBinder({ keys, mode: "token" });
const ada: Identity = {
  issuer: "https://a.example",
  subject: "ada",
  isAnonymous: false,
  client: "cli",
  confirmation: "jkt",
  tokenDigest: "first",
};
const bound: Bound = { sessionId: "s1", virtualServer: "team", identity: ada };

test("a session is its caller's, on every replica with the same secret", () => {
  const binding = byIdentity.bind(bound);
  const replica = createBinder({ keys: oneKey(Buffer.from(secret)), mode: "token" });
  assert.equal(replica.check(binding, bound), "match");
  assert.notEqual(byIdentity.bind(bound).tag, binding.tag, "each has a salt of its own");
});

test("what has matched is known again, and nothing else is because of it", () => {
  let isKnown = true;
  const binder = createBinder({ keys: { ...keys, find: (id) => (isKnown ? keys.find(id) : undefined) }, mode: "identity" });
  const binding = binder.bind(bound);
  for (let i = 0; i < 2; i++) {
    assert.equal(binder.check(binding, bound), "match");
    for (const [, other] of others) assert.equal(binder.check(binding, other), "mismatch");
    assert.equal(binder.check({ ...binding }, { ...bound, identity: { ...ada, subject: "bob" } }), "mismatch");
    assert.equal(binder.check({ ...binding, salt: "other" }, bound), "mismatch");
  }
  isKnown = false;
  assert.equal(binder.check(binding, bound), "unknown_key", "its key was taken away");
});

const others: [what: string, bound: Bound][] = [
  ["another session", { ...bound, sessionId: "s2" }],
  ["another virtual server", { ...bound, virtualServer: "other" }],
  ["another issuer", { ...bound, identity: { ...ada, issuer: "https://b.example" } }],
  ["another subject", { ...bound, identity: { ...ada, subject: "bob" } }],
  ["another client", { ...bound, identity: { ...ada, client: "web" } }],
  ["another key", { ...bound, identity: { ...ada, confirmation: "other" } }],
  ["nobody in particular", { ...bound, identity: { ...ada, isAnonymous: true } }],
  ["a subject that is no name", { ...bound, identity: { ...ada, subject: "" } }],
];
for (const [what, other] of others) {
  test(`it is not that of ${what}`, () => {
    for (const binder of [byIdentity, byToken]) assert.equal(binder.check(binder.bind(bound), other), "mismatch");
  });
}

test("a refreshed token goes on with a session bound to its caller, and with none bound to the token", () => {
  const refreshed = { ...bound, identity: { ...ada, tokenDigest: "second" } };
  assert.equal(byIdentity.check(byIdentity.bind(bound), refreshed), "match");
  assert.equal(byToken.check(byToken.bind(bound), refreshed), "mismatch");
  assert.equal(byToken.check(byToken.bind(bound), bound), "match");
});

test("a session that nobody was asked for is not that of a caller with a name", () => {
  const anonymous = { ...bound, identity: { issuer: "i", subject: "s", isAnonymous: true } };
  const binding = byToken.bind(anonymous);
  assert.equal(binding.mode, "anonymous");
  assert.equal(byToken.check(binding, anonymous), "match");
  assert.equal(byToken.check(binding, { ...bound, identity: { ...anonymous.identity, isAnonymous: false } }), "mismatch");
});

test("callers who can't be told from others get no session", () => {
  const bind = (identity: Partial<Identity>) => () => byToken.bind({ ...bound, identity: { ...ada, ...identity } });
  assert.throws(bind({ issuer: "" }), UnboundCallerError);
  assert.throws(bind({ subject: "a\nb" }), UnboundCallerError);
  assert.throws(bind({ subject: "x".repeat(1_025) }), UnboundCallerError);
  assert.throws(bind({ tokenDigest: "" }), UnboundCallerError);
});

test("no part of a binding can be changed, and one of a key that is gone is good for nobody", () => {
  const binding = byIdentity.bind(bound);
  for (const change of [
    { mode: "token" },
    { salt: "AAAAAAAAAAAAAAAAAAAAAA" },
    { tag: "" },
    { tag: binding.tag.slice(1) },
  ] as const)
    assert.equal(byIdentity.check({ ...binding, ...change }, bound), "mismatch");
  assert.equal(byIdentity.check({ ...binding, keyId: "k9" }, bound), "unknown_key");
  const [one, two] = [createKey("k1", secret), createKey("k2", randomBytes(32))];
  const rotated: Keys = { active: two, find: (id) => [one, two].find((key) => key.id === id) };
  assert.equal(createBinder({ keys: rotated, mode: "identity" }).check(binding, bound), "match");
});

test("no two lists of fields are encoded alike", () => {
  const fields = fc.array(fc.string({ unit: "binary", maxLength: 4 }), { maxLength: 5 });
  fc.assert(
    fc.property(fields, fields, (one, other) => {
      const isSame = one.length === other.length && one.every((field, i) => field === other[i]);
      return encode(...one).equals(encode(...other)) === isSame;
    }),
    { numRuns: 20_000 },
  );
  assert.ok(!encode("a", "b").equals(encode("ab", "")));
  assert.ok(!encode("", "a").equals(encode("a", "")));
});
