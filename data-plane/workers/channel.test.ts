import assert from "node:assert/strict";
import { test } from "node:test";
import { pair } from "../../test/support/channel-pair.ts";
import { ChannelError, openChannel } from "./channel.ts";

interface Adder {
  add(one: number, other: number): Promise<number>;
  never(): Promise<void>;
  fail(): void;
}
type Nothing = Record<never, never>;

const isError = (kind: ChannelError["kind"], text: RegExp, code?: string) => (error: unknown) =>
  error instanceof ChannelError && error.kind === kind && text.test(error.message) && error.code === code;

test("who asks gets the answer, or the error, and what can be copied arrives as it was", async () => {
  const [left, right] = pair();
  const asking = openChannel<Adder & { same(value: unknown): unknown }, Nothing>(left);
  openChannel<Nothing, Adder & { same(value: unknown): unknown }>(right).serve({
    add: async (one, other) => one + other,
    never: () => new Promise(() => undefined),
    fail: () => {
      throw Object.assign(new Error("it is taken"), { code: "EADDRINUSE" });
    },
    same: (value) => value,
  });
  assert.deepEqual(await Promise.all([asking.ask("add", 1, 2), asking.ask("add", 3, 4)]), [3, 7]);
  await assert.rejects(asking.ask("fail"), isError("failed", /it is taken/, "EADDRINUSE"));
  const value = { map: new Map([["a", 1n]]), bytes: new Uint8Array([1]), none: undefined };
  assert.deepEqual(await asking.ask("same", value), value);
});

test("no answer comes late, from nobody, or not at all without the asker hearing of it", async () => {
  const [left, right] = pair();
  const asking = openChannel<Adder, Nothing>(left);
  const answering = openChannel<Nothing, Adder>(right);
  await assert.rejects(asking.ask("add", 1, 2), isError("failed", /nobody answers "add"/));
  answering.serve({ add: async () => 0, never: () => new Promise(() => undefined), fail: () => undefined });
  await assert.rejects(asking.askWithin(20, "never"), isError("late", /"never"/));
  const waiting = asking.ask("never");
  asking.close();
  await assert.rejects(waiting, isError("gone", /gone/));
  left.connected = false;
  await assert.rejects(asking.ask("add", 1, 2), isError("gone", /gone/));
});
