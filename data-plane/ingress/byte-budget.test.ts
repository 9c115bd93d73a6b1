import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type ByteBudget, createByteBudget, type Holder } from "./byte-budget.ts";

test("the holder that wrote least recently forgets", () => {
  const budget = createByteBudget(100);
  const [one, two, three] = [holder(budget), holder(budget), holder(budget)];
  one.keep(40);
  two.keep(40);
  one.keep(10);
  three.keep(40);
  assert.deepEqual([one.keptBytes, two.keptBytes, three.keptBytes], [50, 0, 40]);
  assert.equal(budget.bytes, 90);
});

test("what is too large for all of them is kept alone", () => {
  const budget = createByteBudget(100);
  const [one, two] = [holder(budget), holder(budget)];
  one.keep(40);
  two.keep(1_000);
  assert.deepEqual([one.keptBytes, two.keptBytes], [0, 1_000]);
  one.keep(1);
  assert.deepEqual([one.keptBytes, two.keptBytes], [1, 0]);
});

test("whatever is kept and forgotten, the sum is right and within bounds", () => {
  const steps = fc.array(fc.tuple(fc.nat(4), fc.nat(60)));
  fc.assert(
    fc.property(steps, (changes) => {
      const budgets = [createByteBudget(50), createByteBudget(100)] as const;
      const holders = Array.from({ length: 5 }, () => holder(...budgets));
      for (const [i, bytes] of changes) {
        if (bytes === 0) holders[i]?.forget();
        else holders[i]?.keep(bytes);
        const kept = holders.map(({ keptBytes }) => keptBytes);
        const sum = kept.reduce((a, b) => a + b, 0);
        assert.deepEqual([budgets[0].bytes, budgets[1].bytes], [sum, sum]);
        assert.ok(sum <= 50 || kept.filter((one) => one > 0).length === 1);
      }
    }),
  );
});

function holder(...budgets: readonly ByteBudget[]): Holder & { keep(bytes: number): void } {
  let keptBytes = 0;
  const set = (bytes: number): void => {
    keptBytes = bytes;
    for (const budget of budgets) budget.note(one);
  };
  const one = {
    get keptBytes() {
      return keptBytes;
    },
    keep: (bytes: number) => set(keptBytes + bytes),
    forget: () => set(0),
  };
  return one;
}
