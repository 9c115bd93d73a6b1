import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { AggregationSchema } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { type Catalog, uncached } from "../backends/catalog.ts";
import { createView, type Source } from "./view.ts";

const facts = {
  era: "session",
  protocolVersion: "2025-11-25",
  capabilities: { tools: {}, resources: {} },
  instructions: undefined,
} as const;
const items = (key: string, texts: string[] = []) =>
  texts.map((json) => ({ key: JSON.parse(json)[key] as string, json: Buffer.from(json) }));

function source(
  backend: string,
  lists: { tools?: string[]; prompts?: string[]; resources?: string[]; templates?: string[] },
): Source {
  const catalog: Catalog = {
    facts,
    tools: items("name", lists.tools),
    prompts: items("name", lists.prompts),
    resources: items("uri", lists.resources),
    templates: items("uriTemplate", lists.templates),
    caching: { tools: uncached, prompts: uncached, resources: uncached, templates: uncached },
  };
  return { backend, catalog };
}

const view = (rules: MessageInitShape<typeof AggregationSchema>, ...sources: Source[]) =>
  createView(create(AggregationSchema, { conflictResolution: "priority", ...rules }), sources);
const page = (of: ReturnType<typeof view>, kind: "tools" | "prompts" | "resources" | "templates") =>
  `{${of.lists[kind].page(undefined)?.json}}`;

test("what needs no other name keeps its bytes", () => {
  const tool = '{"name":"t",  "big":12345678901234567890,"x":{"ü":1.0}}';
  assert.equal(page(view({}, source("a", { tools: [tool] })), "tools"), `{"tools":[${tool}]}`);
});

test("a renamed tool differs in its name only", () => {
  const seen = view({ conflictResolution: "prefix" }, source("a", { tools: ['{"x":1.0,"name":"t","y":[1e400]}'] }));
  assert.equal(page(seen, "tools"), '{"tools":[{"x":1.0,"name":"a_t","y":[1e400]}]}');
  assert.deepEqual(seen.tools.get("a_t"), { backend: "a", original: "t" });
});

test("overrides replace name, description and annotations, and keep unknown annotations", () => {
  const overrides = { t: { name: "u", description: "new", annotations: { readOnlyHint: true } } };
  const tool = '{"name":"t","annotations":{"vendor":1,"readOnlyHint":false}}';
  const seen = view({ tools: [{ workload: "a", overrides }] }, source("a", { tools: [tool] }));
  assert.equal(
    page(seen, "tools"),
    '{"tools":[{"name":"u","annotations":{"vendor":1,"readOnlyHint":true},"description":"new"}]}',
  );
  assert.deepEqual(seen.tools.get("u"), { backend: "a", original: "t" });
});

const tools = (...names: string[]) => names.map((name) => JSON.stringify({ name }));
const hiding: [string, MessageInitShape<typeof AggregationSchema>, string[]][] = [
  [
    "filter, by the name after overrides",
    { tools: [{ workload: "a", filter: ["y", "z"], overrides: { x: { name: "z" } } }] },
    ["z", "y", "w"],
  ],
  ["excludeAll", { tools: [{ workload: "a", excludeAll: true }] }, ["w"]],
  ["excludeAllTools", { excludeAllTools: true }, []],
  ["defaultToolVisibility deny", { defaultToolVisibility: "deny", tools: [{ workload: "b" }] }, ["w"]],
];
for (const [name, rules, wanted] of hiding) {
  test(`${name} hides tools from lists and from calls`, () => {
    const seen = view(rules, source("a", { tools: tools("x", "y") }), source("b", { tools: tools("w") }));
    assert.deepEqual([...seen.tools.keys()], wanted);
  });
}

test("a hidden tool takes no name away from a visible one", () => {
  const rules = { conflictResolutionConfig: { priorityOrder: ["a", "b"] }, tools: [{ workload: "a", excludeAll: true }] };
  const seen = view(rules, source("a", { tools: tools("x") }), source("b", { tools: tools("x") }));
  assert.deepEqual(seen.tools.get("x"), { backend: "b", original: "x" });
});

test("prompts follow the rules of tools", () => {
  const seen = view({ conflictResolution: "prefix" }, source("a", { prompts: tools("p") }), source("b", { prompts: tools("p") }));
  assert.deepEqual([...seen.prompts.keys()], ["a_p", "b_p"]);
});

