import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeHeaderValue } from "./header-values.ts";
import { type ParamHeader, paramHeadersOf, paramMismatch, readParamHeaders } from "./param-headers.ts";

const parse = (json: string): unknown => JSON.parse(json);
const marked = (name: unknown, type: unknown = "string") => ({ type, "x-mcp-header": name });
const properties = (of: Record<string, unknown>) => ({ type: "object", properties: of });

function declared(of: Record<string, unknown>): readonly ParamHeader[] {
  const read = readParamHeaders(properties(of));
  assert.ok(typeof read !== "string", String(read));
  return read;
}

test("annotated arguments are found at any depth of properties, as they are declared", () => {
  const schema = properties({
    region: marked("Region"),
    options: properties({ limit: marked("limit", "integer"), deep: properties({ dry: marked("X-Dry.Run", "boolean") }) }),
    query: { type: "string" },
  });
  assert.deepEqual(readParamHeaders(schema), [
    { name: "Region", path: ["region"], type: "string" },
    { name: "limit", path: ["options", "limit"], type: "integer" },
    { name: "X-Dry.Run", path: ["options", "deep", "dry"], type: "boolean" },
  ]);
});

for (const schema of [undefined, null, true, "x", [], {}, { type: "object" }, properties({ a: true })])
  test(`${JSON.stringify(schema)} annotates nothing`, () => assert.deepEqual(readParamHeaders(schema), []));

const harmless: [string, unknown][] = [
  ["an argument of that name", properties({ "x-mcp-header": { type: "string" } })],
  ["a definition of that name", { $defs: { "x-mcp-header": { type: "string" } } }],
  ["a default", properties({ a: { default: { "x-mcp-header": "A" } } })],
  ["an example", properties({ a: { examples: [{ "x-mcp-header": "A" }] } })],
  ["a constant", properties({ a: { const: { "x-mcp-header": "A" } } })],
  ["a choice", properties({ a: { enum: [{ "x-mcp-header": "A" }] } })],
  ["what an argument of that name requires", { ...properties({}), dependentRequired: { "x-mcp-header": ["a"] } }],
];
for (const [what, schema] of harmless) test(`${what} is no annotation`, () => assert.deepEqual(readParamHeaders(schema), []));

const annotated = properties({ a: marked("A") });
const misplaced: Record<string, unknown> = {
  "the root": { ...properties({}), "x-mcp-header": "A" },
  "properties themselves": { properties: [marked("A")] },
  "an unknown keyword": { "x-more": { a: marked("A") } },
  ...Object.fromEntries(
    ["items", "contains", "additionalProperties", "unevaluatedItems", "propertyNames", "not", "if", "then", "else"].map((key) => [
      key,
      properties({ a: { [key]: annotated } }),
    ]),
  ),
  ...Object.fromEntries(
    ["oneOf", "anyOf", "allOf", "prefixItems", "items"].map((key) => [`a list under ${key}`, { [key]: [true, annotated] }]),
  ),
  ...Object.fromEntries(
    ["$defs", "definitions", "patternProperties", "dependentSchemas", "dependencies"].map((key) => [
      `${key} of names`,
      { [key]: { enum: annotated } },
    ]),
  ),
};
for (const [where, schema] of Object.entries(misplaced))
  test(`an annotation in ${where} makes the tool unusable`, () =>
    assert.match(String(readParamHeaders(schema)), /may stand only/));

for (const name of [
  "",
  "My Region",
  "Region:Primary",
  "Région",
  "a\n",
  "a\r\nb: c",
  'a"',
  "a/b",
  "a,b",
  "(a)",
  7,
  null,
  {},
  ["A"],
])
  test(`${JSON.stringify(name)} is no header's name`, () =>
    assert.match(String(readParamHeaders(properties({ a: marked(name) }))), /not a name/));

test("every character that names may have is allowed", () => {
  const name = "aZ09!#$%&'*+-.^_`|~";
  assert.equal(declared({ a: marked(name) })[0]?.name, name);
});

