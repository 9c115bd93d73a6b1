// Every run of the official suite, as a test each: nothing may get worse by the gateway but what expected-failures/ explains.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { type Mesh, startMesh } from "../support/mesh.ts";
import { expectedFailuresFile, expectedFailuresFolder, judgeRun } from "./matrix.ts";
import { runs } from "./runs.ts";
import { renderRun } from "./table.ts";

let mesh: Mesh;
before(async () => {
  mesh = await startMesh(1);
});
after(() => mesh?.[Symbol.asyncDispose]());

for (const run of runs) {
  test(`${run.name}: no client or server can tell that there is a gateway`, async (t) => {
    const { outcome, unexpected, stale } = await judgeRun(mesh, run);
    const table = renderRun(run.name, outcome);
    for (const line of table.split("\n")) if (line.includes("scenarios, checks")) t.diagnostic(line.trim());
    assert.deepEqual({ unexpected, stale }, { unexpected: [], stale: [] }, table);
  });
}

test("each list of expected failures belongs to a run", () => {
  const files = runs.map(expectedFailuresFile);
  assert.deepEqual(
    readdirSync(expectedFailuresFolder).filter((file) => !files.includes(file)),
    [],
  );
});
