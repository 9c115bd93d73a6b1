import assert from "node:assert/strict";
import { test } from "node:test";
import { createTokenCache, createTokenNames } from "./token-cache.ts";

test("the least recently used go first, and there are never more than so many", () => {
  const cache = createTokenCache<number>({ entriesMax: 3, bytesMax: Infinity });
  for (let i = 0; i < 3; i++) cache.set(`${i}`, i, 1);
  assert.equal(cache.get("0"), 0);
  cache.set("3", 3, 1);
  assert.deepEqual(["0", "1", "2", "3"].map(cache.get), [0, undefined, 2, 3]);
  for (let i = 0; i < 10_000; i++) cache.set(`x${i}`, i, 1);
  assert.equal(cache.size, 3);
});

test("there are never more bytes than so many, also when an entry is replaced", () => {
  const cache = createTokenCache<string>({ entriesMax: 100, bytesMax: 100 });
  for (let i = 0; i < 50; i++) cache.set("same", "x", 60);
  assert.equal(cache.size, 1);
  cache.set("other", "y", 40);
  assert.equal(cache.size, 2);
  cache.set("third", "z", 1);
  assert.deepEqual(["same", "other", "third"].map(cache.get), [undefined, "y", "z"]);
  cache.delete("other");
  cache.delete("other");
  cache.set("big", "b", 99);
  assert.equal(cache.size, 2);
  cache.set("too big", "b", 101);
  assert.equal(cache.size, 0);
});

test("names tell tokens apart, and say nothing to another process", () => {
  const [nameOf, other] = [createTokenNames(), createTokenNames()];
  assert.equal(nameOf("a"), nameOf("a"));
  assert.notEqual(nameOf("a"), nameOf("b"));
  assert.notEqual(nameOf("a"), other("a"));
});
