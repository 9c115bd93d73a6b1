import assert from "node:assert/strict";
import { test } from "node:test";
import { createAdaptiveLimit, type LoopSeen } from "./adaptive-limit.ts";

const calm: LoopSeen = { lateMs: 0, busy: 0.3, used: 10 };

for (const [what, tookMs, seen, wanted] of [
  ["calls that are slow while the loop is prompt (a slow backend) change nothing", 900, calm, "same"],
  ["a loop that is late but has idle time (a busy machine) changes nothing", 900, { ...calm, lateMs: 80 }, "same"],
  ["a loop that is busy and prompt changes nothing", 2, { ...calm, busy: 1 }, "same"],
  ["calls that are slow while the loop is late and never idle make it fall", 40, { lateMs: 15, busy: 1, used: 128 }, "less"],
  ["a loop that is very late makes it fall, however quick calls seem", 2, { lateMs: 80, busy: 1, used: 128 }, "less"],
  ["calls that are as quick as ever let it grow when it is used", 2, { lateMs: 1, busy: 0.6, used: 100 }, "more"],
  ["it does not grow while nobody needs it", 2, { lateMs: 1, busy: 0.6, used: 20 }, "same"],
] as const) {
  test(what, () => {
    const limit = createAdaptiveLimit();
    for (let i = 0; i < 20; i++) limit.sample("quick", 2);
    limit.adapt(calm);
    for (let i = 0; i < 20; i++) limit.sample("quick", tookMs);
    limit.adapt(seen);
    assert.equal(limit.value < 128 ? "less" : limit.value > 128 ? "more" : "same", wanted);
  });
}

test("it stays between its least and its most, and goes back to where it began when it is calm", () => {
  const limit = createAdaptiveLimit({ least: 32, most: 512, first: 128 });
  for (let i = 0; i < 100; i++) limit.adapt({ lateMs: 500, busy: 1, used: 512 });
  assert.equal(limit.value, 32);
  for (let i = 0; i < 1_000; i++) limit.adapt(calm);
  assert.equal(limit.value, 128);
  for (let i = 0; i < 1_000; i++) limit.adapt({ lateMs: 0, busy: 0.5, used: 512 });
  assert.equal(limit.value, 512);
});

test("each kind of work is compared with its own best, and however many names there are, they take no room", () => {
  const limit = createAdaptiveLimit();
  for (let i = 0; i < 10_000; i++) limit.sample(`kind ${i}`, i);
  for (let i = 0; i < 50; i++) limit.sample("kind 200", 200); // always was so slow
  limit.adapt({ lateMs: 10, busy: 1, used: 128 });
  assert.equal(limit.value, 128);
});

test("without a limit there is none", () => {
  const all = Number.POSITIVE_INFINITY;
  const limit = createAdaptiveLimit({ least: all, most: all, first: all });
  limit.adapt({ lateMs: 500, busy: 1, used: 5_000 });
  assert.equal(limit.value, all);
});