for (const type of ["number", "object", "array", "null", undefined, ["string", "null"], "String", {}])
  test(`arguments of type ${JSON.stringify(type)} can't be annotated`, () => {
    const schema = properties({ a: { type, "x-mcp-header": "A" } });
    assert.match(String(readParamHeaders(schema)), /the type is not string, integer or boolean/);
  });

test("two arguments never share a header, however it is written", () => {
  for (const [a, b] of [
    ["Region", "Region"],
    ["MyField", "myfield"],
  ]) {
    const schema = properties({ a: marked(a), deep: properties({ b: marked(b) }) });
    assert.match(String(readParamHeaders(schema)), /two arguments/);
  }
});

test("a fault's sentence is short, whatever the server wrote", () => {
  const fault = readParamHeaders({ patternProperties: { ["x".repeat(100_000)]: marked("A") } });
  assert.ok(typeof fault === "string" && fault.length < 250);
});

test("a schema is walked 64 levels deep, and no tool that goes deeper is used", () => {
  const nested = (levels: number, leaf: unknown): unknown => (levels === 1 ? leaf : properties({ a: nested(levels - 1, leaf) }));
  const deepest = readParamHeaders(nested(64, marked("A")));
  assert.ok(Array.isArray(deepest));
  assert.equal(deepest[0]?.path.length, 63);
  for (const schema of [nested(65, {}), parse(`${'{"items":'.repeat(5_000)}{}${"}".repeat(5_000)}`)])
    assert.match(String(readParamHeaders(schema)), /deeper than 64/);
});

const hostile = ["__proto__", "constructor", "prototype", "hasOwnProperty", "toString"];
for (const name of hostile)
  test(`an argument named ${name} is one like any other`, () => {
    const read = readParamHeaders(parse(`{"properties":{"${name}":{"type":"string","x-mcp-header":"${name}"}}}`));
    assert.deepEqual(read, [{ name, path: [name], type: "string" }]);
    assert.ok(typeof read !== "string");
    assert.deepEqual(paramHeadersOf(read, {}), {});
    assert.equal(paramMismatch(read, {}, {}), undefined);
    const args = parse(`{"${name}":"a"}`);
    assert.deepEqual(paramHeadersOf(read, args), { [`mcp-param-${name.toLowerCase()}`]: "a" });
    assert.match(String(paramMismatch(read, args, {})), /is missing/);
  });

const some = declared({
  text: marked("Text"),
  count: marked("Count", "integer"),
  flag: marked("Flag", "boolean"),
  deep: properties({ text: marked("Deep") }),
});

const sent: [string, Record<string, string>][] = [
  ["{}", {}],
  ['{"text":null,"count":null,"flag":null,"deep":null}', {}],
  ['{"text":"us","count":42,"flag":true,"deep":{"text":"x"}}', withNames({ text: "us", count: "42", flag: "true", deep: "x" })],
  ['{"text":"","count":0,"flag":false,"deep":{}}', withNames({ text: "", count: "0", flag: "false" })],
  ['{"text":"ü","deep":{"text":" a"}}', withNames({ text: "=?base64?w7w=?=", deep: "=?base64?IGE=?=" })],
  ['{"count":42.0}', withNames({ count: "42" })],
  ['{"count":-0}', withNames({ count: "0" })],
  ['{"count":9007199254740991}', withNames({ count: "9007199254740991" })],
  ['{"count":9007199254740992}', {}],
  ['{"count":1e400}', {}],
  ['{"text":5,"count":"5","flag":1.5}', withNames({ text: "5", count: "5", flag: "1.5" })],
  ['{"text":{"a":1},"count":[1],"deep":["x"]}', {}],
  ["null", {}],
  ["[1]", {}],
];
for (const [args, headers] of sent)
  test(`a call with ${args} has the headers ${JSON.stringify(headers)}, and they agree with it`, () => {
    assert.deepEqual(paramHeadersOf(some, parse(args)), headers);
    assert.equal(paramMismatch(some, parse(args), headers), undefined);
  });

function withNames(values: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`mcp-param-${name}`, value]));
}

