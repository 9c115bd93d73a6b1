import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { lineDiff, withContext } from "./line-diff.ts";

const shown = (diff: ReturnType<typeof lineDiff>) => diff.map(({ sign, text }) => `${sign}${text}`);

test("only what changed is marked", () => {
  assert.deepEqual(shown(lineDiff("a\nb\nc\n", "a\nx\nc\nd\n")), [" a", "-b", "+x", " c", "+d"]);
});

test("nothing against something is all new", () => {
  assert.deepEqual(shown(lineDiff("", "a\nb\n")), ["+a", "+b"]);
  assert.deepEqual(shown(lineDiff("a\n", "")), ["-a"]);
});

test("lines far from a change are left out", () => {
  const before = ["1", "2", "3", "4", "5", "6", "7", "8", "9"].join("\n");
  assert.deepEqual(shown(withContext(lineDiff(`${before}\n`, `${before}\nx\n`), 2)), [" …", " 8", " 9", "+x"]);
});

test("property: one side of a diff is the text before, the other the text after", () => {
  const text = fc
    .array(fc.constantFrom("a", "b", "c", ""), { maxLength: 12 })
    .map((lines) => lines.map((line) => `${line}\n`).join(""));
  fc.assert(
    fc.property(text, text, (before, after) => {
      const diff = lineDiff(before, after);
      const side = (sign: "+" | "-") =>
        diff
          .filter((line) => line.sign !== sign)
          .map((line) => `${line.text}\n`)
          .join("");
      assert.deepEqual([side("+"), side("-")], [before, after]);
    }),
  );
});
