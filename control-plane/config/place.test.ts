import assert from "node:assert/strict";
import { test } from "node:test";
import { indexLines } from "./place.ts";

/** The shown line and the pointer under it, for the part of `text` between « and ». */
function pointed(marked: string, masked: string[] = []): { source: string; pointer: string; line: number; column: number } {
  const text = marked.replace(/[«»]/g, "");
  const range = { start: marked.indexOf("«"), end: marked.indexOf("»") - 1 };
  const masks = masked.map((part) => ({ start: text.indexOf(part), end: text.indexOf(part) + part.length }));
  const { source, indent, width, line, column } = indexLines(text, masks).place("f", range);
  return { source, pointer: " ".repeat(indent) + "^".repeat(width), line, column };
}

test("lines and columns count from one, in characters", () => {
  assert.deepEqual(pointed("a: 1\n  b: «x»\n"), { source: "  b: x", pointer: "     ^", line: 2, column: 6 });
  assert.deepEqual(pointed("🚀🚀: «x»"), { source: "🚀🚀: x", pointer: "      ^", line: 1, column: 5 });
});

test("tabs, wide and combining characters keep the pointer in place", () => {
  assert.deepEqual(pointed("\ta: «x»"), { source: "  a: x", pointer: "     ^", line: 1, column: 5 });
  assert.deepEqual(pointed("名: «説明»"), { source: "名: 説明", pointer: "    ^^^^", line: 1, column: 4 });
  assert.deepEqual(pointed("e\u0301: «x»"), { source: "e\u0301: x", pointer: "   ^", line: 1, column: 5 });
});

test("carriage returns are no part of a line", () => {
  assert.equal(pointed("a: «x»\r\nb: 1\r\n").source, "a: x");
});

test("a culprit of several lines is pointed at where it begins", () => {
  assert.deepEqual(pointed('a: «"x\n  y"»\n'), { source: 'a: "x', pointer: "   ^^", line: 1, column: 4 });
});

test("the end of a text has a place", () => {
  assert.deepEqual(pointed("a: 1\n«»"), { source: "", pointer: "^", line: 2, column: 1 });
});

test("masked parts are not shown", () => {
  assert.equal(pointed("k: {a: secret, «b»: 1}", ["secret"]).source, "k: {a: ******, b: 1}");
});

test("terminals can't be told to do anything", () => {
  assert.equal(pointed("a\u001b[31m: «x»\u202e").source, "a␛[31m: x\ufffd");
});

test("a long line is cut to what surrounds the culprit", () => {
  const { source, pointer } = pointed(`${"a".repeat(5_000)} «culprit» ${"b".repeat(5_000)}`);
  assert.ok(source.length < 130);
  assert.equal(source.slice(pointer.indexOf("^"), pointer.length), "culprit");
  assert.match(source, /^… .* …$/);
});
