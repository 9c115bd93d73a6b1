// What is told of calls, with a clock of the test's own.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type CallsQuery, CallsQuerySchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type CallFact, type CallsReport, createTap } from "./tap.ts";

const fact: CallFact = {
  ...{ group: "g", virtualServer: "team", method: "tools/call", name: "hello", workload: "b", outcome: "ok" },
  ...{ tookMs: 3, requestBytes: 10, responseBytes: 100, identity: "x", protocolVersion: "2025-11-25" },
};
const failed = { ...fact, outcome: "backend_timeout", tookMs: 70_000 };

const query = (init: Parameters<typeof create<typeof CallsQuerySchema>>[1]): CallsQuery => create(CallsQuerySchema, init);

test("it is on while somebody asks", () => {
  using tap = createTap();
  assert.equal(tap.isOn, false);
  const [one, other] = [1n, 2n].map((id) => tap.open(query({ id }), () => true));
  one?.();
  assert.equal(tap.isOn, true);
  other?.();
  assert.equal(tap.isOn, false);
});

for (const [filter, wanted] of [
  [{}, ["ok", "backend_timeout"]],
  [{ group: "g", virtualServer: "team", workload: "b", tool: "hello", proxy: "any" }, ["ok", "backend_timeout"]],
  [{ status: "failed" }, ["backend_timeout"]],
  [{ status: "ok" }, ["ok"]],
  [{ status: "backend_timeout" }, ["backend_timeout"]],
  [{ group: "other" }, []],
  [{ tool: "hello", workload: "other" }, []],
] as const) {
  test(`the filter ${JSON.stringify(filter)} lets through ${wanted.join(", ") || "nothing"}`, (t) => {
    const reports = tapping(t, query({ filter }), [fact, failed]);
    assert.deepEqual(
      reports.flatMap(({ events = [] }) => events.map(({ outcome }) => outcome)),
      wanted,
    );
  });
}

test("of more calls than may be told the first are, and the others are counted", (t) => {
  const [report] = tapping(t, query({ perSecond: 10 }), Array(50).fill(fact));
  assert.deepEqual([report?.events?.length, report?.leftOut], [2, 48n]);
});

test("times are told to the microsecond", (t) => {
  const [report] = tapping(t, query({}), [
    { ...fact, tookMs: 2_003.4567 },
    { ...fact, tookMs: 999.9999 },
  ]);
  assert.deepEqual(
    report?.events?.map(({ duration }) => [duration?.seconds, duration?.nanos]),
    [
      [2n, 3_457_000],
      [1n, 0],
    ],
  );
});

test("what can't be sent is counted in what can", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  using tap = createTap();
  const reports: CallsReport[] = [];
  let isFull = true;
  tap.open(query({}), (report) => {
    if (!isFull) reports.push(report);
    return !isFull;
  });
  for (const _ of [1, 2, 3]) tap.note(fact);
  t.mock.timers.tick(200);
  isFull = false;
  tap.note(fact);
  t.mock.timers.tick(200);
  assert.deepEqual(
    reports.map(({ events, leftOut }) => [events?.length, leftOut]),
    [[1, 3n]],
  );
});

test("of a sample about one in so many is told", (t) => {
  const reports = tapping(t, query({ sample: 10, perSecond: 1_000 }), Array(1_500).fill(fact));
  const told = reports.reduce((sum, { events = [], leftOut }) => sum + events.length + Number(leftOut), 0);
  assert.ok(told > 75 && told < 300, String(told));
});

test("sums have a line for each target, with durations by bucket", (t) => {
  const facts = [fact, fact, failed, { ...fact, name: "other", tookMs: 0.2 }];
  const [report] = tapping(t, query({ sumOver: durationFromMs(1_000) }), facts, 1_000);
  assert.deepEqual(
    report?.sums?.map(({ target, calls, failed, requestBytes, responseBytes, durations }) => ({
      ...{ name: target?.name, calls, failed, requestBytes, responseBytes },
      durations: durations?.flatMap((count, at) => (count > 0n ? [[at, count]] : [])),
    })),
    [
      {
        name: "hello",
        calls: 3n,
        failed: 1n,
        requestBytes: 30n,
        responseBytes: 300n,
        durations: [
          [2, 2n],
          [15, 1n],
        ],
      },
      { name: "other", calls: 1n, failed: 0n, requestBytes: 10n, responseBytes: 100n, durations: [[0, 1n]] },
    ],
  );
});

test("there is an end to targets", (t) => {
  const facts = Array.from({ length: 1_010 }, (_, at) => ({ ...fact, name: `tool-${at}` }));
  const [report] = tapping(t, query({ sumOver: durationFromMs(1_000) }), facts, 1_000);
  assert.deepEqual([report?.sums?.length, report?.leftOut], [1_000, 10n]);
});

/** What is told within `ms` of calls that all end at once. */
function tapping(t: TestContext, asked: CallsQuery, facts: readonly CallFact[], ms = 200) {
  t.mock.timers.enable({ apis: ["setInterval"] });
  using tap = createTap();
  const reports: CallsReport[] = [];
  tap.open(asked, (report) => reports.push(report) > 0);
  for (const one of facts) tap.note(one);
  t.mock.timers.tick(ms);
  return reports;
}
