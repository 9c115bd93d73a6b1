import assert from "node:assert/strict";
import { test } from "node:test";
import { CallToolResultSchema, ListToolsResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { AjvJsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/ajv";
import fc from "fast-check";
import { holdsNonObject, wrapOutputSchema, wrapStructuredContent } from "./output-schema.ts";

const tool = (schema: string) => `{"name":"t", "inputSchema":{"type":"object"},"outputSchema" : ${schema},"_meta":{"n":1.0}}`;
const envelope = (inner: string, head = "") => `{${head}"type":"object","properties":{"result":${inner}},"required":["result"]}`;
const root = "#/properties/result";

const wrapped: [name: string, schema: string, wanted: string][] = [
  ["of another type", '{ "type" : "array" }', envelope('{ "type" : "array" }')],
  ["of several types", '{"type":["object","null"]}', envelope('{"type":["object","null"]}')],
  ["without a type", "{}", envelope("{}")],
  ["with properties and no type", '{"properties":{"a":{}}}', envelope('{"properties":{"a":{}}}')],
  ["whose first type is not its last", '{"type":"object","type":"null"}', envelope('{"type":"object","type":"null"}')],
  ["true, as official clients want an object there", "true", envelope("{}")],
  ["false, as official clients want an object there", "false", envelope('{"not":{}}')],
  ["with numbers that a parser would change", '{"maximum":12345678901234567890}', envelope('{"maximum":12345678901234567890}')],
  ["with a dialect", '{ "$schema":"urn:d", "type":"null"}', envelope('{ "type":"null"}', '"$schema":"urn:d",')],
  ["with a reference to the root", '{"anyOf":[{"$ref":"#"}]}', envelope(`{"anyOf":[{"$ref":"${root}"}]}`)],
  [
    "with references to definitions",
    '{ "$ref" : "#/$defs/a~1b", "$defs":{"a/b":{"items":{"$dynamicRef":"#/$defs/c"}},"c":{}}}',
    envelope(`{ "$ref" : "${root}/$defs/a~1b", "$defs":{"a/b":{"items":{"$dynamicRef":"${root}/$defs/c"}},"c":{}}}`),
  ],
  [
    "with pointers in escapes",
    String.raw`{"allOf":[{"$ref":"#\/$defs\/\u00fc"},{"$r\u0065f":"\u0023"},{"$ref":"#%2Fnot"}]}`,
    envelope(String.raw`{"allOf":[{"$ref":"${root}\/$defs\/\u00fc"},{"$r\u0065f":"${root}"},{"$ref":"${root}%2Fnot"}]}`),
  ],
  [
    "with references in keywords that nobody knows",
    '{"$ref":"#/components/a","components":{"a":{"$ref":"#/components/b"},"b":{}}}',
    envelope(`{"$ref":"${root}/components/a","components":{"a":{"$ref":"${root}/components/b"},"b":{}}}`),
  ],
  [
    "with members that are named like keywords",
    '{"properties":{"$ref":{"$ref":"#"},"const":{"$ref":"#"},"$id":{"$ref":"#"}},"$defs":{"enum":{"items":[{"$ref":"#"}]}}}',
    envelope(
      `{"properties":{"$ref":{"$ref":"${root}"},"const":{"$ref":"${root}"},"$id":{"$ref":"${root}"}},"$defs":{"enum":{"items":[{"$ref":"${root}"}]}}}`,
    ),
  ],
  [
    "with an anchor for an id, as older drafts have it",
    '{"definitions":{"a":{"$id":"#a","items":{"$ref":"#"}}}}',
    envelope(`{"definitions":{"a":{"$id":"#a","items":{"$ref":"${root}"}}}}`),
  ],
  [
    "beside a part that is a resource of its own",
    '{"$defs":{"a":{"items":{"$ref":"#"},"$id":"urn:a"},"b":{"$ref":"#/$defs/a"}}}',
    envelope(`{"$defs":{"a":{"items":{"$ref":"#"},"$id":"urn:a"},"b":{"$ref":"${root}/$defs/a"}}}`),
  ],
  [
    "that is a resource of its own, and keeps its pointers and dialect",
    '{"$id":"urn:a","$schema":"urn:d","anyOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{}}}',
    envelope('{"$id":"urn:a","$schema":"urn:d","anyOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{}}}', '"$schema":"urn:d",'),
  ],
];
for (const [name, schema, wanted] of wrapped)
  test(`a schema ${name} becomes a property of an object`, () => {
    assert.equal(wrapOutputSchema(Buffer.from(tool(schema)))?.toString(), tool(wanted));
    JSON.parse(wanted);
  });

const references = [
  ["an anchor", '{"$ref":"#a"}'],
  ["an anchor that is found late", '{"$dynamicRef":"#a"}'],
  ["another document", '{"$ref":"urn:a#/b"}'],
  ["a reference that is no text", '{"$ref":["#"]}'],
  ["a constant", '{"const":{"$ref":"#"}}'],
  ["a choice of values", '{"enum":["#",{"$ref":"#/a"}]}'],
  ["a default", '{"default":{"a":[{"$ref":"#"}]}}'],
  ["an example", '{"examples":[{"$ref":"#"}]}'],
  ["text that looks like a pointer", '{"description":"#/a"}'],
] as const;
for (const [name, schema] of references)
  test(`${name} stays as it is`, () => {
    const nested = `{"items":${schema}}`;
    assert.equal(wrapOutputSchema(Buffer.from(tool(nested)))?.toString(), tool(envelope(nested)));
  });

const untouched: [name: string, json: string][] = [
  ["no schema", '{"name":"t","description":"\\u00fc"}'],
  ["an object's schema", tool('{ "type" : "object", "properties":{"a":{"$ref":"#"}}}')],
  ["an object's schema, in escapes", tool(String.raw`{"typ\u0065":"\u006fbject"}`)],
  ["a schema that comes to an object in the end", tool('{"type":"null","type":"object"}')],
  ["its schema elsewhere", '{"name":"t","inputSchema":{"properties":{"outputSchema":{"type":"null"}}}}'],
  ["null for a schema", tool("null")],
  ["text for a schema", tool('"outputSchema"')],
  ["a list for a schema", tool("[{}]")],
  ["a bad escape in its schema", tool(String.raw`{"\q":1}`)],
  ["a schema nested beyond what is passed on", tool(`${'{"not":'.repeat(200)}{}${"}".repeat(200)}`)],
  ["no end", '{"outputSchema":{"type":"array"'],
];
for (const [name, json] of untouched)
  test(`a tool with ${name} needs no change`, () => assert.equal(wrapOutputSchema(Buffer.from(json)), undefined));

test("a tool's schema is found in escapes, and every one of the name is replaced", () => {
  const json = String.raw`{"outputSchema":1,"output\u0053chema":{}}`;
  const wanted = String.raw`{"outputSchema":${envelope("{}")},"output\u0053chema":${envelope("{}")}}`;
  assert.equal(wrapOutputSchema(Buffer.from(json))?.toString(), wanted);
});

test("every pointer of a wrapped schema leads to the value that it led to before", () => {
  fc.assert(
    fc.property(schemas, fc.nat(2), (model, space) => {
      const text = JSON.stringify(model, undefined, space);
      const targets = pointersInto(JSON.parse(text));
      const targetOf = (nth: string) => targets[Number(nth) % targets.length] ?? "";
      const before = text.replaceAll(/"to (\d+)"/g, (_, nth: string) => JSON.stringify(`#${targetOf(nth)}`));
      const after = text.replaceAll(/"to (\d+)"/g, (_, nth: string) => JSON.stringify(`${root}${targetOf(nth)}`));
      const json = wrapOutputSchema(Buffer.from(tool(before)))?.toString();
      assert.equal(json, tool(envelope(after)));
      const schema = JSON.parse(json ?? "").outputSchema;
      for (const [, nth = ""] of text.matchAll(/"to (\d+)"/g)) {
        const reached = JSON.stringify(resolve(schema, `/properties/result${targetOf(nth)}`));
        assert.equal(reached.replaceAll(root, "#"), JSON.stringify(resolve(JSON.parse(before), targetOf(nth))));
      }
    }),
    { numRuns: 1_000 },
  );
});

const tree = '{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"array","items":{"$ref":"#/$defs/tree"}}}}';
const accepted: [schema: string, fits: string, doesNot: string][] = [
  ['{"type":"array","items":{"type":"number"}}', "[1]", '["a"]'],
  [tree, "[[],[[]]]", "[[],[1]]"],
  ['{"anyOf":[{"type":"null"},{"type":"array","items":{"$ref":"#"}}]}', "[null,[]]", "[[true]]"],
  ['{"$id":"https://a.example/tree","type":"array","items":{"$ref":"#"}}', "[[]]", "[1]"],
  [tree.replace("{", '{"$schema":"https://json-schema.org/draft/2020-12/schema",'), "[[]]", "[1]"],
  ['{"properties":{"a":{"const":{"$ref":"#"}}}}', '{"a":{"$ref":"#"}}', '{"a":1}'],
  ["true", "null", ""],
  ["false", "", "0"],
];
for (const [schema, fits, doesNot] of accepted)
  test(`an official client of the session era takes ${schema} and checks results against it`, () => {
    const json = wrapOutputSchema(Buffer.from(tool(schema)))?.toString() ?? "";
    const [listed] = ListToolsResultSchema.parse({ tools: [JSON.parse(json)] }).tools;
    const validate = new AjvJsonSchemaValidator().getValidator(JSON.parse(JSON.stringify(listed?.outputSchema)));
    for (const value of [fits, doesNot].filter((each) => each !== "")) {
      const result = wrapStructuredContent(Buffer.from(`{"structuredContent":${value}}`)).toString();
      const { structuredContent } = CallToolResultSchema.parse(JSON.parse(result));
      assert.equal(validate(structuredContent).valid, value === fits, value);
    }
  });

const block = (text: string) => `[{"type":"text","text":${JSON.stringify(text)}}]`;
const results: [name: string, result: string, wanted: string][] = [
  [
    "beside content, which stays",
    '{"content":[{"type":"image"}], "structuredContent" : [ 1.0 ] ,"isError":false}',
    '{"content":[{"type":"image"}], "structuredContent" : {"result":[ 1.0 ]} ,"isError":false}',
  ],
  [
    "without content, which it becomes too",
    '{"structuredContent":[12345678901234567890, "ü\\n"],"_meta":{}}',
    `{"structuredContent":{"result":[12345678901234567890, "ü\\n"]},"content":${block('[12345678901234567890, "ü\\n"]')},"_meta":{}}`,
  ],
  [
    "before empty content",
    '{"structuredContent":null,"content": [ ]}',
    `{"structuredContent":{"result":null},"content": ${block("null")}}`,
  ],
  [
    "after empty content",
    '{"content":[],"structuredContent":{"result":1}}',
    `{"content":${block('{"result":1}')},"structuredContent":{"result":{"result":1}}}`,
  ],
  [
    "that is said twice",
    '{"structuredContent":1,"structuredContent":2,"content":0}',
    '{"structuredContent":{"result":1},"structuredContent":{"result":2},"content":0}',
  ],
];
for (const [name, result, wanted] of results)
  test(`structured content ${name}, becomes the member of an object`, () => {
    assert.equal(wrapStructuredContent(Buffer.from(result)).toString(), wanted);
    JSON.parse(wanted);
  });

test("a result without structured content is not copied, nor is one that is not JSON", () => {
  for (const json of ['{"content":[]}', '{"isError":true}', "[]", '{"structuredContent":', ""].map((text) => Buffer.from(text)))
    assert.equal(wrapStructuredContent(json), json);
});

test("structured content keeps bytes that are no text", () => {
  const [before, value, after] = ['{"content":0,"structuredContent":"', [0xff, 0xc3], '"}'].map((part) => Buffer.from(part));
  const json = wrapStructuredContent(Buffer.concat([before, value, after] as Buffer[]));
  assert.ok(json.includes(Buffer.concat([Buffer.from('{"result":"'), value as Buffer, Buffer.from('"}')])));
});

test("structured content that is no object is told from all else", () => {
  for (const value of ["[]", "null", '"{}"', "1", "true"]) {
    assert.equal(holdsNonObject(Buffer.from(`{"structuredContent": ${value}}`)), true, value);
    assert.equal(holdsNonObject(Buffer.from(`{"structured\\u0043ontent":${value}}`)), true, value);
  }
  for (const json of ['{"structuredContent": {}}', '{"content":["structuredContent"]}', "{}", "[]", '{"structuredContent"'])
    assert.equal(holdsNonObject(Buffer.from(json)), false, json);
});

test("a schema of a megabyte is read once, however deep it nests", { timeout: 10_000 }, () => {
  const deep = `${'{"anyOf":['.repeat(60)}${'{"$ref":"#"},'.repeat(80_000)}{}${"]}".repeat(60)}`;
  const json = wrapOutputSchema(Buffer.from(tool(deep)))?.toString();
  assert.equal(json, tool(envelope(deep.replaceAll('"#"', `"${root}"`))));
});

// `to 3` stands for a pointer to one of the document's values; all other references are to stay as they are.
const { root: schemas } = fc.letrec<{ root: object; part: object; named: object }>((tie) => ({
  root: fc.record(
    {
      items: tie("part"),
      anyOf: fc.array(tie("part"), { maxLength: 2 }),
      properties: tie("named"),
      $defs: tie("named"),
      const: fc.constant({ $ref: "#/const", properties: { a: { $ref: "#" } } }),
      enum: fc.constant([{ $ref: "#" }, "#/enum"]),
      default: fc.constant({ $dynamicRef: "#" }),
      contains: fc.constant({ not: { $ref: "#" }, $id: "urn:other" }),
    },
    { requiredKeys: [] },
  ),
  part: fc.oneof(
    { maxDepth: 4 },
    fc.nat(999).map((nth) => ({ type: "object", $ref: `to ${nth}` })),
    fc.nat(999).map((nth) => ({ $dynamicRef: `to ${nth}` })),
    tie("root"),
  ),
  // No name needs an escape in JSON, so that no parser is put to the test; some need one in a pointer.
  named: fc.dictionary(fc.constantFrom("a", "$ref", "default", "$id", "x/y", "~", "%", "ü"), tie("part"), { maxKeys: 2 }),
}));

function pointersInto(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [""];
  const below = Object.entries(value).flatMap(([key, part]) => {
    const token = encodeURIComponent(key.replaceAll("~", "~0").replaceAll("/", "~1"));
    return pointersInto(part).map((rest) => `/${token}${rest}`);
  });
  return ["", ...below];
}

function resolve(value: unknown, pointer: string): unknown {
  const tokens = pointer.split("/").slice(1);
  return tokens.reduce<unknown>((at, token) => {
    const key = decodeURIComponent(token).replaceAll("~1", "/").replaceAll("~0", "~");
    assert.ok(typeof at === "object" && at !== null && Object.hasOwn(at, key), `nothing at ${pointer}`);
    return (at as Record<string, unknown>)[key];
  }, value);
}
