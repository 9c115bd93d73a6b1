import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { createKey, createSealer, deriveKey, type Keys, oneKey, payloadBytesMax } from "./seal.ts";

const secret = Buffer.alloc(32, 7);
const sealer = createSealer(oneKey(secret), "cursor");
const bytes = fc.uint8Array({ maxLength: 60 }).map((array) => Buffer.from(array));
const anyText = fc.string({ unit: "binary" });

test("what is sealed here opens on another replica, in the same context", () => {
  const replica = createSealer(oneKey(Buffer.from(secret)), "cursor");
  fc.assert(
    fc.property(bytes, anyText, (payload, context) => {
      assert.deepEqual(replica.open(sealer.seal(payload, context), context), payload);
    }),
    { numRuns: 10_000 },
  );
});

test("no changed bit opens", () => {
  fc.assert(
    fc.property(bytes, anyText, fc.nat(), (payload, context, at) => {
      const token = sealer.seal(payload, context);
      const sealed = Buffer.from(token.slice(5), "base64url");
      const bit = at % (sealed.length * 8);
      sealed[bit >> 3] = (sealed[bit >> 3] as number) ^ (1 << (bit & 7));
      assert.equal(sealer.open(`s1k1.${sealed.toString("base64url")}`, context), undefined);
    }),
    { numRuns: 20_000 },
  );
});

test("no changed, missing or added character opens", () => {
  const token = sealer.seal(Buffer.from("a route"), "session");
  for (let at = 0; at < token.length; at++) {
    for (let code = 0; code < 256; code++) {
      const other = String.fromCharCode(code);
      if (other !== token[at]) assert.equal(sealer.open(token.slice(0, at) + other + token.slice(at + 1), "session"), undefined);
      assert.equal(sealer.open(token.slice(0, at) + other + token.slice(at), "session"), undefined, `${at} ${code}`);
    }
    assert.equal(sealer.open(token.slice(0, at), "session"), undefined);
    assert.equal(sealer.open(token.slice(0, at) + token.slice(at + 1), "session"), undefined);
  }
  for (const tail of ["=", "==", " ", "\n", "A"]) assert.equal(sealer.open(token + tail, "session"), undefined);
});

test("no other context opens", () => {
  fc.assert(
    fc.property(bytes, anyText, anyText, (payload, context, other) => {
      fc.pre(context !== other);
      assert.equal(sealer.open(sealer.seal(payload, context), other), undefined);
    }),
    { numRuns: 10_000 },
  );
  const token = sealer.seal(Buffer.from("x"), "\ud800");
  assert.equal(sealer.open(token, "\ud801"), undefined);
  assert.deepEqual(sealer.open(token, "\ud800"), Buffer.from("x"));
});

test("no other purpose or secret opens, wherever the border between purpose and context lies", () => {
  const token = sealer.seal(Buffer.from("x"), "ab");
  assert.equal(createSealer(oneKey(secret), "event").open(token, "ab"), undefined);
  assert.equal(createSealer(oneKey(secret), "cursora").open(token, "b"), undefined);
  assert.equal(createSealer(oneKey(randomBytes(32)), "cursor").open(token, "ab"), undefined);
});

test("a token opens for as long as the key that sealed it is in the ring", () => {
  const [one, two] = [createKey("k1", secret), createKey("k2", randomBytes(32))];
  let ring = [one];
  const keys: Keys = {
    get active() {
      return ring[0] as typeof one;
    },
    find: (id) => ring.find((key) => key.id === id),
  };
  const rotated = createSealer(keys, "cursor");
  const token = rotated.seal(Buffer.from("x"), "c");
  ring = [two, one];
  assert.deepEqual(rotated.open(token, "c"), Buffer.from("x"));
  assert.match(rotated.seal(Buffer.from("x"), "c"), /^s1k2\./);
  assert.equal(rotated.open(token.replace("s1k1", "s1k2"), "c"), undefined);
  ring = [two];
  assert.equal(rotated.open(token, "c"), undefined);
});

test("opens no text that is not a token", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.base64String(), fc.string({ unit: "binary" })), (text) => {
      assert.equal(sealer.open(text, ""), undefined);
      assert.equal(sealer.open(`s1k1.${text}`, ""), undefined);
    }),
    { numRuns: 5_000 },
  );
});

test("tokens are bounded, plain ASCII, and never the same", () => {
  const token = sealer.seal(randomBytes(payloadBytesMax), "c");
  assert.ok(token.length <= 4096);
  assert.equal(sealer.open(token, "c")?.length, payloadBytesMax);
  assert.throws(() => sealer.seal(Buffer.alloc(payloadBytesMax + 1), "c"), RangeError);
  assert.equal(sealer.open(`s1k1.${"A".repeat(4094)}`, "c"), undefined);
  assert.match(token, /^s1k1\.[A-Za-z0-9_-]+$/);
  const tokens = Array.from({ length: 2_000 }, () => sealer.seal(Buffer.from("same"), "c"));
  assert.equal(new Set(tokens).size, tokens.length);
});

test("the payload cannot be read from the token", () => {
  const token = sealer.seal(Buffer.from("backend-secret-name"), "c");
  assert.ok(!Buffer.from(token.slice(5), "base64url").includes("backend-secret-name"));
});

test("keys differ by purpose and by key id, and are made as RFC 5869 says", () => {
  const keys = [
    deriveKey(secret, "a", ""),
    deriveKey(secret, "b", ""),
    deriveKey(secret, "a", "k1"),
    deriveKey(secret, "a", "k2"),
  ];
  assert.equal(new Set(keys.map((key) => key.export().toString("hex"))).size, 4);
  const hmac = (key: string | Buffer, ...parts: string[]) => createHmac("sha256", key).update(parts.join("")).digest();
  const extracted = createHmac("sha256", "k1").update(secret).digest();
  assert.deepEqual(deriveKey(secret, "a", "k1").export(), hmac(extracted, "a", "\x01"));
});

test("a short secret is refused", () => {
  assert.throws(() => deriveKey(Buffer.alloc(31), "a", "k1"), /31 bytes is too short, at least 32/);
  assert.throws(() => oneKey(Buffer.alloc(0)), RangeError);
});
