// Broken configurations and what is said of them. UPDATE_GOLDENS=1 writes the reports anew: read each before it is committed.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { loadConfig } from "../../control-plane/config/load.ts";
import { formatReport, hasErrors } from "../../control-plane/resources/problems.ts";

const folder = new URL("./cases/", import.meta.url);
const cases = readdirSync(folder).filter((name) => name.endsWith(".yaml"));

for (const name of cases) {
  test(`${name} is refused with its report`, () => {
    const { problems } = loadConfig(readFileSync(new URL(name, folder)), { file: name });
    const report = formatReport(problems);
    const golden = new URL(name.replace(/\.yaml$/, ".report.txt"), folder);
    if (process.env.UPDATE_GOLDENS === "1") writeFileSync(golden, report);
    assert.equal(report, readFileSync(golden, "utf8"));
    assert.ok(hasErrors(problems));
    for (const problem of problems)
      assert.ok(problem.place !== undefined || problem.message.startsWith("and "), "every problem has a place");
  });
}

test("no report shows a secret", () => {
  for (const name of cases) {
    const { problems } = loadConfig(readFileSync(new URL(name, folder)), { file: name });
    assert.doesNotMatch(formatReport(problems) + JSON.stringify(problems), /hunter2/, name);
  }
});

test("there are broken configurations enough", () => {
  assert.ok(cases.length >= 45);
});
