import assert from "node:assert/strict";
import { test } from "node:test";
import { faultOf, lineOfDenied, readEntry } from "./audit.ts";
import type { AuditLine } from "./store.ts";

const denied = { actor: "mallory", method: "Test", reason: "why", requestId: "q", code: "DENIED", timeMs: 1_000 };
const first = lineOfDenied({ id: 0n, hash: "" }, { ...denied, targets: ["groups/a"] });
const second = lineOfDenied(first, { ...denied, targets: ["groups/b"] });
const third = lineOfDenied(second, { ...denied, targets: [] });
const rewritten = lineOfDenied(first, { ...denied, actor: "alice", targets: ["groups/b"] });

test("lines as they were written have no fault", () => {
  assert.deepEqual(
    [faultOf(first, undefined), faultOf(second, first), faultOf(third, second)],
    [undefined, undefined, undefined],
  );
  assert.equal(faultOf(third, undefined), undefined, "the oldest that is kept");
});

for (const [what, line, before, wanted] of [
  ["an altered line", { ...second, entry: second.entry.replace("mallory", "alice") }, first, "line 2 is not what was written"],
  ["a line that is gone", third, first, "what was between line 1 and line 3 is gone"],
  ["a line that was moved", { ...third, id: 2n }, first, "line 2 was written as line 3"],
  ["what follows a line that was written again with its hash", third, rewritten, "line 3 does not follow line 2"],
  ["a first line that is not the first", { ...second, id: 1n }, undefined, "line 1 was written as line 2"],
] satisfies [string, AuditLine, AuditLine | undefined, string][]) {
  test(`${what} is found`, () => assert.equal(faultOf(line, before), wanted));
}

test("a line shows twenty changes, and vouches for the others", () => {
  const targets = Array.from({ length: 30 }, (_, at) => `groups/g${at}`);
  const entry = readEntry(lineOfDenied(first, { ...denied, targets }));
  const other = readEntry(lineOfDenied(first, { ...denied, targets: [...targets.slice(0, 29), "groups/x"] }));
  assert.deepEqual([entry.changes.length, entry.changeCount], [20, 30]);
  assert.deepEqual(entry.changes, other.changes);
  assert.notEqual(entry.changesDigest, other.changesDigest);
});
