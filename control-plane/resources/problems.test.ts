import assert from "node:assert/strict";
import { test } from "node:test";
import { formatPath, formatReport, type Problem, problemToJson } from "./problems.ts";

const placed: Problem = {
  severity: "error",
  message: "wrong",
  hint: "right it",
  resource: "virtualServers/a",
  path: ["tools", 0, "overrides", "a.b", "name"],
  place: { file: "f.yaml", line: 12, column: 3, source: "  key: value", indent: 2, width: 3 },
};

test("a problem with a place points to it", () => {
  assert.equal(
    formatReport([placed]),
    "f.yaml:12:3: error: wrong\n  12 |   key: value\n     |   ^^^\n     = right it\n\n1 error\n",
  );
});

test("a problem without a place names its resource and path", () => {
  const { place: _, ...unplaced } = placed;
  assert.equal(
    formatReport([unplaced]),
    'virtualServers/a: tools[0].overrides["a.b"].name: error: wrong\n  = right it\n\n1 error\n',
  );
});

test("the count names each severity", () => {
  const report = formatReport([placed, placed, { ...placed, severity: "warning" }, { ...placed, severity: "refused" }]);
  assert.ok(report.endsWith("\n2 errors, 1 refusal, 1 warning\n"));
  assert.equal(formatReport([]), "");
});

test("machines get what is known and nothing else", () => {
  assert.deepEqual(problemToJson({ severity: "error", message: "m", path: [] }), { severity: "error", path: [], message: "m" });
  assert.deepEqual(Object.keys(problemToJson(placed)), [
    "severity",
    "file",
    "line",
    "column",
    "resource",
    "path",
    "message",
    "hint",
  ]);
});

test("paths quote what is no plain word", () => {
  assert.equal(formatPath(["a", 0, "b-c", "d e"]), 'a[0].b-c["d e"]');
});