test("a URI that two backends use belongs to the first by priority; the other gets an alias", () => {
  const uri = (value: string) => JSON.stringify({ uri: value });
  const rules = { conflictResolutionConfig: { priorityOrder: ["b"] } };
  const seen = view(
    rules,
    source("a", { resources: [uri("file:///x"), uri("ui://app/x")] }),
    source("b", { resources: [uri("file:///x"), uri("ui://app/x")] }),
  );
  assert.deepEqual(Object.fromEntries(seen.resources), {
    "a+file:///x": { backend: "a", original: "file:///x" },
    "ui://a.app/x": { backend: "a", original: "ui://app/x" },
    "file:///x": { backend: "b", original: "file:///x" },
    "ui://app/x": { backend: "b", original: "ui://app/x" },
  });
});

test("templates match what they make, the most literal first, aliases undone", () => {
  const template = (value: string) => JSON.stringify({ uriTemplate: value });
  const seen = view(
    {},
    source("a", { templates: [template("t://{id}"), template("ui://app/{id}")] }),
    source("b", { templates: [template("t://{id}"), template("t://docs/{id}"), template("ui://app/{id}")] }),
  );
  const cases: [string, string | undefined, string?][] = [
    ["t://7", "a", "t://7"],
    ["b+t://7", "b", "t://7"],
    ["t://docs/7", "b", "t://docs/7"],
    ["ui://b.app/7", "b", "ui://app/7"],
    ["none://7", undefined],
  ];
  for (const [uri, backend, original] of cases) assert.deepEqual(seen.templateIndex.match(uri), backend && { backend, original });
});

test("long lists come in pages, and a cursor of another list is refused", () => {
  const seen = view({}, source("a", { tools: tools(...Array.from({ length: 2_500 }, (_, i) => `t${i}`)) }));
  const names: string[] = [];
  let cursor: string | undefined;
  do {
    const page = seen.lists.tools.page(cursor);
    const result = JSON.parse(`{${page?.json}}`) as { tools: { name: string }[] };
    names.push(...result.tools.map(({ name }) => name));
    cursor = page?.next;
  } while (cursor !== undefined);
  assert.equal(new Set(names).size, 2_500);
  assert.equal(seen.lists.tools.page("bm9wZQ"), undefined);
  assert.equal(page(seen, "prompts"), '{"prompts":[]}');
});

test("the order in which backends are given changes nothing", () => {
  const sources = [
    source("b", { tools: tools("x", "y") }),
    source("a", { tools: tools("x") }),
    source("c", { tools: tools("y") }),
  ];
  assert.equal(page(view({}, ...sources), "tools"), page(view({}, ...sources.reverse()), "tools"));
});

test("a backend that is not shown keeps its names: nobody else gets them while it is away", () => {
  const rules = { conflictResolutionConfig: { priorityOrder: ["a", "b"] } };
  const a = { ...source("a", { tools: tools("x"), resources: ['{"uri":"file:///x"}'] }), isHidden: true };
  const b = source("b", { tools: tools("x", "y"), resources: ['{"uri":"file:///x"}'] });
  const seen = view(rules, a, b);
  assert.deepEqual([...seen.tools.keys()], ["y"]);
  assert.deepEqual([...seen.resources.keys()], ["b+file:///x"]);
  assert.deepEqual(
    seen.lines
      .filter(({ kind }) => kind === "tool")
      .map(({ backend, exposed, decidedBy }) => `${backend} ${exposed} ${decidedBy}`),
    ["a  unhealthy", "b  shadowed", "b y unique"],
  );
});

test("a tool in quarantine is neither listed nor routed, and is known under the name that it would have", () => {
  const a = { ...source("a", { tools: tools("x", "y") }), isQuarantined: ({ key }: { key: string }) => key === "x" };
  const seen = view({ conflictResolution: "prefix" }, a);
  assert.equal(page(seen, "tools"), '{"tools":[{"name":"a_y"}]}');
  assert.deepEqual([...seen.tools.keys()], ["a_y"]);
  assert.deepEqual([...seen.quarantined], [["a_x", { backend: "a", original: "x" }]]);
});
