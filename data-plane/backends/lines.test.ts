import assert from "node:assert/strict";
import { test } from "node:test";
import { createLineReader, printable } from "./lines.ts";

test("lines come out whole, however the bytes are cut", () => {
  const text = 'one\r\n\n{"é":"☃"}\ntwo\nrest';
  for (let cut = 1; cut < Buffer.byteLength(text); cut++) {
    const lines: string[] = [];
    const read = createLineReader(100, (line) => lines.push(line.toString()));
    const bytes = Buffer.from(text);
    for (let start = 0; start < bytes.length; start += cut) read(bytes.subarray(start, start + cut));
    assert.deepEqual(lines, ["one", '{"é":"☃"}', "two"]);
  }
});

test("a line over the bound is refused, one at the bound is not", () => {
  const lines: number[] = [];
  const read = createLineReader(4, (line) => lines.push(line.length));
  read(Buffer.from("1234\n12"));
  assert.throws(() => read(Buffer.from("345")), /longer than 4 bytes/);
  assert.deepEqual(lines, [4]);
});

for (const [what, text, shown] of [
  ["escape sequences", "\x1b[2Jx", "\\u001b[2Jx"],
  ["what turns the writing direction", "a\u202eb", "a\\u202eb"],
  ["ordinary letters", "é☃😀", "é☃😀"],
  ["long text", "x".repeat(500), `${"x".repeat(400)}…`],
] as const) {
  test(`${what} in a log line`, () => assert.equal(printable(Buffer.from(text)), shown));
}
