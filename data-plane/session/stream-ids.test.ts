import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { oneKey } from "../mcp/seal.ts";
import { createStreamIds } from "./stream-ids.ts";

const secret = randomBytes(32);
const replica = (address: string, key = secret) =>
  createStreamIds({ keys: oneKey(key), self: () => ({ address, instance: "i" }) });
const a = replica("http://10.0.0.1:4483");
const b = replica("http://10.0.0.2:4483");

test("any replica knows the owner of an id, and the owner knows that it is the one", () => {
  const id = a.mint("team");
  assert.equal(b.ownerOf(id, "team"), "http://10.0.0.1:4483");
  assert.equal(a.ownerOf(id, "team"), undefined);
  assert.match(id, /^[\x21-\x7e]{60,250}$/);
});

test("an id is void on another virtual server, and for replicas with another secret", () => {
  const id = a.mint("team");
  assert.equal(b.ownerOf(id, "other"), undefined);
  assert.equal(replica("http://10.0.0.2:4483", randomBytes(32)).ownerOf(id, "team"), undefined);
});

test("no two ids are alike", () => {
  assert.equal(new Set(Array.from({ length: 10_000 }, () => a.mint("team"))).size, 10_000);
});

test("made-up and changed ids lead nowhere", () => {
  const id = a.mint("team");
  const changed = fc
    .tuple(fc.nat(id.length - 1), fc.string({ unit: "binary-ascii", minLength: 1, maxLength: 1 }))
    .map(([at, by]) => id.slice(0, at) + by + id.slice(at + 1));
  fc.assert(
    fc.property(
      fc.oneof(changed, fc.string(), fc.base64String()),
      (text) => text === id || b.ownerOf(text, "team") === undefined,
    ),
    { numRuns: 20_000 },
  );
});
