import assert from "node:assert/strict";
import { test } from "node:test";
import { createHealth, type HealthState, type Observation } from "./health.ts";

const ok: Observation = { kind: "success", tookMs: 10 };
const slow: Observation = { kind: "success", tookMs: 5_001 };
const bad: Observation = { kind: "failure", reason: "nobody listens there" };
const shut: Observation = { kind: "unauthenticated", reason: "answered HTTP 401" };

const histories: readonly (readonly [what: string, seen: readonly Observation[], states: readonly HealthState[]])[] = [
  ["one good answer is enough at first", [ok], ["healthy"]],
  ["a failure of one that works degrades it", [ok, bad, bad], ["healthy", "degraded", "degraded"]],
  ["three in a row make it unhealthy", [ok, bad, bad, bad], ["healthy", "degraded", "degraded", "unhealthy"]],
  [
    "a good one between starts the count anew",
    [ok, bad, bad, ok, bad, bad],
    ["healthy", "degraded", "degraded", "degraded", "degraded", "degraded"],
  ],
  [
    "it takes two good ones to be trusted again",
    [bad, bad, bad, ok, ok],
    ["unknown", "unknown", "unhealthy", "degraded", "healthy"],
  ],
  [
    "one that comes and goes is never healthy",
    [ok, bad, bad, bad, ok, bad, ok, bad],
    ["healthy", "degraded", "degraded", "unhealthy", "degraded", "degraded", "degraded", "degraded"],
  ],
  ["one that was never reached is not known, then unhealthy", [bad, bad, bad], ["unknown", "unknown", "unhealthy"]],
  ["a slow answer degrades, a quick one after it heals", [slow, ok], ["degraded", "healthy"]],
  [
    "who lets nobody in is not unhealthy",
    [shut, shut, shut, shut],
    ["unauthenticated", "unauthenticated", "unauthenticated", "unauthenticated"],
  ],
  [
    "who lets us in again is trusted at the second answer",
    [ok, shut, ok, ok],
    ["healthy", "unauthenticated", "degraded", "healthy"],
  ],
  ["unhealthy stays unhealthy while it fails", [bad, bad, bad, bad], ["unknown", "unknown", "unhealthy", "unhealthy"]],
];
for (const [what, seen, states] of histories)
  test(what, () => {
    const health = createHealth({ unhealthyThreshold: 3 });
    assert.equal(health.state, "unknown");
    for (const [i, observation] of seen.entries()) {
      const before: HealthState = health.state;
      assert.equal(health.see(observation), health.state !== before);
      assert.equal(health.state, states[i], `after ${i + 1}`);
    }
  });

test("it says since when, and why", () => {
  let now = 1_000;
  const health = createHealth({ unhealthyThreshold: 1 }, () => now);
  assert.deepEqual([health.sinceMs, health.reason], [1_000, undefined]);
  now = 2_000;
  health.see(bad);
  now = 3_000;
  health.see({ kind: "failure", reason: "the connection was reset" });
  assert.deepEqual([health.state, health.sinceMs, health.reason], ["unhealthy", 2_000, "the connection was reset"]);
  assert.equal(health.failuresInRow, 2);
  health.see(ok);
  health.see(ok);
  assert.deepEqual([health.state, health.sinceMs, health.reason], ["healthy", 3_000, undefined]);
});

test("another threshold counts from the next failure on", () => {
  const health = createHealth({ unhealthyThreshold: 3 });
  health.see(ok);
  health.see(bad);
  health.configure({ unhealthyThreshold: 2 });
  assert.equal(health.state, "degraded");
  health.see(bad);
  assert.equal(health.state, "unhealthy");
});
