import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createRetryBudget, type RetryBudget } from "./retry-budget.ts";

/** Takes all there is; gives how much that was. */
function drain(budget: RetryBudget, nowMs: number): number {
  let taken = 0;
  for (; budget.allows(nowMs); taken++) budget.retried(nowMs);
  return taken;
}

test("a quiet backend has 5 retries for each second of the window", () => {
  assert.equal(drain(createRetryBudget(), 3), 50);
});

test("a busy one has a fifth of its calls on top", () => {
  const budget = createRetryBudget();
  for (let i = 0; i < 1_000; i++) budget.called(i);
  assert.equal(drain(budget, 1_000), 250);
});

test("what was used up comes back when it leaves the window", () => {
  const budget = createRetryBudget();
  assert.equal(drain(budget, 500), 50);
  assert.equal(drain(budget, 9_999), 0);
  assert.equal(drain(budget, 10_000), 50);
});

test("calls of long ago buy nothing", () => {
  const budget = createRetryBudget();
  for (let i = 0; i < 1_000; i++) budget.called(0);
  assert.equal(drain(budget, 60_000), 50);
  assert.equal(drain(budget, 1e9), 50); // a process that is up for days
});

test("whatever comes when, it allows what counting every call and retry would", () => {
  const step = fc.record({ waitMs: fc.nat(4_000), calls: fc.nat(40), retries: fc.nat(40) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const budget = createRetryBudget();
      const called: number[] = [];
      const retried: number[] = [];
      let nowMs = 0;
      for (const { waitMs, calls, retries } of steps) {
        nowMs += waitMs;
        const inWindow = (times: number[]) => times.filter((ms) => ms >= Math.floor(nowMs / 1_000) * 1_000 - 9_000).length;
        for (let i = 0; i < calls; i++) {
          budget.called(nowMs);
          called.push(nowMs);
        }
        for (let i = 0; i < retries; i++) {
          const isAllowed = inWindow(retried) < Math.floor(inWindow(called) * 0.2) + 50;
          assert.equal(budget.allows(nowMs), isAllowed);
          if (!isAllowed) break;
          budget.retried(nowMs);
          retried.push(nowMs);
        }
      }
    }),
  );
});
