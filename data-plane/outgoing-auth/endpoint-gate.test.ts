import assert from "node:assert/strict";
import { test } from "node:test";
import { createGate, createGates, GateClosedError } from "./endpoint-gate.ts";

class Down extends Error {}

function gateAt(clock: { ms: number }, waitMs = 50) {
  const gate = createGate({ nowMs: () => clock.ms, isFailure: (error) => error instanceof Down, waitMs });
  const fail = () =>
    assert.rejects(
      gate.run(async () => Promise.reject(new Down())),
      Down,
    );
  const isLeftAlone = () =>
    assert.rejects(
      gate.run(async () => 1),
      { reason: "left_alone" },
    );
  return { gate, fail, isLeftAlone };
}

test("after five failures in a row it is left alone for 5 s, then tried once", async () => {
  const clock = { ms: 0 };
  const { gate, fail, isLeftAlone } = gateAt(clock);
  for (let i = 0; i < 4; i++) await fail();
  await gate.run(async () => 1);
  for (let i = 0; i < 5; i++) await fail();
  await isLeftAlone();
  clock.ms = 4_999;
  await isLeftAlone();
  clock.ms = 5_000;
  const probe = Promise.withResolvers<number>();
  const probed = gate.run(() => probe.promise);
  await isLeftAlone();
  probe.resolve(7);
  assert.equal(await probed, 7);
  assert.equal(await gate.run(async () => 8), 8);
  for (let i = 0; i < 4; i++) await fail();
  assert.equal(await gate.run(async () => 9), 9, "all is forgotten");
});

test("each probe that fails makes the pause longer, up to 30 s", async () => {
  const clock = { ms: 0 };
  const { gate, fail, isLeftAlone } = gateAt(clock);
  for (let i = 0; i < 5; i++) await fail();
  for (const pauseMs of [5_000, 10_000, 20_000, 30_000, 30_000]) {
    clock.ms += pauseMs - 1;
    await isLeftAlone();
    clock.ms += 1;
    await fail();
  }
  clock.ms += 30_000;
  await gate.run(async () => 1);
  for (let i = 0; i < 5; i++) await fail();
  clock.ms += 5_000;
  await gate.run(async () => 1);
});

test("a refusal says that the endpoint is well, also as the answer to a probe", async () => {
  const clock = { ms: 0 };
  const { gate, fail } = gateAt(clock);
  const refuse = () =>
    assert.rejects(
      gate.run(async () => Promise.reject(new Error("no"))),
      { message: "no" },
    );
  for (let i = 0; i < 20; i++) await refuse();
  for (let i = 0; i < 4; i++) await fail();
  await refuse();
  for (let i = 0; i < 5; i++) await fail();
  clock.ms = 5_000;
  await refuse();
  assert.equal(await gate.run(async () => 1), 1);
});

test("what was under way when it was left alone neither opens it nor lengthens the pause", async () => {
  const clock = { ms: 0 };
  const { gate, fail, isLeftAlone } = gateAt(clock);
  const [slow, late] = [Promise.withResolvers<number>(), Promise.withResolvers<number>()];
  const [slowRun, lateRun] = [gate.run(() => slow.promise), gate.run(() => late.promise)];
  for (let i = 0; i < 5; i++) await fail();
  slow.resolve(1);
  late.reject(new Down());
  assert.equal(await slowRun, 1);
  await assert.rejects(lateRun, Down);
  await isLeftAlone();
  clock.ms = 5_000;
  assert.equal(await gate.run(async () => 1), 1);
});

test("32 run, 256 wait in line but not for ever, and no more are let in", async () => {
  const { gate } = gateAt({ ms: 0 }, 100);
  const first = Promise.withResolvers<void>();
  let running = 0;
  const work = async () => {
    running++;
    await first.promise;
  };
  const runs = Array.from({ length: 32 }, () => gate.run(work));
  const waiting = Array.from({ length: 256 }, () =>
    gate.run(work).then(
      () => "ran",
      (error) => (error as GateClosedError).reason,
    ),
  );
  await assert.rejects(gate.run(work), { reason: "too_many", fault: "temporary" });
  assert.equal(running, 32);
  const over = await Promise.all(waiting);
  assert.ok(over.every((outcome) => outcome === "too_many"));
  const next = gate.run(async () => "next");
  first.resolve();
  await Promise.all(runs);
  assert.equal(await next, "next");
  assert.equal(running, 32);
});

test("those in line are turned away when it is left alone meanwhile", async () => {
  const { gate } = gateAt({ ms: 0 }, 1_000);
  const first = Promise.withResolvers<void>();
  const runs = Array.from({ length: 32 }, () => gate.run(() => first.promise.then(() => Promise.reject(new Down()))));
  const waiting = gate.run(async () => "ran");
  first.resolve();
  await Promise.allSettled(runs);
  await assert.rejects(waiting, { reason: "left_alone" });
});

test("a URL has one gate for all, and others are not affected", async () => {
  const gates = createGates({ nowMs: () => 0, isFailure: () => true });
  for (let i = 0; i < 5; i++)
    await assert.rejects(
      gates.of("https://a").run(async () => Promise.reject(new Down())),
      Down,
    );
  await assert.rejects(
    gates.of("https://a").run(async () => 1),
    GateClosedError,
  );
  assert.equal(await gates.of("https://b").run(async () => 1), 1);
});
