import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { asPlainTool, requiresTask, runsTasks } from "./task-support.ts";

const definitions: [string, boolean][] = [
  ['{"name":"t","execution":{"taskSupport":"required"}}', true],
  ['{"name":"t","execution":{"taskSupport":"optional","x":"required"}}', false],
  ['{"name":"t","execution":{"taskSupport":"forbidden"},"inputSchema":{"required":["a"]}}', false],
  ['{"name":"t","execution":"required"}', false],
  ['{"name":"t","x":{"execution":{"taskSupport":"required"}}}', false],
  ['{"name":"required"}', false],
];
for (const [definition, wanted] of definitions) {
  test(`${definition} ${wanted ? "only runs as a task" : "is a plain tool"}`, () => {
    assert.equal(requiresTask(Buffer.from(definition)), wanted);
  });
}

const cuts: [string, string][] = [
  ['{ "execution": {} , "name":"t", "big":1e400 }', '{ "name":"t", "big":1e400 }'],
  ['{"name":"t" , "execution":{"a":[1,2]}, "x":12345678901234567890}', '{"name":"t", "x":12345678901234567890}'],
  ['{"name":"t", "execution":{} }', '{"name":"t" }'],
  ['{"execution":1,"execution":2,"a":3}', '{"a":3}'],
  ['{"execution":1}', "{}"],
  ["{}", "{}"],
];
for (const [before, after] of cuts) {
  test(`${before} as a plain tool is ${after}`, () => assert.equal(asPlainTool(Buffer.from(before)).toString(), after));
}

test("whatever else a definition holds, it keeps", () => {
  const spaced = fc.tuple(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(8), fc.constantFrom(0, 1, 2));
  const check = fc.property(spaced, ([others, at, indent]) => {
    const { execution: _, ...wanted } = others;
    const entries = Object.entries(wanted);
    entries.splice(Math.min(at, entries.length), 0, ["execution", { taskSupport: "required" }]);
    const cut = asPlainTool(Buffer.from(JSON.stringify(Object.fromEntries(entries), undefined, indent)));
    assert.deepEqual(JSON.parse(cut.toString()), JSON.parse(JSON.stringify(wanted)));
  });
  fc.assert(check, { numRuns: 2_000 });
});

test("a backend runs tasks when it says so for tool calls", () => {
  const facts = (tasks: unknown) =>
    ({ era: "session", protocolVersion: "2025-11-25", capabilities: { tasks }, instructions: undefined }) as const;
  assert.equal(runsTasks(facts({ requests: { tools: { call: {} } } })), true);
  for (const tasks of [undefined, null, {}, { list: {} }, { requests: { tools: {} } }])
    assert.equal(runsTasks(facts(tasks)), false);
});
