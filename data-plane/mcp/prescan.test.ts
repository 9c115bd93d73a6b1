import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { prescan } from "./prescan.ts";

const kindOf = (json: string | Buffer) => prescan(Buffer.from(json as string))?.kind;

const accepted: [string, string][] = [
  ["a call", '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":[1,-0.5e+3,true,null]}}}'],
  ["white space everywhere", ' \n{ "a" :\t[ 1 , { } , [ ] ] ,\r"b" : "" } \n'],
  ["every escape", '{"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00Fc":"\\ud83d\\ude00"}'],
  ["one name in two objects", '{"a":{"a":1},"b":{"a":1}}'],
  ["names that differ in case, in arguments", '{"params":{"arguments":{"a":1,"A":2}}}'],
  ["ordinary words as arguments", '{"params":{"arguments":{"constructor":1,"prototype":2}}}'],
  ["a value cut in the middle of an emoji, and one with NUL", '{"a":"\\ud83d","b":"\\u0000"}'],
  ["64 levels", "[".repeat(64) + "]".repeat(64)],
  ["100,000 values", `[${"1,".repeat(99_998)}1]`],
  ["a string of 512 KB", `"${"a".repeat(512 * 1024)}"`],
  ["a batch", '[{"method":"a","id":1},{"method":"a","id":2}]'],
  ["a lone value", "1"],
];
for (const [name, json] of accepted)
  test(`takes ${name}`, () => {
    assert.equal(prescan(Buffer.from(json)), undefined);
    JSON.parse(json);
  });

const refused: [string, string, string | Buffer][] = [
  ["nothing", "parse", ""],
  ["a byte order mark", "parse", "\u{feff}{}"],
  ["bytes that are not UTF-8", "parse", Buffer.from([0x22, 0xc3, 0x22])],
  ["an encoded surrogate", "parse", Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])],
  ["text behind the value", "parse", "{} x"],
  ["a second value", "parse", "{}{}"],
  ["a byte NUL behind the value", "parse", "{}\0"],
  ["a line break in a string", "parse", '"a\nb"'],
  ["a bad escape", "parse", '"\\x41"'],
  ["half an escape", "parse", '"\\u12"'],
  ["a number with a leading zero", "parse", "[01]"],
  ["a number without an end", "parse", "[1.]"],
  ["an exponent without digits", "parse", "[1e+]"],
  ["a word that JSON has not", "parse", "[nul]"],
  ["a comma too many", "parse", '{"a":1,}'],
  ["a comma too few", "parse", "[1 2]"],
  ["brackets that do not match", "parse", '{"a":[1}]'],
  ["an object of values", "parse", "{1}"],
  ["an end that is missing", "parse", '{"a":[1'],
  ["the same member twice", "invalid", '{"a":1,"a":1}'],
  ["the same member twice, once escaped", "invalid", '{"params":{"x":{"name":1,"n\\u0061me":2}}}'],
  ["the same member twice, first escaped", "invalid", '{"params":{"x":{"n\\u0061me":1,"name":2}}}'],
  ["the same member twice, not ASCII", "invalid", '{"params":{"x":{"ü":1,"b":0,"\\u00fc":2}}}'],
  ["the same member twice among many", "invalid", `{${Array.from({ length: 40 }, (_, i) => `"a${i}":1,`).join("")}"a3":1}`],
  ["the same member twice deep in arguments", "invalid", '{"params":{"arguments":{"a":[{"b":1},{"b":1,"b":1}]}}}'],
  ["a method in two cases", "invalid", '{"method":"tools/list","Method":"tools/call"}'],
  ["a tool's name in two cases", "invalid", '{"params":{"name":"a","NAME":"b"}}'],
  ["a case that only Unicode folds", "invalid", '{"params":{"arguments":{},"argument\u{17f}":{}}}'],
  ["__proto__ deep in arguments", "invalid", '{"params":{"arguments":{"a":[{"__proto__":{}}]}}}'],
  ["__proto__ escaped", "invalid", '{"params":{"arguments":{"\\u005f_proto__":{}}}}'],
  ["constructor in a message", "invalid", '{"constructor":1}'],
  ["prototype in params", "invalid", '{"params":{"prototype":1}}'],
  ["constructor in a batch", "invalid", '[{"params":{"constructor":1}}]'],
  ["half a surrogate pair in a name", "invalid", '{"params":{"arguments":{"\\ud83d":1}}}'],
  ["NUL in a name", "invalid", '{"params":{"arguments":{"a\\u0000b":1}}}'],
  ["65 levels", "too_large", "[".repeat(65) + "]".repeat(65)],
  ["a megabyte of brackets", "too_large", "[".repeat(1_000_000)],
  ["a megabyte of empty objects", "too_large", `[${"{},".repeat(333_000)}{}]`],
  ["100,001 names and values", "too_large", `[${"1,".repeat(99_999)}1]`],
  ["a string beyond 512 KB", "too_large", `"${"a".repeat(512 * 1024 + 1)}"`],
  ["a name beyond 512 KB", "too_large", `{"${"a".repeat(512 * 1024 + 1)}":1}`],
];
for (const [name, kind, json] of refused) test(`refuses ${name}`, () => assert.equal(kindOf(json), kind));

