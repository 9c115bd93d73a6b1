import assert from "node:assert/strict";
import { test } from "node:test";
import { createCallMeter, durationBounds, sumOf } from "./call-meter.ts";
import { createExposition, type Family, textOf, together } from "./exposition.ts";

test("a call is counted by what became of it, and in the bucket of what it took", () => {
  const meter = createCallMeter();
  meter.note("success", 5);
  meter.note("success", 5.1);
  meter.note("timeout", 700_000);
  const { outcomes, durations, seconds } = meter.read();
  assert.deepEqual(
    [...outcomes],
    [
      ["success", 2],
      ["timeout", 1],
    ],
  );
  assert.deepEqual([durations[0], durations[1], durations.at(-1)], [1, 1, 1]);
  assert.equal(durations.length, durationBounds.length + 1);
  assert.equal(seconds, 700.0101);
  const both = sumOf([meter.read(), meter.read()]);
  assert.deepEqual([both.outcomes.get("success"), both.durations[0], both.seconds], [4, 2, 1400.0202]);
});

test("metrics are written as Prometheus reads them", () => {
  const meter = createCallMeter();
  meter.note("success", 6);
  const exposition = createExposition();
  exposition.gauge("a", "Of a.", 1, { name: 'say "x"\n\\' });
  exposition.counter("b_total", "Of b.", 2);
  exposition.gauge("a", "Of a.", Number.POSITIVE_INFINITY);
  exposition.histogram("c_seconds", "Of c.", meter.read(), { d: "e" });
  const lines = textOf(exposition.families()).split("\n");
  assert.deepEqual(lines.slice(0, 8), [
    "# HELP a Of a.",
    "# TYPE a gauge",
    'a{name="say \\"x\\"\\n\\\\"} 1',
    "a +Inf",
    "# HELP b_total Of b.",
    "# TYPE b_total counter",
    "b_total 2",
    "# HELP c_seconds Of c.",
  ]);
  assert.deepEqual(lines.slice(9, 12), [
    'c_seconds_bucket{d="e",le="0.005"} 0',
    'c_seconds_bucket{d="e",le="0.01"} 1',
    'c_seconds_bucket{d="e",le="0.025"} 1',
  ]);
  assert.deepEqual(lines.slice(-4), [
    'c_seconds_bucket{d="e",le="+Inf"} 1',
    'c_seconds_sum{d="e"} 0.006',
    'c_seconds_count{d="e"} 1',
    "",
  ]);
});

test("what several processes expose is one page", () => {
  const [one, two] = [exposed(3), exposed(4)];
  const lines = textOf(together([one, two])).split("\n");
  assert.ok(lines.includes('calls_total{of="a"} 7'), lines.join("\n"));
  assert.ok(lines.includes("pressure 4"), lines.join("\n"));
  assert.equal(textOf(together([one])), textOf(one));
});

function exposed(value: number): readonly Family[] {
  const exposition = createExposition();
  exposition.counter("calls_total", "Calls.", value, { of: "a" });
  exposition.gauge("pressure", "Level.", value, {}, "most");
  return exposition.families();
}
