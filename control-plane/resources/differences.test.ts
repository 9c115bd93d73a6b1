import assert from "node:assert/strict";
import { test } from "node:test";
import type { JsonObject } from "@bufbuild/protobuf";
import { differences } from "./differences.ts";

const cases: [what: string, before: JsonObject | undefined, after: JsonObject | undefined, wanted: string[]][] = [
  ["nothing", { a: 1, b: { c: [1, 2] } }, { b: { c: [1, 2] }, a: 1 }, []],
  ["a value", { a: { b: 1 } }, { a: { b: 2 } }, ["a.b: 1 -> 2"]],
  ["what comes and goes", { a: 1 }, { b: { c: 2 } }, ["a: 1 -> ", 'b:  -> {"c":2}']],
  ["everything of what is new", undefined, { a: 1, b: [2] }, ["a:  -> 1", "b:  -> [2]"]],
  ["everything of what is gone", { a: 1 }, undefined, ["a: 1 -> "]],
  ["a list of plain values as a whole", { a: [1, 2] }, { a: [1, 3] }, ["a: [1,2] -> [1,3]"]],
  [
    "entries that have names, wherever they stand",
    { tools: [{ workload: "x", filter: ["a"] }, { workload: "y" }] },
    { tools: [{ workload: "new" }, { workload: "x", filter: ["b"] }, { workload: "y" }] },
    ['tools[new]:  -> {"workload":"new"}', 'tools[x].filter: ["a"] -> ["b"]'],
  ],
  [
    "the order of entries",
    { steps: [{ id: "x" }, { id: "y" }] },
    { steps: [{ id: "y" }, { id: "x" }] },
    ['steps (order): ["x","y"] -> ["y","x"]'],
  ],
  [
    "entries of which two have one name, as a whole",
    { a: [{ id: "x" }, { id: "x" }] },
    { a: [{ id: "x" }] },
    ['a: [{"id":"x"},{"id":"x"}] -> [{"id":"x"}]'],
  ],
  ["the first entry of a list", { a: [] }, { a: [{ name: "x" }] }, ['a[x]:  -> {"name":"x"}']],
  ["keys that are no plain words", { m: { "a.b": 1 } }, { m: { "a.b": 2 } }, ['m."a.b": 1 -> 2']],
];

for (const [what, before, after, wanted] of cases) {
  test(`differences: ${what}`, () => {
    const found = differences(before, after).map(
      ({ path, before: was, after: is }) => `${path}: ${JSON.stringify(was) ?? ""} -> ${JSON.stringify(is) ?? ""}`,
    );
    assert.deepEqual(found, wanted);
  });
}

const secrets: [what: string, before: JsonObject, after: JsonObject][] = [
  [
    "a header",
    { default: { headerInjection: { headerName: "X", headerValue: "canary-1" } } },
    { default: { headerInjection: { headerName: "X", headerValue: "canary-2" } } },
  ],
  ["a whole block", {}, { default: { tokenExchange: { clientId: "id", clientSecret: "canary" } } }],
  ["a mistyped key", {}, { default: { tokenExchange: { clientsecrt: "canary" } } }],
  ["the environment of a program", { env: { GITHUB_TOKEN: "canary-1" } }, { env: { GITHUB_TOKEN: "canary-2" } }],
  ["arguments of a program", { args: ["--api-key=canary", "x"] }, { args: ["--token", "canary", "y"] }],
  ["an address", { url: "http://u:canary@h/mcp" }, { url: "http://h/mcp?api_key=canary&x=1" }],
  ["headers of the exporter", {}, { telemetry: { headers: { "x-whatever": "canary" } } }],
];

for (const [what, before, after] of secrets) {
  test(`a secret is never shown: ${what}`, () => {
    const found = differences(before, after);
    assert.ok(found.length > 0);
    assert.doesNotMatch(JSON.stringify(found), /canary/);
    assert.ok(found.some(({ hasSecret }) => hasSecret));
  });
}

test("references to secrets are shown", () => {
  const found = differences({ env: { API_TOKEN: "env:A" } }, { env: { API_TOKEN: "file:/run/b" } });
  assert.deepEqual(found, [{ path: "env.API_TOKEN", before: "env:A", after: "file:/run/b", hasSecret: false }]);
});
