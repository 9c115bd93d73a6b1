import assert from "node:assert/strict";
import { test } from "node:test";
import { createBackoff } from "./backoff.ts";

const refused = { lastedMs: 10, isUnreachable: false, retryMs: undefined };
const unreachable = { ...refused, isUnreachable: true };
const healthy = { ...refused, lastedMs: 30_000 };

test("the most that is waited doubles from 100 ms, to 15 s", () => {
  const longest = createBackoff(() => 1);
  const waits = Array.from({ length: 9 }, () => longest(refused));
  assert.deepEqual(waits, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000]);
});

test("where nobody listens it is tried again within 2 s, however long nobody does", () => {
  const longest = createBackoff(() => 1);
  for (let i = 0; i < 20; i++) assert.ok(longest(unreachable) <= 2_000);
});

test("after 30 s of health it begins anew", () => {
  const longest = createBackoff(() => 1);
  for (let i = 0; i < 9; i++) longest(refused);
  assert.equal(longest(healthy), 100);
  assert.equal(longest(refused), 200);
});

test("the wait is anything from nothing on, so that a fleet does not come in step", () => {
  assert.equal(createBackoff(() => 0)(refused), 0);
  const waits = new Set(Array.from({ length: 100 }, () => createBackoff()(refused)));
  assert.ok(waits.size > 90, String(waits.size));
});

test("who is asked to come after a while does not come before, nor all at once", () => {
  const asked = { ...refused, retryMs: 1_000 };
  assert.equal(createBackoff(() => 0)(asked), 1_000);
  assert.equal(createBackoff(() => 1)(asked), 2_000);
  assert.equal(createBackoff(() => 0)({ ...refused, retryMs: 3_600_000 }), 15_000, "a wrong number does not lock it out");
});
