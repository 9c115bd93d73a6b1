import assert from "node:assert/strict";
import { after, test } from "node:test";
import { leadWorkers } from "../../test/support/led-workers.ts";
import { StoreDownError } from "../outgoing-auth/user-tokens.ts";
import { emptyState, type SessionRecord } from "../session/record.ts";
import { StoreUnavailableError } from "../session/record-store.ts";
import { recordsOf, userTokensOf } from "./shared-stores.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());

test("what only a worker that ended could give back is given back for it", async () => {
  const { worker } = leadWorkers(stack);
  const [one, two] = [worker(() => undefined), worker(() => undefined)];
  const [first, second] = [userTokensOf(one.leader), userTokensOf(two.leader)];
  assert.ok(await first.lock("k"));
  assert.equal(await second.lock("k"), undefined);
  recordsOf(one.leader).announce("r1", "http://127.0.0.1:1");
  assert.equal(await recordsOf(two.leader).addressOf("r1"), "http://127.0.0.1:1");
  one.end();
  const unlock = await second.lock("k");
  assert.ok(unlock);
  assert.equal(await recordsOf(two.leader).addressOf("r1"), undefined);
  await unlock();
  assert.ok(await second.lock("k"));
});

test("a user's token is every worker's, and what is good once is good once for all of them", async () => {
  const { worker } = leadWorkers(stack);
  const [first, second] = [userTokensOf(worker(() => undefined).leader), userTokensOf(worker(() => undefined).leader)];
  const endsMs = Date.now() + 60_000;
  const token = { access: "a", refresh: "r", issuer: "i", clientId: "c", obtainedMs: 1, endsMs };
  await first.write("k", token);
  assert.deepEqual(await second.read("k"), token);
  assert.deepEqual([await first.claim("once", 60_000), await second.claim("once", 60_000)], [true, false]);
  await second.remove("k", token);
  assert.equal(await first.read("k"), undefined);
});

test("without the leader nobody is told that there is no such session, or that nobody has signed in", async () => {
  const { worker } = leadWorkers(stack);
  const { leader } = worker(() => undefined);
  const unanswered = { ...leader, ask: () => Promise.reject(new Error("gone")) };
  await assert.rejects(recordsOf(unanswered).read("k"), StoreUnavailableError);
  await assert.rejects(userTokensOf(unanswered).read("k"), StoreDownError);
});

test("the leader keeps no more sessions than it is told to", async () => {
  const { worker } = leadWorkers(stack, 2);
  const records = recordsOf(worker(() => undefined).leader);
  const times = { pendingMs: 60_000, absoluteMs: 60_000 };
  for (const key of ["a", "b"]) await records.create(key, { state: emptyState } as SessionRecord, times);
  await assert.rejects(records.create("c", { state: emptyState } as SessionRecord, times), StoreUnavailableError);
  await records.remove("a");
  await records.create("c", { state: emptyState } as SessionRecord, times);
});
