import assert from "node:assert/strict";
import { test } from "node:test";
import { createBulkhead } from "./bulkhead.ts";
import { BackendError } from "./errors.ts";

const isFull = (error: unknown) =>
  error instanceof BackendError && error.code === "shed" && error.outcome === "not_executed" && error.leftAlone === undefined;

test("so many are in at a time, one more is shed", () => {
  const bulkhead = createBulkhead(2);
  const [one] = [bulkhead.enter(), bulkhead.enter()];
  assert.throws(() => bulkhead.enter(), isFull);
  assert.equal(bulkhead.taken, 2);
  one?.leave();
  assert.equal(bulkhead.taken, 1);
  bulkhead.enter();
  assert.throws(() => bulkhead.enter(), isFull);
});

test("a slot is free only when everybody has left it, however long nobody has waited for the call", () => {
  const bulkhead = createBulkhead(1);
  const slot = bulkhead.enter();
  slot.hold();
  slot.leave(); // given up at its deadline, say
  assert.throws(() => bulkhead.enter(), isFull);
  slot.leave();
  bulkhead.enter();
});

test("it is idle when every slot is free", async () => {
  const bulkhead = createBulkhead(2);
  await bulkhead.idle();
  const slots = [bulkhead.enter(), bulkhead.enter()];
  let isIdle = false;
  const idle = Promise.all([bulkhead.idle(), bulkhead.idle()]).then(() => {
    isIdle = true;
  });
  slots[0]?.leave();
  await new Promise(setImmediate);
  assert.equal(isIdle, false);
  slots[1]?.leave();
  await idle;
});
