import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { createPressure, type Readings } from "./pressure.ts";

const none: Readings = { memory: 0, loopDelay: 0, inFlight: 0, streamQueues: 0 };

function pressureOf() {
  const readings = { now: none };
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: "info" }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const pressure = createPressure({ read: () => readings.now, log });
  return {
    lines,
    /** The level after so many samples of these. */
    after(samples: number, now: Partial<Readings>): number {
      readings.now = { ...none, ...now };
      for (let i = 0; i < samples; i++) pressure.sample();
      return pressure.level;
    },
  };
}

for (const [what, samples, readings, level] of [
  ["nothing", 8, {}, 0],
  ["some memory", 1, { memory: 0.79 }, 0],
  ["memory for no more streams", 1, { memory: 0.8 }, 1],
  ["memory for no more sessions", 1, { memory: 0.85 }, 2],
  ["memory for those who are known", 1, { memory: 0.92 }, 3],
  ["no memory", 1, { memory: 0.97 }, 4],
  ["more than all memory", 1, { memory: 1.4 }, 4],
  ["one stop of the process, however long", 1, { loopDelay: 10 }, 0],
  ["a late loop for half a second", 2, { loopDelay: 1 }, 0],
  ["a late loop for a second", 4, { loopDelay: 1 }, 4],
  ["a somewhat late loop for a second", 4, { loopDelay: 0.87 }, 2],
  ["a moment with all places taken", 1, { inFlight: 1 }, 0],
  ["all places taken for long, which has an admission of its own", 8, { inFlight: 1 }, 1],
  ["full queues of streams for a second", 4, { streamQueues: 0.93 }, 3],
] as const)
  test(`${what}: level ${level}`, () => assert.equal(pressureOf().after(samples, readings), level));

test("a level is left only well below where it begins, and each change is one line", () => {
  const { after, lines } = pressureOf();
  const seen = [0.86, 0.84, 0.81, 0.79, 0.76, 0.74].map((memory) => after(1, { memory }));
  assert.deepEqual(seen, [2, 2, 2, 1, 1, 0]);
  assert.deepEqual(
    lines.map(({ event, before, level, cause }) => [event, before, level, cause]),
    [
      ["overload.pressure", 0, 2, "memory"],
      ["overload.pressure", 2, 1, "memory"],
      ["overload.pressure", 1, 0, "memory"],
    ],
  );
});
