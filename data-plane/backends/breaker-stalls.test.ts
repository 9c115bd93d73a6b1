import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { createStallMeter } from "./breaker-stalls.ts";

function setUp(t: TestContext) {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const clock = { ms: 1_000 };
  const stalls = createStallMeter({ nowMs: () => clock.ms });
  /** Time passes as it should: 10 ms at a time. */
  const pass = (ms: number) => {
    for (let left = ms; left > 0; left -= 10) {
      clock.ms += 10;
      t.mock.timers.tick(10);
    }
  };
  return { clock, stalls, pass };
}

test("time that passes as it should is no stall", (t) => {
  const { stalls, pass } = setUp(t);
  stalls.begin();
  pass(5_000);
  assert.equal(stalls.stalledSince(0), false);
});

test("who asks before the late tick is told of the stall all the same, and afterwards too", (t) => {
  const { clock, stalls, pass } = setUp(t);
  stalls.begin();
  pass(500);
  clock.ms += 2_000;
  assert.equal(stalls.stalledSince(1_500), true);
  t.mock.timers.tick(100);
  pass(1_000);
  assert.equal(stalls.stalledSince(1_500), true);
  assert.equal(stalls.stalledSince(clock.ms - 900), false); // what began since
});

test("250 ms are no stall", (t) => {
  const { clock, stalls, pass } = setUp(t);
  stalls.begin();
  pass(500);
  clock.ms += 250;
  assert.equal(stalls.stalledSince(0), false);
});

test("while no call runs nothing is measured, and nothing of that is taken for a stall", (t) => {
  const { clock, stalls, pass } = setUp(t);
  stalls.begin();
  stalls.end();
  pass(200);
  clock.ms += 60_000; // no tick, and nobody waits for one
  stalls.begin();
  assert.equal(stalls.stalledSince(clock.ms - 100), false);
  pass(1_000);
  assert.equal(stalls.stalledSince(clock.ms - 1_000), false);
});

test("a real stall of the event loop is noticed", async () => {
  const stalls = createStallMeter({ nowMs: () => performance.now() });
  stalls.begin();
  const startedMs = performance.now();
  await new Promise(setImmediate);
  while (performance.now() - startedMs < 500);
  assert.equal(stalls.stalledSince(startedMs), true);
  stalls.end();
});
