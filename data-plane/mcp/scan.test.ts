import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  elements,
  endOfValue,
  JsonTextError,
  member,
  members,
  readElements,
  readMembers,
  splice,
  withMembers,
  withoutMembers,
} from "./scan.ts";

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

const spaced = '{ "a" : 1 ,\n\t"b" : { "x" : [ 1.0 ] } , "c":"," }';
const removals: [string, string, string[], string][] = [
  ["the first", spaced, ["a"], '{ "b" : { "x" : [ 1.0 ] } , "c":"," }'],
  ["one in the middle", spaced, ["b"], '{ "a" : 1 , "c":"," }'],
  ["the last", spaced, ["c"], '{ "a" : 1 ,\n\t"b" : { "x" : [ 1.0 ] } }'],
  ["the first two", spaced, ["b", "a"], '{ "c":"," }'],
  ["the last two", spaced, ["b", "c"], '{ "a" : 1 }'],
  ["the outer two", spaced, ["c", "a"], '{ "b" : { "x" : [ 1.0 ] } }'],
  ["all", spaced, ["a", "b", "c"], "{  }"],
  ["the only one", '{"a":[]}', ["a"], "{}"],
  ["each of one name", '{"a":1,"b":2,"a":3,"a":4,"c":5,"a":6}', ["a"], '{"b":2,"c":5}'],
  ["a name in escapes, beside one that stays", '{"\\u0061":1,"\\u0062":2}', ["a"], '{"\\u0062":2}'],
  ["a name with a quote, braces and a comma", '{"\\",}{":1,"b":2}', ['",}{'], '{"b":2}'],
  ["none of what is nested", '{"b":{"a":1},"a":2}', ["a"], '{"b":{"a":1}}'],
  ["with white space around the object", ' \n{"a":1,"b":2}\t', ["b"], ' \n{"a":1}\t'],
];
for (const [what, json, keys, wanted] of removals)
  test(`removes ${what} and leaves every other byte`, () => assert.equal(withoutMembers(text(json), keys).toString(), wanted));

test("removing what is not there copies nothing", () => {
  for (const json of ["{}", "{ }", spaced].map(text)) assert.equal(withoutMembers(json, ["z", "x"]), json);
});

test("removing members keeps the values of all others, byte for byte, in any object", () => {
  // No name needs an escape: once V8 read a name that ends in a backslash, JSON.parse may read others wrongly
  // (https://github.com/nodejs/node/issues/63785).
  const key = fc.constantFrom<string>("a", "b", "c", "", "ü", "}", ",");
  const space = fc.string({ unit: fc.constantFrom(...[" ", "\n", "\t", "\r"]), maxLength: 2 });
  const part = fc.tuple(space, key, space, fc.jsonValue(), space).map(([a, name, b, value, c]) => {
    return `${a}${JSON.stringify(name)}${b}:${b}${JSON.stringify(value, undefined, a)}${c}`;
  });
  fc.assert(
    fc.property(fc.array(part), space, fc.uniqueArray(key), (parts, around, keys) => {
      const json = text(`${around}{${parts.join(",") || around}}${around}`);
      const left = withoutMembers(json, keys);
      const wanted = members(json).filter((candidate) => !keys.includes(candidate.key));
      assert.deepEqual(
        members(left).map(({ key, start, end }) => [key, left.toString("utf8", start, end)]),
        wanted.map(({ key, start, end }) => [key, json.toString("utf8", start, end)]),
      );
      const object = JSON.parse(json.toString());
      for (const key of keys) delete object[key];
      assert.deepEqual(JSON.parse(left.toString()), object);
    }),
    { numRuns: 2_000 },
  );
});

test("goes through a nested text once, and says where it ends", () => {
  const json = text(' { "a" : [ 1 , { "b" : [ ] } ] , "c" : { } } rest');
  const seen: string[] = [];
  const readValue = (start: number): number => {
    seen.push(String.fromCharCode(json[start] ?? 0));
    if (json[start] === 0x7b) return readMembers(json, start, (_key, at) => readValue(at));
    return json[start] === 0x5b ? readElements(json, start, readValue) : endOfValue(json, start);
  };
  assert.equal(json.toString("utf8", readValue(1)), " rest");
  assert.equal(seen.join(""), "{[1{[{");
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
