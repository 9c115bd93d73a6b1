import assert from "node:assert/strict";
import { test } from "node:test";
import { keyProblem, keysLast } from "./session-keys.ts";

const key = `-${"k".repeat(21)}`;

for (const [text, isGood] of [
  ["k".repeat(22), true],
  [key, true],
  ["abc_-9", true],
  ["abcde", false],
  ["k".repeat(23), false],
  ["the key", false],
  ["", false],
] as const) {
  test(`"${text}" is ${isGood ? "a key or its beginning" : "no key"}`, () =>
    assert.equal(keyProblem(text) === undefined, isGood));
}

for (const [what, args, wanted] of [
  [
    "a key that begins with - stands behind --",
    ["session", "revoke", key, "--no-wait"],
    ["session", "revoke", "--no-wait", "--", key],
  ],
  ["what is behind -- already stays", ["revoke", key, "--", "-abcdef"], ["revoke", "--", key, "-abcdef"]],
  ["options are not taken for keys", ["revoke", "--virtual-server", "--no-wait"], ["revoke", "--virtual-server", "--no-wait"]],
  ["other commands are left alone", ["get", key], ["get", key]],
] as const) {
  test(what, () => assert.deepEqual(keysLast(args), wanted));
}
