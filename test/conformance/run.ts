// The official conformance suite through a real gateway: `node test/conformance/run.ts [part of a run's name]`.
// Ends with 1 when something is worse than without the gateway, unless expected-failures/ says why it must be.
import { startMesh } from "../support/mesh.ts";
import { judgeRun } from "./matrix.ts";
import { runs } from "./runs.ts";
import { renderRun } from "./table.ts";

async function main(wanted: string): Promise<number> {
  const chosen = runs.filter(({ name }) => name.includes(wanted));
  if (chosen.length === 0) throw new Error(`no run is called "${wanted}"; there are: ${runs.map(({ name }) => name).join("; ")}`);
  await using mesh = await startMesh(1);
  let failures = 0;
  for (const run of chosen) {
    const { outcome, unexpected, stale } = await judgeRun(mesh, run);
    console.log(renderRun(run.name, outcome));
    for (const { scenario, check } of stale) console.log(`expected to fail, but passes: ${scenario}: ${check}\n`);
    console.log(
      `${unexpected.length} unexpected, ${outcome.losses.length - unexpected.length} expected, ${stale.length} stale\n`,
    );
    failures += unexpected.length + stale.length;
  }
  return failures > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv[2] ?? "");
