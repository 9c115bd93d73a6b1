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

const hashed = (name: string) => new RegExp(`^${name}_-[0-9a-f]{10}$`);

test("a name in another backend's prefix gets a hash, and the other keeps what is its own", () => {
  const [trespass, own] = resolve("prefix", {}, ["bank", "x_mail"], ["bank_x", "mail"]);
  assert.match(String(trespass?.[0]), hashed("bank_x_mail"));
  assert.equal(trespass?.[1], "conflict");
  assert.deepEqual(own, ["bank_x_mail", "prefix"]);
});

test("it does so too while the other backend lists nothing", () => {
  const aggregation = create(AggregationSchema, { conflictResolution: "prefix" });
  const [named] = resolveNames(candidates(["bank", "x_mail"]), aggregation, ["bank", "bank_x"]);
  assert.match(String(named?.exposed), hashed("bank_x_mail"));
});

test("where names meet all the same, each gets a hash", () => {
  const names = resolve("prefix", { prefixFormat: "all_" }, ["a", "t"], ["b", "t"], ["b", "u"]);
  assert.deepEqual(
    names.map(([, decidedBy]) => decidedBy),
    ["conflict", "conflict", "prefix"],
  );
  for (const [name] of names.slice(0, 2)) assert.match(String(name), hashed("all_t"));
  // c_y of e is what c's y becomes in its conflict with d's.
  const [c, , e] = resolve("priority", {}, ["c", "y"], ["d", "y"], ["e", "c_y"]);
  for (const name of [c, e]) assert.match(String(name?.[0]), hashed("c_y"));
});

test("what the operator decided keeps its name", () => {
  const [c, , e] = resolve("manual", {}, ["c", "y"], ["d", "y"], ["e", "t", "c_y"]);
  assert.match(String(c?.[0]), hashed("c_y"));
  assert.deepEqual(e, ["c_y", "override"]);
  const [first, second, ...rest] = resolve(
    "priority",
    { priorityOrder: ["p"] },
    ["c", "y"],
    ["d", "y"],
    ["p", "c_y"],
    ["q", "c_y"],
  );
  assert.match(String(first?.[0]), hashed("c_y"));
  assert.deepEqual(
    [second, ...rest],
    [
      ["d_y", "conflict"],
      ["c_y", "priority"],
      [undefined, "shadowed"],
    ],
  );
});

test("a candidate that is given twice does not keep it busy for ever", () => {
  const names = resolve("prefix", {}, ["a", "t"], ["a", "t"], ["a", "u"]);
  assert.deepEqual(names, [
    [undefined, "shadowed"],
    [undefined, "shadowed"],
    ["a_u", "prefix"],
  ]);
});

const backends = ["a", "a_b", "b", "b_c", "é"];
const toolName = fc.oneof(
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 100 }),
  fc.constantFrom("a", "a_b", "b", "b_c", "c", "b_c_c", "c_c", "x y", "x_y", "é"),
);
const tools = fc.uniqueArray(fc.tuple(fc.constantFrom(...backends), toolName), {
  selector: (pair) => pair.join("\0"),
  maxLength: 12,
});
const strategies = fc.constantFrom("prefix", "priority", "manual");
const config = { priorityOrder: ["b"] };

/** Exposed name → backend and original. */
function owners(strategy: string, pairs: [string, string][]): Map<string, string> {
  const aggregation = create(AggregationSchema, { conflictResolution: strategy, conflictResolutionConfig: config });
  const named = resolveNames(candidates(...pairs), aggregation, backends).filter(({ exposed }) => exposed !== undefined);
  const owned = new Map(named.map(({ exposed, candidate }) => [exposed as string, `${candidate.backend} ${candidate.original}`]));
  assert.equal(owned.size, named.length, "two have one name");
  for (const name of owned.keys()) assert.match(name, /^[A-Za-z0-9_.-]{1,64}$/);
  return owned;
}

const sorted = (names: Map<string, string>) => [...names].sort(([a], [b]) => (a < b ? -1 : 1));

test("exposed names are legal, short, unique, and the same in whatever order tools are listed", () => {
  const property = fc.property(tools, strategies, (pairs, strategy) => {
    assert.deepEqual(sorted(owners(strategy, pairs.toReversed())), sorted(owners(strategy, pairs)));
  });
  fc.assert(property, { numRuns: 20_000 });
});

test("no backend takes over another's name, not even with names it saw and names that would come next", () => {
  const property = fc.property(tools, tools, strategies, (pairs, more, strategy) => {
    const before = owners(strategy, pairs);
    const seen = [...before.keys(), ...owners(strategy, [...pairs, ...unlisted(more, pairs)]).keys()];
    const evil = [...seen, ...seen.map((name) => name.replace(/^a_/, "")), ...more.map(([, name]) => name)];
    const listed = unlisted(
      [...new Set(evil)].map((name) => ["a", name]),
      pairs,
    );
    for (const [name, owner] of owners(strategy, [...pairs, ...listed])) {
      const previous = before.get(name) ?? owner;
      assert.ok(previous === owner || !owner.startsWith("a ") || previous.startsWith("a "), `${name}: ${previous} → ${owner}`);
    }
  });
  fc.assert(property, { numRuns: 5_000 });
});

function unlisted(more: [string, string][], pairs: [string, string][]): [string, string][] {
  return more.filter(([backend, name]) => !pairs.some((pair) => pair[0] === backend && pair[1] === name));
}

test("with prefixes, a backend's names do not depend on what others list", () => {
  const property = fc.property(tools, (pairs) => {
    const all = owners("prefix", pairs);
    for (const backend of backends) {
      for (const [name, owner] of owners(
        "prefix",
        pairs.filter((pair) => pair[0] === backend),
      ))
        assert.equal(all.get(name), owner);
    }
  });
  fc.assert(property, { numRuns: 5_000 });
});
