import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatDuration, parseDuration, toSeconds } from "./durations.ts";

const cases: [text: string, json: string | undefined][] = [
  ["30s", "30s"],
  ["1m30s", "90s"],
  ["1h", "3600s"],
  ["1.5h", "5400s"],
  ["500ms", "0.500s"],
  ["0.500s", "0.500s"],
  [".5s", "0.500s"],
  ["1.s", "1s"],
  ["1us", "0.000001s"],
  ["1µs", "0.000001s"],
  ["1μs", "0.000001s"],
  ["7ns", "0.000000007s"],
  ["0", "0s"],
  ["-1m", "-60s"],
  ["+2s", "2s"],
  ["30", undefined],
  ["", undefined],
  ["s", undefined],
  [".s", undefined],
  ["1d", undefined],
  ["1 m", undefined],
  ["1m 30s", undefined],
  ["1m30", undefined],
  ["--1s", undefined],
  ["9999999h", undefined],
  ["1".repeat(100_000), undefined],
];

for (const [text, json] of cases) {
  test(`${JSON.stringify(text.slice(0, 20))} is ${json ?? "no duration"}`, () => {
    const nanos = parseDuration(text);
    assert.equal(nanos === undefined ? undefined : formatDuration(nanos), json);
  });
}

test("what is formatted is read back", () => {
  const nanos = fc.bigInt({ min: -(2n ** 63n) + 1n, max: 2n ** 63n - 1n });
  fc.assert(fc.property(nanos, (value) => assert.equal(parseDuration(formatDuration(value)), value)));
});

test("seconds come from either form and from numbers", () => {
  assert.deepEqual(
    [toSeconds("1m30s"), toSeconds("0.500s"), toSeconds(60), toSeconds("x"), toSeconds(undefined)],
    [90, 0.5, 60, undefined, undefined],
  );
});
