import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { AggregationSchema } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { resolveNames } from "./names.ts";

const candidates = (...names: [backend: string, name: string, wanted?: string][]) =>
  names.map(([backend, original, wanted = original]) => ({ backend, original, wanted }));

function resolve(
  conflictResolution: string,
  config: { prefixFormat?: string; priorityOrder?: string[] },
  ...names: [string, string, string?][]
) {
  const aggregation = create(AggregationSchema, { conflictResolution, conflictResolutionConfig: config });
  return resolveNames(candidates(...names), aggregation).map(({ exposed, decidedBy }) => [exposed, decidedBy]);
}

test("prefix renames everything", () => {
  assert.deepEqual(resolve("prefix", {}, ["github", "create"], ["jira", "create"]), [
    ["github_create", "prefix"],
    ["jira_create", "prefix"],
  ]);
  assert.deepEqual(resolve("prefix", { prefixFormat: "{workload}.{workload}-" }, ["a", "t"]), [["a.a-t", "prefix"]]);
});

test("priority gives a contested name to the backend listed first, and prefixes where none is listed", () => {
  const names: [string, string][] = [
    ["a", "x"],
    ["b", "x"],
    ["b", "only"],
    ["c", "y"],
    ["d", "y"],
  ];
  assert.deepEqual(resolve("priority", { priorityOrder: ["b", "a"] }, ...names), [
    [undefined, "shadowed"],
    ["x", "priority"],
    ["only", "unique"],
    ["c_y", "conflict"],
    ["d_y", "conflict"],
  ]);
});

test("manual keeps overridden names and prefixes what still collides", () => {
  assert.deepEqual(resolve("manual", {}, ["a", "x", "ax"], ["b", "x"], ["c", "y"], ["d", "y"]), [
    ["ax", "override"],
    ["x", "unique"],
    ["c_y", "conflict"],
    ["d_y", "conflict"],
  ]);
});

test("two backends whose prefixed names meet stay apart", () => {
  const [first, second] = resolve("prefix", {}, ["a", "b_c"], ["a_b", "c"]);
  assert.deepEqual(first, ["a_b_c", "prefix"]);
  assert.match(String(second?.[0]), /^a_b_c_[0-9a-f]{6}$/);
});

test("exposed names are legal, short, unique and the same each time, whatever backends call their tools", () => {
  const name = fc.oneof(
    fc.string({ unit: "grapheme", minLength: 1, maxLength: 100 }),
    fc.constantFrom("a", "a_b", "b", "b_c", "x y", "é"),
  );
  const set = fc.uniqueArray(fc.tuple(fc.constantFrom("a", "a_b", "b", "é"), name), {
    selector: (pair) => pair.join("\0"),
    maxLength: 30,
  });
  fc.assert(
    fc.property(set, fc.constantFrom("prefix", "priority", "manual"), (pairs, strategy) => {
      const names = resolve(strategy, { priorityOrder: ["b"] }, ...pairs);
      const exposed = names.flatMap(([given]) => (given === undefined ? [] : [given]));
      assert.equal(new Set(exposed).size, exposed.length);
      for (const given of exposed) assert.match(given, /^[A-Za-z0-9_.-]{1,64}$/);
      assert.deepEqual(resolve(strategy, { priorityOrder: ["b"] }, ...pairs), names);
    }),
    { numRuns: 1_000 },
  );
});
