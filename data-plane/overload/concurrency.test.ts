import assert from "node:assert/strict";
import { test } from "node:test";
import { createGate, type Gate, type GateOptions, lookMs, type Place } from "./concurrency.ts";

/** A gate with a clock of its own and a limit that stays where it is. */
function gateOf(limit: number, options: Partial<GateOptions> = {}) {
  const clock = { ms: 0, busy: 0 };
  const gate = createGate({
    nowMs: () => clock.ms,
    utilization: () => clock.busy,
    limit: { least: limit, most: limit },
    ...options,
  });
  return {
    clock,
    gate,
    /** Lets time pass, and everything be looked after. */
    pass(ms: number) {
      for (const end = clock.ms + ms; clock.ms < end; ) {
        clock.ms += lookMs;
        gate.look();
      }
    },
  };
}

function placeOf(entered: ReturnType<Gate["enter"]>): Place {
  assert.ok(typeof entered === "object" && !(entered instanceof Promise), `no place: ${entered}`);
  return entered;
}

const fill = (gate: Gate, key: string, many: number): Place[] => Array.from({ length: many }, () => placeOf(gate.enter(key)));

test("who comes alone may have all of it, and then waits for a place that gets free", async () => {
  const { gate } = gateOf(10);
  const [first] = fill(gate, "a", 10);
  const waiting = gate.enter("a");
  assert.ok(waiting instanceof Promise);
  assert.equal(gate.waiting, 1);
  gate.leave(first as Place);
  assert.equal(typeof (await waiting), "object");
  assert.equal(gate.inFlight, 10);
});

test("nobody waits longer than 100 ms, nor than a look more when nobody else comes", async () => {
  const { gate, clock } = gateOf(1);
  const held = placeOf(gate.enter("a"));
  const first = gate.enter("a");
  clock.ms = 99;
  const second = gate.enter("a");
  assert.equal(gate.waiting, 2);
  clock.ms = 100;
  const third = gate.enter("a");
  assert.equal(await first, "gateway_full");
  clock.ms = 200;
  gate.look();
  assert.deepEqual([await second, await third], ["gateway_full", "gateway_full"]);
  assert.equal(gate.waiting, 0);
  gate.leave(held);
});

test("a line of 512 is all there is, and the next is refused at once", () => {
  const { gate } = gateOf(4);
  fill(gate, "a", 4);
  for (let i = 0; i < 512; i++) assert.ok(gate.enter("a") instanceof Promise);
  assert.equal(gate.enter("a"), "gateway_full");
});

test("one identity has at most 30 % while another one comes too, and others get in", () => {
  const { gate } = gateOf(100);
  fill(gate, "quiet", 1);
  fill(gate, "flood", 49); // nothing is scarce yet
  assert.equal(gate.enter("flood"), "caller_over_share");
  fill(gate, "quiet", 29);
  assert.equal(gate.enter("quiet"), "caller_over_share");
  fill(gate, "third", 1);
});

test("a loop without idle time is scarce, however few calls there are", () => {
  const { gate, clock, pass } = gateOf(100);
  fill(gate, "quiet", 1);
  clock.busy = 1;
  pass(5 * lookMs);
  fill(gate, "quiet", 1);
  fill(gate, "flood", 30);
  assert.equal(gate.enter("flood"), "caller_over_share");
});

test("an identity that is alone again has all of it", () => {
  const { gate, pass } = gateOf(100);
  gate.leave(placeOf(gate.enter("quiet")));
  for (const place of fill(gate, "flood", 50)) gate.leave(place);
  pass(3_000);
  fill(gate, "flood", 100);
});

test("in a full line who has least goes first, and who has far more makes room for who has nothing", async () => {
  const { gate } = gateOf(10);
  const held = fill(gate, "flood", 10);
  const flood = Array.from({ length: 512 }, () => gate.enter("flood"));
  const quiet = gate.enter("quiet");
  assert.ok(quiet instanceof Promise);
  assert.equal(await flood[511], "caller_over_share");
  gate.leave(held[0] as Place);
  assert.equal(typeof (await quiet), "object");
  assert.equal(gate.waiting, 511);
});

test("a call that waits for its backend gives its place back after four looks, and is counted until it ends", () => {
  const { gate, pass } = gateOf(2);
  const slow = fill(gate, "a", 2);
  pass(3 * lookMs);
  assert.deepEqual([gate.inFlight, gate.away], [2, 0]);
  pass(lookMs);
  assert.deepEqual([gate.inFlight, gate.away], [0, 2]);
  fill(gate, "a", 2);
  for (const place of [...slow, ...slow]) gate.leave(place);
  assert.deepEqual([gate.inFlight, gate.away], [2, 0]);
});

test("while this process stands still, nothing counts as waiting for a backend", () => {
  const { gate, clock } = gateOf(2);
  fill(gate, "a", 2);
  clock.ms += 10_000;
  gate.look();
  assert.equal(gate.inFlight, 2);
});

test("a place is left once, however often it is said", () => {
  const { gate } = gateOf(5);
  const [place] = fill(gate, "a", 3) as [Place];
  gate.leave(place);
  gate.leave(place);
  assert.equal(gate.inFlight, 2);
});

// Seeded, so that a failure can be had again.
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296;
    return state / 4_294_967_296;
  };
}

for (const seed of [1, 2, 3, 4, 5])
  test(`whatever comes, counts are right and whoever wants little gets it (seed ${seed})`, async () => {
    const random = randomOf(seed);
    const { gate, clock } = gateOf(40);
    const held: Place[] = [];
    const pending: Promise<void>[] = [];
    const quiet = { asked: 0, served: 0 };
    for (let step = 0; step < 20_000; step++) {
      clock.ms += random();
      // The flood wants two hundred times what each of the four others does, and more than there is.
      const isFlood = random() < 200 / 204;
      const key = isFlood ? "flood" : `quiet ${Math.floor(random() * 4)}`;
      if (!isFlood) quiet.asked++;
      const note = (entered: Place | string): void => {
        if (typeof entered === "string") return;
        held.push(entered);
        if (!isFlood) quiet.served++;
      };
      const entered = gate.enter(key);
      if (entered instanceof Promise) pending.push(entered.then(note));
      else note(entered);
      while (held.length > 0 && random() < 0.4) gate.leave(held.splice(Math.floor(random() * held.length), 1)[0] as Place);
      if (step % 40 === 0) gate.look();
      if (step % 10 === 0) await Promise.resolve();
      assert.ok(gate.inFlight >= 0 && gate.inFlight <= 40);
      assert.ok(gate.waiting <= 512);
    }
    assert.ok(quiet.served / quiet.asked >= 0.999, `${quiet.served} of ${quiet.asked}`);
    for (let i = 0; i < 20; i++) {
      clock.ms += lookMs;
      for (const place of held.splice(0)) gate.leave(place);
      gate.look();
      await Promise.all(pending.splice(0));
    }
    assert.deepEqual([gate.inFlight, gate.waiting, gate.away], [0, 0, 0]);
  });