const agreeing: [string, string, Record<string, string | string[]>][] = [
  ["an integer in another spelling", '{"count":42}', withNames({ count: "42.0" })],
  ["an integer with spaces around", '{"count":42}', withNames({ count: "\t42 " })],
  ["an integer in Base64", '{"count":42}', withNames({ count: "=?base64?NDI=?=" })],
  ["a text in Base64 that could be plain", '{"text":"us"}', withNames({ text: "=?base64?dXM=?=" })],
  ["a header without an argument", '{"text":null}', withNames({ text: "x", count: "=?base64?!?=", deep: "x" })],
  ["headers that nobody declared", '{"text":"us"}', withNames({ text: "us", other: "=?base64?!?=" })],
  ["an integer too large to be repeated", '{"count":9007199254740993}', {}],
  ["the same, repeated all the same", '{"count":9007199254740993}', withNames({ count: "9007199254740993" })],
  ["a text that was sent in two headers", '{"text":"a, b"}', { "mcp-param-text": ["a", "b"] }],
];
for (const [what, args, headers] of agreeing)
  test(`${what} is let through`, () => assert.equal(paramMismatch(some, parse(args), headers), undefined));

const disagreeing: [string, string, Record<string, string | string[]>, RegExp][] = [
  ["a header that is missing", '{"text":"secret"}', {}, /Mcp-Param-Text is missing/],
  ["a header that is missing for an empty text", '{"text":""}', {}, /Mcp-Param-Text is missing/],
  ["a header that is missing for false", '{"flag":false}', {}, /Mcp-Param-Flag is missing/],
  ["a header that is missing further down", '{"deep":{"text":"secret"}}', {}, /Mcp-Param-Deep is missing/],
  ["another text", '{"text":"secret"}', withNames({ text: "other" }), /Mcp-Param-Text says something else/],
  ["a text in another case", '{"text":"secret"}', withNames({ text: "Secret" }), /Mcp-Param-Text says/],
  ["a boolean in another case", '{"flag":true}', withNames({ flag: "True" }), /Mcp-Param-Flag says/],
  ["bad Base64", '{"text":"Hello"}', withNames({ text: "=?base64?SGVsbG8?=" }), /Mcp-Param-Text is not Base64/],
  ["another integer", '{"count":42}', withNames({ count: "43" }), /Mcp-Param-Count says/],
  ["an integer and a bit", '{"count":42}', withNames({ count: "42.00000000000000000001" }), /Mcp-Param-Count says/],
  ["an integer in hexadecimal", '{"count":42}', withNames({ count: "0x2a" }), /Mcp-Param-Count says/],
  ["nothing for an integer", '{"count":0}', withNames({ count: "" }), /Mcp-Param-Count says/],
  ["a text that looks like the same integer", '{"count":"42"}', withNames({ count: "42.0" }), /Mcp-Param-Count says/],
  ["a small integer for one that is too large", '{"count":9007199254740993}', withNames({ count: "1" }), /Mcp-Param-Count says/],
  ["a text for an object", '{"text":{"a":"secret"}}', withNames({ text: "x" }), /Mcp-Param-Text says/],
  ["a header that was sent twice", '{"text":"secret"}', { "mcp-param-text": ["secret", "secret"] }, /Mcp-Param-Text says/],
];
for (const [what, args, headers, message] of disagreeing)
  test(`${what} is a mismatch, and no value is named`, () => {
    const fault = String(paramMismatch(some, parse(args), headers));
    assert.match(fault, message);
    assert.doesNotMatch(fault, /secret|Hello|42|other/);
  });

test("what is sent for a call always agrees with it, and no longer when an argument is another", () => {
  const value = fc.oneof(
    fc.string({ unit: "binary", maxLength: 8 }),
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constant(null),
    fc.double({ noNaN: true }),
  );
  const args = fc.record({ text: value, count: value, flag: value, deep: fc.record({ text: value }) }, { requiredKeys: [] });
  const property = fc.property(args, fc.string({ unit: "binary", maxLength: 8 }), (call, other) => {
    const headers = paramHeadersOf(some, call);
    assert.equal(paramMismatch(some, call, headers), undefined);
    if (typeof call.text !== "string" || call.text === other) return;
    assert.notEqual(paramMismatch(some, call, { ...headers, "mcp-param-text": encodeHeaderValue(other) }), undefined);
  });
  fc.assert(property, { numRuns: 10_000 });
});
