// The official conformance suite through a real gateway: `node test/conformance/run.ts [part of a run's name]`.
// Ends with 1 when something is worse than without the gateway, unless expected-failures.yaml says why it must be.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { startMesh } from "../support/mesh.ts";
import { startFixture } from "./fixture.ts";
import { expose, type GatewayAddress, waitForTools } from "./gateway.ts";
import { type ClientRun, runs, type ServerRun } from "./runs.ts";
import { judgeClient, judgeServer, requiredScenarios, type Scenario } from "./suite.ts";
import { type Outcome, renderRun } from "./table.ts";
import { findLosses, judge, type Loss, parseExpectedFailures } from "./verdict.ts";

type Results = Pick<Outcome, "direct" | "through" | "required">;

// The fixture serves no tasks, so these say nothing about the gateway.
const isAboutTasks = ({ name }: Scenario) => name.startsWith("tasks-");

async function runServer(gateway: GatewayAddress, run: ServerRun): Promise<Results> {
  const isRequired = run.scenarios === "required";
  const selection = isRequired ? ["--requirements", run.revision] : ["--suite", "all", "--spec-version", run.revision];
  const required = isRequired ? await requiredScenarios(run.revision) : undefined;
  // Whatever the gateway has behind it, it shall look like a server that speaks the client's revision.
  await using reference = await startFixture("both");
  await using fixture = await startFixture(run.eras);
  await using exposed = await expose(gateway, run.name.replace(/[^a-z0-9]+/g, "-"), fixture.url);
  await waitForTools(exposed.url);
  const [direct, through] = [await judgeServer(reference.url, selection), await judgeServer(exposed.url, selection)];
  return { direct: direct.filter((scenario) => !isAboutTasks(scenario)), through, required };
}

async function runClient(gateway: GatewayAddress, { revision, scenarios }: ClientRun): Promise<Results> {
  const command = `${process.execPath} ${join(import.meta.dirname, "client-driver.ts")}`;
  const behind = { GATEWAY_ADMIN: gateway.admin, GATEWAY_PROXY: gateway.proxy };
  const results = { direct: [] as Scenario[], through: [] as Scenario[] };
  for (const scenario of scenarios) {
    results.direct.push(await judgeClient(scenario, { command, revision, env: {} }));
    results.through.push(await judgeClient(scenario, { command, revision, env: behind }));
  }
  return results;
}

async function main(wanted: string | undefined): Promise<number> {
  const chosen = runs.filter(({ name, isLater }) => (wanted === undefined ? !isLater : name.includes(wanted)));
  if (chosen.length === 0) throw new Error(`no run is called "${wanted}"; there are: ${runs.map(({ name }) => name).join("; ")}`);
  const listed = parseExpectedFailures(await readFile(join(import.meta.dirname, "expected-failures.yaml"), "utf8"));
  // An entry for a run that does not exist can never come true; it must not hide behind a choice of runs.
  const expected = listed.filter(({ run }) => chosen.some(({ name }) => name === run) || runs.every(({ name }) => name !== run));
  await using mesh = await startMesh(1);
  const gateway = { admin: mesh.controlPlane.adminAddress, proxy: mesh.proxies[0]?.address ?? "" };
  const losses: Loss[] = [];
  for (const run of chosen) {
    const results = await (run.leg === "server" ? runServer(gateway, run) : runClient(gateway, run));
    const lost = findLosses(run.name, results.direct, results.through);
    losses.push(...lost);
    console.log(renderRun(run.name, { ...results, losses: lost }));
  }
  const { unexpected, stale } = judge(losses, expected);
  for (const { run, scenario, check } of stale) console.log(`expected to fail, but passes: ${run}: ${scenario}: ${check}`);
  console.log(`${unexpected.length} unexpected, ${losses.length - unexpected.length} expected, ${stale.length} stale`);
  return unexpected.length + stale.length > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv[2]);
