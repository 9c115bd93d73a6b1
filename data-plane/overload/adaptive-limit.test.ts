import assert from "node:assert/strict";
import { test } from "node:test";
import { createAdaptiveLimit, type LoopSeen } from "./adaptive-limit.ts";

const calm: LoopSeen = { lateMs: 0, busy: 0.3, used: 10 };

for (const [what, seen, wanted] of [
  ["a loop that is late but has some idle time (a busy machine) changes nothing", { lateMs: 80, busy: 0.93, used: 10 }, 400],
  ["a loop that is busy and prompt changes nothing", { ...calm, busy: 1 }, 400],
  ["a loop that is late and never idle makes it fall by as much as it is late", { lateMs: 5, busy: 1, used: 10 }, 320],
  ["to two fifths at once, however late it is", { lateMs: 500, busy: 1, used: 10 }, 160],
  ["it grows when it is used and the loop is prompt", { lateMs: 1, busy: 1, used: 200 }, 405],
  ["in calm times it goes back a tenth of the way", calm, 460],
] as const) {
  test(what, () => {
    const limit = createAdaptiveLimit({ most: 1_000 });
    limit.adapt({ lateMs: 10, busy: 1, used: 1_000 });
    limit.adapt(seen);
    assert.equal(limit.value, wanted);
  });
}

test("it stays between its least and its most, where it begins", () => {
  const limit = createAdaptiveLimit();
  assert.equal(limit.value, 1_024);
  for (let i = 0; i < 10; i++) limit.adapt({ lateMs: 500, busy: 1, used: 512 });
  assert.equal(limit.value, 64);
  for (let i = 0; i < 100; i++) limit.adapt(calm);
  assert.equal(limit.value, 1_024);
});

test("a most below the least is obeyed", () => {
  const limit = createAdaptiveLimit({ most: 4 });
  for (let i = 0; i < 10; i++) limit.adapt({ lateMs: 0, busy: 0.5, used: 4 });
  assert.equal(limit.value, 4);
});
