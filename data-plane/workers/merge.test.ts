import assert from "node:assert/strict";
import { test } from "node:test";
import type { OwnStatus } from "../ingress/probes.ts";
import { mergeListings, mergeStates, mergeStatus } from "./merge.ts";
import { shareOf } from "./shares.ts";

const stateWith = (states: string[], activeSessions: number, everyMs = 30_000) => ({
  report: {
    liveVersion: "r1",
    activeSessions,
    backends: states.map((state, i) => ({ name: `b${i >> 1}`, state, error: state === "healthy" ? "" : `${state} here` })),
    views: [{ virtualServer: "team", entries: [] }],
  },
  everyMs,
});

test("a backend is reported as the worker sees it that sees it worst", () => {
  const { report, everyMs } = mergeStates(
    [stateWith(["healthy", "degraded", "healthy"], 3), stateWith(["unhealthy", "healthy", "healthy"], 4, 5_000)],
    undefined,
  );
  assert.deepEqual(
    report.backends?.map(({ name, state, error }) => [name, state, error]),
    [
      ["b0", "unhealthy", "unhealthy here"],
      ["b0", "degraded", "degraded here"],
      ["b1", "healthy", ""],
    ],
  );
  assert.deepEqual([report.activeSessions, report.views?.length, everyMs], [7, 1, 5_000]);
  assert.equal(mergeStates([stateWith([], 3), stateWith([], 4)], 5).report.activeSessions, 5);
});

test("what a worker has not heard of yet is as the others see it", () => {
  const { report } = mergeStates([stateWith(["healthy", "healthy"], 0), stateWith([], 0)], undefined);
  assert.deepEqual(
    report.backends?.map(({ state }) => state),
    ["healthy", "healthy"],
  );
});

test("one status of several: sums of what is used and allowed, the most of the pressure", () => {
  const own = (inFlight: number, health: string): OwnStatus =>
    ({
      ...{ version: "1", snapshot: "r1", healthy: health === "healthy", group_ref: "g", virtual_servers: [], pressure: inFlight },
      memory: { resident_bytes: 10, heap_used_bytes: 1 },
      limits: [
        { name: "in_flight", used: inFlight, limit: 8, refused: 1 },
        { name: "sessions", used: 1, limit: 5 },
      ],
      backends: [
        {
          ...{ name: "b", resource: "r/b", health, in_flight: inFlight, error: undefined },
          tokens: { memoryHits: 2, failed: { unreachable: inFlight } },
          endpoints: [{ health, error: undefined, in_flight: inFlight, left_alone: health !== "healthy" }],
        },
      ],
    }) as unknown as OwnStatus;
  const { memory, healthy, pressure, limits, backends } = mergeStatus([own(1, "healthy"), own(3, "unhealthy")], 100);
  assert.deepEqual([memory.resident_bytes, memory.heap_used_bytes, healthy, pressure], [120, 2, false, 3]);
  assert.deepEqual(limits, [
    { name: "in_flight", used: 4, limit: 16, refused: 2 },
    { name: "sessions", used: 2, limit: 10 },
  ]);
  const [{ health, in_flight, tokens, endpoints }] = backends as [OwnStatus["backends"][number]];
  assert.deepEqual([health, in_flight], ["unhealthy", 4]);
  assert.deepEqual(tokens, { memoryHits: 4, failed: { unreachable: 4 } });
  assert.deepEqual(endpoints, [{ health: "unhealthy", error: undefined, in_flight: 4, left_alone: true }]);
});

test("a session in hand in two workers is one", () => {
  const session = {
    ...{
      key: "k",
      virtualServer: "v",
      issuer: "",
      subject: "",
      clientInfo: "{}",
      protocolVersion: "2025-11-25",
      createTimeMs: 1,
    },
  };
  const merged = mergeListings([
    [{ ...session, lastUseTimeMs: 5, isHeld: true, streams: 1, calls: 0 }],
    [
      { ...session, lastUseTimeMs: 9, isHeld: true, streams: 0, calls: 2 },
      { ...session, key: "l", lastUseTimeMs: 1, isHeld: false, streams: 0, calls: 0 },
    ],
  ]);
  assert.deepEqual(
    merged.map(({ key, lastUseTimeMs, isHeld, streams, calls }) => [key, lastUseTimeMs, isHeld, streams, calls]),
    [
      ["k", 9, true, 1, 2],
      ["l", 1, false, 0, 0],
    ],
  );
});

test("limits of the proxy are shared out, and what is unlimited stays so", () => {
  const { connectionsMax, overload } = shareOf(
    { connectionsMax: 101, overload: { inFlightMax: 0, streamsMax: 10, memoryBytesMax: 600 * 1024 * 1024 } },
    2,
    0,
  );
  assert.deepEqual([connectionsMax, overload?.inFlightMax, overload?.streamsMax], [51, 0, 5]);
  assert.equal(overload?.memoryBytesMax, 252 * 1024 * 1024);
  assert.equal(shareOf({}, 2, 0).overload?.memoryBytesMax, undefined);
  assert.equal(shareOf({}, 2, 296 * 1024 * 1024).overload?.memoryBytesMax, 100 * 1024 * 1024);
});