test("says where and what", () => {
  assert.equal(prescan(Buffer.from('{"a":@}'))?.message, "the body is not JSON from byte 5 on");
  assert.equal(prescan(Buffer.from('{"a":1,"\\u0061":2}'))?.message, `the body's member "\\u0061" stands twice in one object`);
});

test("a refused body leaves nothing behind for the next", () => {
  assert.equal(kindOf('{"a":{"b":{"c":1,"c":1'), "invalid");
  assert.equal(kindOf('{"\\u0061":{"b":{"c":1,"d":1}}}'), undefined);
});

test("never takes what JSON.parse refuses, whatever the text", () => {
  const piece = fc.constantFrom(
    ...'{}[]",:\\ 10.-+eEuabt\t\n/',
    '"a"',
    '"b":',
    "true",
    "null",
    "false",
    "\\u0061",
    "12",
    "{}",
    "é",
  );
  fc.assert(
    fc.property(fc.string({ unit: piece, maxLength: 14 }), (json) => {
      const fault = prescan(Buffer.from(json));
      const value = tryParse(json);
      if (!fault) assert.notEqual(value, undefined);
      else if (fault.kind === "parse") assert.equal(value, undefined);
    }),
    { numRuns: 60_000 },
  );
});

test("never takes a text that was whole until one byte changed, unless JSON.parse does", () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 3 }), fc.nat(), fc.nat(255), (json, at, byte) => {
      const bytes = Buffer.from(json);
      bytes[at % bytes.length] = byte;
      const fault = prescan(bytes);
      const value = tryParse(bytes.toString());
      if (!fault) assert.notEqual(value, undefined);
    }),
    { numRuns: 15_000 },
  );
});

test("agrees about members that stand twice or have reserved names, however they are spelled", () => {
  const name = fc.constantFrom("a", "b", "A", "ü", "name", "__proto__", "constructor", "prototype", "x".repeat(9), "😀", "");
  const spelled = fc
    .tuple(name, fc.constantFrom(undefined, 0, 1, 2))
    .map(([text, escaped]) => ({ text, json: spell(text, escaped) }));
  const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
    tree: fc.oneof(
      { depthSize: "small" },
      fc.constantFrom<Tree>("1", '"a"', "null"),
      fc.array(tie("tree"), { maxLength: 3 }),
      fc.record({ members: fc.array(fc.tuple(spelled, tie("tree")), { maxLength: 4 }) }),
    ),
  }));
  fc.assert(
    fc.property(tree, (root) => {
      const json = write(root);
      JSON.parse(json);
      assert.equal(kindOf(json), isClean(root, 0) ? undefined : "invalid", json);
    }),
    { numRuns: 25_000 },
  );
});

interface Spelled {
  readonly text: string;
  readonly json: string;
}
type Tree = string | Tree[] | { readonly members: (readonly [Spelled, Tree])[] };

function spell(text: string, escaped: number | undefined): string {
  const units = [...Array(text.length).keys()].map((i) =>
    i === escaped ? `\\u${text.charCodeAt(i).toString(16).padStart(4, "0")}` : text.charAt(i),
  );
  // Half an escaped pair beside half a raw one is no UTF-8.
  return escaped !== undefined && text === "😀" ? '"\\ud83d\\uDE00"' : `"${units.join("")}"`;
}

function write(tree: Tree): string {
  if (typeof tree === "string") return tree;
  if (Array.isArray(tree)) return `[${tree.map(write).join(" ,")}]`;
  return `{${tree.members.map(([name, value]) => ` ${name.json}: ${write(value)}`).join(",")}}`;
}

function isClean(tree: Tree, objectsAround: number): boolean {
  if (typeof tree === "string") return true;
  if (Array.isArray(tree)) return tree.every((item) => isClean(item, objectsAround));
  const inEnvelope = objectsAround < 2;
  const reserved = inEnvelope ? ["__proto__", "constructor", "prototype"] : ["__proto__"];
  const names = tree.members.map(([{ text }]) => (inEnvelope ? text.toLowerCase() : text));
  if (names.some((name) => reserved.includes(name)) || new Set(names).size < names.length) return false;
  return tree.members.every(([, value]) => isClean(value, objectsAround + 1));
}

function tryParse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
