import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeHeaderValue, encodeHeaderValue, trimOptionalSpace } from "./header-values.ts";

const wrap = (payload: string) => `=?base64?${payload}?=`;
const base64 = (text: string) => Buffer.from(text).toString("base64");

for (const text of ["", "us-west1", "two words", "a\tb", "~!@#", "=?base64?abc", "abc?=", "=?BASE64?YQ==?=", "file:///a%20b"])
  test(`${JSON.stringify(text)} travels as it is`, () => {
    assert.equal(encodeHeaderValue(text), text);
    assert.equal(decodeHeaderValue(text), text);
  });

for (const text of [
  " a",
  "a ",
  "\ta",
  "a\t",
  " ",
  "\t",
  "ü",
  "日本",
  "😀",
  "a\r\nb: c",
  "a\0",
  "\x7f",
  wrap("YQ=="),
  wrap("?"),
  "=?base64?=",
])
  test(`${JSON.stringify(text)} travels as Base64`, () => {
    assert.equal(encodeHeaderValue(text), wrap(base64(text)));
    assert.equal(decodeHeaderValue(encodeHeaderValue(text)), text);
  });

test("a byte order mark is part of the text", () => {
  assert.equal(decodeHeaderValue(encodeHeaderValue("\ufeffa")), "\ufeffa");
});

test("spaces and tabs around a value don't belong to it", () => {
  assert.equal(decodeHeaderValue(" \t a b\t "), "a b");
  assert.equal(decodeHeaderValue(`\t${wrap("IGEg")} `), " a ");
  assert.equal(trimOptionalSpace("\n a \u00a0"), "\n a \u00a0");
});

test("an empty wrapping is an empty text", () => assert.equal(decodeHeaderValue(wrap("")), ""));

const bad: [string, string][] = [
  ["without its padding", wrap("SGVsbG8")],
  ["with too much padding", wrap("SGVsbG8==")],
  ["with padding alone", wrap("=")],
  ["with padding in the middle", wrap("YQ==YQ==")],
  ["with other characters", wrap("SGVs!!!bG8=")],
  ["of the alphabet for URLs", wrap("-_-_")],
  ["with a space", wrap("SGVs bG8=")],
  ["with spaces around", wrap(" YQ== ")],
  ["with bits left over", wrap("YR==")],
  ["of one character", wrap("Y")],
  ["of bytes that are not UTF-8", wrap("//79")],
  ["of half a surrogate pair", wrap(Buffer.from([0xed, 0xa0, 0x80]).toString("base64"))],
  ["whose ends share a question mark", "=?base64?="],
];
for (const [what, value] of bad) test(`Base64 ${what} is refused`, () => assert.equal(decodeHeaderValue(value), undefined));

const anyText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.constantFrom(" ", "\t", "a", "=", "?", "ü", "\n") }),
  fc.string().map(wrap),
  fc.base64String().map(wrap),
);

test("every well-formed text comes back, from a value that HTTP can carry", () => {
  const property = fc.property(anyText, (text) => {
    const value = encodeHeaderValue(text);
    assert.match(value, /^[ -~\t]*$/);
    assert.equal(trimOptionalSpace(value), value);
    assert.equal(decodeHeaderValue(value), text);
  });
  fc.assert(property, { numRuns: 20_000 });
});

test("changed Base64 is refused, or is exactly how another text is written", () => {
  const property = fc.property(anyText, fc.nat(), fc.nat(2), fc.string({ maxLength: 3 }), (text, position, dropped, by) => {
    const payload = base64(text);
    const at = position % (payload.length + 1);
    const changed = payload.slice(0, at) + by + payload.slice(at + dropped);
    const decoded = decodeHeaderValue(wrap(changed));
    if (decoded !== undefined) assert.equal(base64(decoded), changed);
  });
  fc.assert(property, { numRuns: 20_000 });
});

test("a long run of spaces costs no more than its length", () => {
  const value = `a${" ".repeat(1_000_000)}b`;
  assert.equal(trimOptionalSpace(value), value);
});
