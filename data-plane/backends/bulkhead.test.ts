import assert from "node:assert/strict";
import { test } from "node:test";
import { createBulkhead } from "./bulkhead.ts";
import { BackendError } from "./errors.ts";

const hold = () => Promise.withResolvers<void>();
const isFull = (error: unknown) =>
  error instanceof BackendError && error.code === "shed" && error.outcome === "not_executed" && error.leftAlone === undefined;

test("so many run at a time, one more is shed without having begun", async () => {
  const bulkhead = createBulkhead(2);
  const [one, two] = [hold(), hold()];
  const running = [bulkhead.run(() => one.promise), bulkhead.run(() => two.promise)];
  await assert.rejects(
    bulkhead.run(async () => assert.fail("it ran")),
    isFull,
  );
  one.reject(new Error("it failed"));
  await assert.rejects(running[0] as Promise<void>, /it failed/);
  assert.equal(await bulkhead.run(async () => "there is room"), "there is room");
  two.resolve();
  await running[1];
});

test("a slot is free only when the call has really ended, however long nobody has waited for it", async () => {
  const bulkhead = createBulkhead(1);
  const call = hold();
  await bulkhead.run(async (keep) => void keep(call.promise)); // given up at its deadline, say
  await assert.rejects(
    bulkhead.run(async () => undefined),
    isFull,
  );
  call.reject(new Error("too late"));
  await call.promise.catch(() => undefined);
  await bulkhead.run(async () => undefined);
});

test("a slot is not free when only what was kept has ended", async () => {
  const bulkhead = createBulkhead(1);
  const call = hold();
  const running = bulkhead.run(async (keep) => {
    await keep(Promise.resolve());
    await call.promise;
  });
  await new Promise(setImmediate);
  await assert.rejects(
    bulkhead.run(async () => undefined),
    isFull,
  );
  call.resolve();
  await running;
});

test("what is kept frees its slot once", async () => {
  const bulkhead = createBulkhead(2);
  await bulkhead.run((keep) => keep(keep(Promise.resolve())));
  const calls = [hold(), hold()];
  const running = calls.map(({ promise }) => bulkhead.run(() => promise));
  await assert.rejects(
    bulkhead.run(async () => undefined),
    isFull,
  );
  for (const { resolve } of calls) resolve();
  await Promise.all(running);
});

test("it is idle when every call has ended", async () => {
  const bulkhead = createBulkhead(2);
  await bulkhead.idle();
  const calls = [hold(), hold()];
  const running = calls.map(({ promise }) => bulkhead.run(() => promise));
  let isIdle = false;
  const idle = Promise.all([bulkhead.idle(), bulkhead.idle()]).then(() => {
    isIdle = true;
  });
  calls[0]?.resolve();
  await running[0];
  await new Promise(setImmediate);
  assert.equal(isIdle, false);
  calls[1]?.resolve();
  await idle;
});
