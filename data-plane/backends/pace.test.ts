import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createPace } from "./pace.ts";

test("the first one is at once, the next after the gap", () => {
  const pace = createPace({ firstMs: 1_000, mostMs: 5_000 });
  assert.equal(pace.waitMs(7), 0);
  pace.done(10);
  assert.equal(pace.waitMs(11), 999);
});

test("gaps grow while it is pressed and shrink when it was quiet", () => {
  const pace = createPace({ firstMs: 1_000, mostMs: 5_000 });
  pace.done(0);
  const waits: number[] = [];
  let nowMs = 0;
  for (let i = 0; i < 5; i++) {
    const wait = pace.waitMs(nowMs + 1);
    waits.push(wait + 1);
    nowMs += wait + 1;
    pace.done(nowMs);
  }
  assert.deepEqual(waits, [1_000, 2_000, 4_000, 5_000, 5_000]);
  assert.equal(pace.waitMs(nowMs + 5_000), 0);
  pace.done(nowMs + 5_000);
  assert.equal(pace.waitMs(nowMs + 5_001), 999);
});

test("never more often than the first gap allows, whoever asks and when", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(3_000)), (steps) => {
      const pace = createPace({ firstMs: 1_000, mostMs: 5_000 });
      let nowMs = 0;
      let doneMs = Number.NEGATIVE_INFINITY;
      for (const step of steps) {
        nowMs += step;
        nowMs += pace.waitMs(nowMs);
        assert.ok(nowMs - doneMs >= 1_000);
        pace.done(nowMs);
        doneMs = nowMs;
      }
    }),
  );
});
