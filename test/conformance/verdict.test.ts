import assert from "node:assert/strict";
import { test } from "node:test";
import type { Check, Scenario } from "./suite.ts";
import { findLosses, judge, parseExpectedFailures } from "./verdict.ts";

const scenario = (...checks: Check[]): Scenario[] => [{ name: "ping", checks }];
const success: Check = { id: "pong", status: "SUCCESS" };
const failure: Check = { id: "pong", status: "FAILURE", errorMessage: "no pong" };
const info: Check = { id: "pong", status: "INFO" };

for (const [name, direct, through, reason] of [
  ["the same result is no loss", [success], [success], undefined],
  ["a failure behind the gateway only is a loss", [success], [failure], "no pong"],
  ["a warning counts", [success], [{ ...failure, status: "WARNING" }], "no pong"],
  ["a failure of the fixture proves nothing", [failure], [success], "without the gateway too: no pong"],
  ["a failure where nothing was checked before is a loss", [], [failure], "no pong"],
  ["a check that is not made any more is a loss", [success], [], "passes 1 times without the gateway, 0 times with it"],
  ["so is one that became a remark", [success], [info], "passes 1 times without the gateway, 0 times with it (INFO)"],
  ["every repetition counts", [success, success], [success], "passes 2 times without the gateway, 1 times with it"],
] satisfies [string, Check[], Check[], string | undefined][]) {
  test(name, () => {
    const losses = findLosses(scenario(...direct), scenario(...through));
    assert.deepEqual(losses, reason === undefined ? [] : [{ scenario: "ping", check: "pong", reason }]);
  });
}

test("a scenario that did not run loses its checks", () => {
  assert.equal(findLosses(scenario(success), []).length, 1);
});

test("expected losses are forgiven, and expectations that did not come true are named", () => {
  const losses = findLosses(scenario(success), scenario(failure));
  const entry = { scenario: "ping", check: "pong", why: "because" };
  assert.deepEqual(judge(losses, [entry]), { unexpected: [], stale: [] });
  assert.deepEqual(judge([], [entry]), { unexpected: [], stale: [entry] });
  assert.deepEqual(judge(losses, [{ ...entry, scenario: "other" }]).unexpected, losses);
});

test("the list of expected failures may be empty, and entries need a reason", () => {
  assert.deepEqual(parseExpectedFailures("# nothing\n"), []);
  assert.throws(() => parseExpectedFailures("- { scenario: s, check: c, why: later }"));
  assert.throws(() => parseExpectedFailures("- { scenario: s, check: c }"));
});
