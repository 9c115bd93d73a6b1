import assert from "node:assert/strict";
import { test } from "node:test";
import { age, plain, table } from "./table.ts";

test("columns are as wide as their widest cell, and nothing trails", () => {
  assert.equal(
    table(
      ["NAME", "STATE"],
      [
        ["a", "ready"],
        ["longer", ""],
      ],
    ),
    "NAME    STATE\na       ready\nlonger  -\n",
  );
});

test("wide characters take two columns", () => {
  assert.equal(
    table(
      ["N", "S"],
      [
        ["道具", "x"],
        ["ab", "y"],
      ],
    ),
    "N     S\n道具  x\nab    y\n",
  );
});

test("what a terminal would obey is shown, not obeyed", () => {
  assert.equal(plain("\u001b[2Jgone\u202e\r"), "\\u{1b}[2Jgone\\u{202e}\\u{d}");
  assert.equal(plain("two\nlines\tand tab"), "two lines and tab");
});

for (const [seconds, wanted] of [
  [0, "0s"],
  [119, "119s"],
  [120, "2m"],
  [7_199, "119m"],
  [7_200, "2h"],
  [172_800, "2d"],
] as const) {
  test(`${seconds} s ago is ${wanted}`, () => assert.equal(age(1_000, 1_000 + seconds * 1000), wanted));
}
