import assert from "node:assert/strict";
import { test } from "node:test";
import type { Tally } from "./shares.ts";
import { createWaitingLine, type WaitingLine } from "./waiting-line.ts";

const tallyOf = (inFlight: number): Tally => ({ inFlight, waiting: 0, lastMs: 0 });
const join = (line: WaitingLine, sinceMs: number, tally = tallyOf(1)): boolean =>
  line.join({ tally, weight: 1, sinceMs, settle: () => undefined });

/** So many come and so many go in every 10 ms; gives whether it was overloaded in the end. */
function run(line: WaitingLine, { from, to, waitMs }: { from: number; to: number; waitMs: number }): boolean {
  for (let ms = from; ms < to; ms += 10) {
    join(line, ms - waitMs);
    line.next(1, ms);
    line.sweep(ms);
  }
  return line.isOverloaded;
}

test("a burst is none any more when everybody waited for more than 10 ms for a quarter of a second", () => {
  const line = createWaitingLine();
  assert.equal(run(line, { from: 0, to: 2_000, waitMs: 9 }), false);
  assert.equal(run(line, { from: 2_000, to: 2_200, waitMs: 11 }), false);
  assert.equal(run(line, { from: 2_200, to: 2_400, waitMs: 11 }), true);
});

test("then only who has nothing may wait, the last comes first, and it is over when nobody came for a quarter of a second", () => {
  const line = createWaitingLine();
  run(line, { from: 0, to: 600, waitMs: 11 });
  assert.equal(join(line, 600, tallyOf(1)), false);
  const [early, late] = [tallyOf(0), tallyOf(0)];
  assert.ok(join(line, 600, early) && join(line, 610, late));
  assert.equal(line.next(1, 620)?.tally, late);
  line.sweep(1_200);
  assert.equal(line.isOverloaded, false);
});

test("otherwise the first comes first, but who is served least before all others", () => {
  const line = createWaitingLine();
  const [one, two, idle] = [tallyOf(1), tallyOf(1), tallyOf(0)];
  for (const tally of [one, two, idle]) join(line, 0, tally);
  assert.deepEqual([line.next(1, 1)?.tally, line.next(1, 1)?.tally, line.next(1, 1)?.tally], [idle, one, two]);
});

test("who is too heavy for the room that is left lets others go first", () => {
  const line = createWaitingLine();
  line.join({ tally: tallyOf(0), weight: 5, sinceMs: 0, settle: () => undefined });
  join(line, 1);
  assert.equal(line.next(2, 2)?.weight, 1);
  assert.equal(line.next(2, 2), undefined);
  assert.equal(line.next(5, 2)?.weight, 5);
});
