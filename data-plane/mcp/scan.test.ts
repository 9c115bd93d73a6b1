import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { elements, JsonTextError, member, members, splice, withMembers } from "./scan.ts";

const text = (json: string) => Buffer.from(json);

test("members gives the span of every value, as the sender wrote it", () => {
  const json = text('{ "a" : 1.0e2 ,"b":{"x":[1,"}"]},"ü\\u0041":"\\"",  "n":null }');
  const found = members(json).map(({ key, start, end }) => [key, json.toString("utf8", start, end)]);
  assert.deepEqual(found, [
    ["a", "1.0e2"],
    ["b", '{"x":[1,"}"]}'],
    ["üA", '"\\""'],
    ["n", "null"],
  ]);
});

test("the last of two members of one name wins, as in JSON.parse", () => {
  const json = text('{"name":"first","name":"second"}');
  const span = member(json, 0, "name");
  assert.equal(span && json.toString("utf8", span.start, span.end), '"second"');
});

const broken = [
  "",
  "[",
  "{",
  '{"a"',
  '{"a":',
  '{"a":}',
  '{"a":1',
  '{"a":1,}',
  '{"a":[1}',
  '{"a":"',
  "{a:1}",
  '{"a":1 "b":2}',
  '{"a":@}',
  '{"\\q":1}',
];
for (const json of broken) test(`refuses ${json || "nothing"}`, () => assert.throws(() => members(text(json)), JsonTextError));

test("refuses nesting beyond what it passes on", () => {
  assert.throws(() => members(text(`{"a":${"[".repeat(200)}${"]".repeat(200)}}`)), /nested deeper/);
});

test("replaces members, adds those that are missing and leaves every other byte", () => {
  const json = text('{"name":"a", "big":12345678901234567890,"x":1.0}');
  assert.equal(
    withMembers(json, { name: '"b"', added: "[1]" }).toString(),
    '{"name":"b", "big":12345678901234567890,"x":1.0,"added":[1]}',
  );
  assert.equal(withMembers(text("{ }"), { a: "1", b: "2" }).toString(), '{"a":1,"b":2 }');
});

test("splices in any order", () => {
  const json = text("0123456789");
  const edits = [
    { start: 8, end: 9, text: "eight" },
    { start: 1, end: 3, text: "" },
  ];
  assert.equal(splice(json, edits).toString(), "034567eight9");
});

test("finds the same parts as JSON.parse in any JSON text", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.jsonValue()), fc.nat(4), (object, array, space) => {
      const objectText = text(JSON.stringify(object, undefined, space));
      const parts = members(objectText).map(({ key, start, end }) => [key, JSON.parse(objectText.toString("utf8", start, end))]);
      assert.deepEqual(parts, Object.entries(JSON.parse(objectText.toString())));
      const arrayText = text(JSON.stringify(array, undefined, space));
      const items = elements(arrayText).map(({ start, end }) => JSON.parse(arrayText.toString("utf8", start, end)));
      assert.deepEqual(items, JSON.parse(arrayText.toString()));
    }),
    { numRuns: 2_000 },
  );
});

test("never takes longer than the text, whatever the text", () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'{}[]",:\\ 1a') }), (json) => {
      try {
        members(text(json));
      } catch (error) {
        assert.ok(error instanceof JsonTextError);
      }
    }),
    { numRuns: 5_000 },
  );
});
