// Runs the official suite as a program and reads the checks that it wrote.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { type Finished, runProcess, temporaryDirectory } from "../support/processes.ts";

const home = join(import.meta.dirname, "../../node_modules/@modelcontextprotocol/conformance");
const program = join(home, "dist/index.js");
// A whole server run takes seconds; one that hangs in every scenario shall not hold up the rest for long.
const suiteMs = 120_000;
const scenarioMs = 15_000;

/** What the suite says about one thing it looked at. Several checks of a scenario may share an id. */
export interface Check {
  readonly id: string;
  readonly status: "SUCCESS" | "FAILURE" | "WARNING" | "SKIPPED" | "INFO";
  readonly errorMessage?: string;
}

export interface Scenario {
  readonly name: string;
  readonly checks: readonly Check[];
}

/** Runs server scenarios against `url`; `selection` are options of the suite. Throws when nothing ran. */
export async function judgeServer(url: string, selection: readonly string[]): Promise<Scenario[]> {
  await using directory = await temporaryDirectory();
  const args = [program, "server", "--url", url, ...selection, "--timeout", String(scenarioMs), "-o", directory.path];
  const finished = await runProcess(process.execPath, args, { ms: suiteMs });
  const scenarios = await readScenarios(directory.path);
  if (scenarios.length === 0) throw new Error(`the suite ran nothing: ${lastWords(finished)}`);
  return scenarios;
}

/** Runs one client scenario with `command`, which gets the URL of the suite's server as its last argument. */
export async function judgeClient(
  scenario: string,
  options: { readonly command: string; readonly revision: string; readonly env: Record<string, string> },
): Promise<Scenario> {
  await using directory = await temporaryDirectory();
  const { command, revision, env } = options;
  const selection = ["--scenario", scenario, "--spec-version", revision, "--timeout", String(scenarioMs)];
  const args = [program, "client", "--command", command, ...selection, "-o", directory.path];
  const finished = await runProcess(process.execPath, args, { ms: suiteMs, env });
  const checks = (await readScenarios(directory.path)).flatMap((found) => found.checks);
  const isExplained = finished.code === 0 || checks.some(({ status }) => status === "FAILURE" || status === "WARNING");
  const exit: Check = {
    id: "client-exits",
    status: "FAILURE",
    errorMessage: clientError(finished.stderr) ?? lastWords(finished),
  };
  return { name: scenario, checks: isExplained && checks.length > 0 ? checks : [...checks, exit] };
}

const requirements = z.object({ server: z.array(z.string()) });

/** Names of the server scenarios that `revision` requires; the suite runs others beside them, unscored. */
export async function requiredScenarios(revision: string): Promise<ReadonlySet<string>> {
  const text = await readFile(join(home, "requirements", `${revision}.yaml`), "utf8");
  return new Set(requirements.parse(parse(text)).server);
}

/** Each result is a folder `[server-]<scenario>-<time>` with a `checks.json`, unless the scenario did not end. */
async function readScenarios(directory: string): Promise<Scenario[]> {
  const folders = (await readdir(directory)).sort();
  return Promise.all(
    folders.map(async (folder) => ({
      name: folder.replace(/^server-/, "").replace(/-\d{4}-\d\d-\d\dT[\d-]+Z$/, ""),
      checks: await readChecks(join(directory, folder, "checks.json")),
    })),
  );
}

async function readChecks(path: string): Promise<Check[]> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as Check[];
  } catch (error) {
    // A scenario that throws, or is cut off with the suite, leaves its folder empty. That is never a pass.
    return [{ id: "scenario-ends", status: "FAILURE", errorMessage: `no checks were written (${(error as Error).name})` }];
  }
}

/** What the client that the suite started said about its end, when it said anything. */
const clientError = (output: string) => /^\w*Error: .*$/m.exec(output.slice(output.indexOf("Stderr:")))?.[0];

const lastWords = ({ code, stdout, stderr }: Finished) => `exit code ${code}: ${(stdout + stderr).trim().slice(-800)}`;
