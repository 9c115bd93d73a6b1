import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { oneKey } from "../mcp/seal.ts";
import { createSessionIds, publicKeyOf } from "./session-ids.ts";

const secret = randomBytes(32);
const ids = createSessionIds(oneKey(secret));

test("an id is known to every replica with the same secret, and to no other", () => {
  const id = ids.mint();
  assert.match(id, /^g1\.k1\.[A-Za-z0-9_-]{24}\.[A-Za-z0-9_-]{16}$/);
  assert.equal(id.length, 47);
  assert.equal(ids.keyOf(id), publicKeyOf(id));
  assert.equal(createSessionIds(oneKey(Buffer.from(secret))).keyOf(id), publicKeyOf(id));
  assert.equal(createSessionIds(oneKey(randomBytes(32))).keyOf(id), undefined);
  assert.equal(createSessionIds(oneKey(secret, "k2")).keyOf(id), undefined);
});

test("no two ids, and no two names of them, are alike", () => {
  const many = Array.from({ length: 10_000 }, () => ids.mint());
  assert.equal(new Set(many).size, many.length);
  assert.equal(new Set(many.map(publicKeyOf)).size, many.length);
  assert.match(publicKeyOf(ids.mint()), /^[A-Za-z0-9_-]{22}$/);
});

test("no id that was changed anywhere is one", () => {
  const id = ids.mint();
  const changed = fc
    .tuple(fc.nat(id.length - 1), fc.string({ unit: "binary-ascii", maxLength: 2 }))
    .map(([at, by]) => id.slice(0, at) + by + id.slice(at + 1));
  const other = fc.oneof(changed, fc.string(), fc.base64String(), fc.constant(`${id} `), fc.constant(`${id}\n`));
  fc.assert(
    fc.property(other, (text) => text === id || ids.keyOf(text) === undefined),
    { numRuns: 20_000 },
  );
});
