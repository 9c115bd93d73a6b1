// One run of the suite: with the gateway and without, and what the difference is worth.
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Mesh } from "../support/mesh.ts";
import { startFixture } from "./fixture.ts";
import { expose, type GatewayAddress, waitForTools } from "./gateway.ts";
import type { ClientRun, Run, ServerRun } from "./runs.ts";
import { judgeClient, judgeServer, requiredScenarios, type Scenario } from "./suite.ts";
import type { Outcome } from "./table.ts";
import { type ExpectedFailure, findLosses, judge, type Loss, parseExpectedFailures } from "./verdict.ts";

/** What came of a run; losses that nobody expected, and expectations that did not come true. */
export interface Judgement {
  readonly outcome: Outcome;
  readonly unexpected: readonly Loss[];
  readonly stale: readonly ExpectedFailure[];
}

type Results = Pick<Outcome, "direct" | "through" | "required">;

/** Makes a run with the first proxy of a mesh. */
export async function judgeRun(mesh: Mesh, run: Run): Promise<Judgement> {
  const gateway = { admin: mesh.controlPlane.adminAddress, proxy: mesh.proxies[0]?.address ?? "" };
  const results = await (run.leg === "server" ? runServer(gateway, run) : runClient(gateway, run));
  const losses = findLosses(results.direct, results.through);
  return { outcome: { ...results, losses }, ...judge(losses, await expectedFailures(run)) };
}

export const expectedFailuresFolder = join(import.meta.dirname, "expected-failures");

/** Where a run's failures are listed, if it can't do without. */
export function expectedFailuresFile({ name }: Pick<Run, "name">): string {
  return `${slugOf(name)}.yaml`;
}

async function expectedFailures(run: Run): Promise<ExpectedFailure[]> {
  const path = join(expectedFailuresFolder, expectedFailuresFile(run));
  return existsSync(path) ? parseExpectedFailures(await readFile(path, "utf8")) : [];
}

function slugOf(name: string): string {
  return name.replace(/[^a-z0-9]+/g, "-");
}

async function runServer(gateway: GatewayAddress, run: ServerRun): Promise<Results> {
  const isRequired = run.scenarios === "required";
  const selection = isRequired ? ["--requirements", run.revision] : ["--suite", "all", "--spec-version", run.revision];
  const required = isRequired ? await requiredScenarios(run.revision) : undefined;
  await using fixture = await startFixture(run.eras);
  await using exposed = await expose(gateway, slugOf(run.name), fixture.url);
  await waitForTools(exposed.url);
  const through = await judgeServer(exposed.url, selection);
  return { direct: await referenceFor(selection), through, required };
}

const references = new Map<string, Promise<Scenario[]>>();

/** Whatever the gateway has behind it, it shall look like a server that speaks the client's revision. */
function referenceFor(selection: readonly string[]): Promise<Scenario[]> {
  const key = selection.join(" ");
  const known = references.get(key) ?? judgeReference(selection);
  references.set(key, known);
  return known;
}

async function judgeReference(selection: readonly string[]): Promise<Scenario[]> {
  await using reference = await startFixture("both");
  return await judgeServer(reference.url, selection);
}

async function runClient(gateway: GatewayAddress, { revision, scenarios, client }: ClientRun): Promise<Results> {
  const command = `${process.execPath} ${join(import.meta.dirname, "client-driver.ts")}`;
  const direct = { CLIENT_ERA: revision === "2026-07-28" ? "stateless" : "session" };
  const behind = { CLIENT_ERA: client, GATEWAY_ADMIN: gateway.admin, GATEWAY_PROXY: gateway.proxy };
  const results = { direct: [] as Scenario[], through: [] as Scenario[] };
  for (const scenario of scenarios) {
    results.direct.push(await judgeClient(scenario, { command, revision, env: direct }));
    results.through.push(await judgeClient(scenario, { command, revision, env: behind }));
  }
  return results;
}
