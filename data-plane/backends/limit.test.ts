import assert from "node:assert/strict";
import { test } from "node:test";
import { createLimit } from "./limit.ts";

const minuteMs = 60_000;

test("progress puts the deadline off, as often as it comes, and silence ends the call", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const limit = createLimit();
  limit.arm(1_000);
  for (let i = 0; i < 10; i++) {
    t.mock.timers.tick(900);
    limit.extend();
  }
  assert.equal(limit.signal.aborted, false);
  t.mock.timers.tick(1_000);
  assert.equal(limit.signal.aborted, true);
  assert.match((limit.signal.reason as Error).message, /no answer within 1 s/);
});

test("however much progress there is, a call ends half an hour after it began", (t) => {
  let now = 0;
  t.mock.method(performance, "now", () => now);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const limit = createLimit();
  limit.arm(minuteMs);
  const pass = (ms: number): void => {
    now += ms;
    t.mock.timers.tick(ms);
  };
  for (let minute = 0; minute < 59; minute++) {
    pass(minuteMs / 2);
    limit.extend();
  }
  assert.equal(limit.signal.aborted, false);
  pass(minuteMs);
  assert.equal(limit.signal.aborted, true);
});

test("a call that is over is not begun again by what comes late", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const limit = createLimit();
  limit.arm(1_000);
  limit.disarm();
  limit.extend();
  t.mock.timers.tick(10_000);
  assert.equal(limit.signal.aborted, false);
});
