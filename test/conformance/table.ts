// How a run is shown: a line per scenario with its checks, without the gateway and through it.
import type { Scenario } from "./suite.ts";
import type { Loss } from "./verdict.ts";

export interface Outcome {
  readonly direct: readonly Scenario[];
  readonly through: readonly Scenario[];
  readonly losses: readonly Loss[];
  /** Scenarios that the revision requires; undefined when the suite keeps no score. */
  readonly required?: ReadonlySet<string> | undefined;
}

/** The table of one run, ending in its totals. */
export function renderRun(run: string, outcome: Outcome): string {
  const { direct, through, losses, required } = outcome;
  const width = Math.max(...direct.map(({ name }) => name.length));
  const lines = direct.map(({ name, checks }) => {
    const lost = losses.filter(({ scenario }) => scenario === name);
    const mark = lost.length > 0 ? "✗" : "✓";
    const counts = `${countPassed(checksOf(through, name)).padStart(7)} ${countPassed(checks).padStart(10)}`;
    return [`  ${mark} ${name.padEnd(width)} ${counts}`, ...lost.map(({ check, reason }) => `      ${check}: ${reason}`)].join(
      "\n",
    );
  });
  const isScored = ({ name }: Scenario) => required?.has(name) ?? true;
  const rest = direct.filter((scenario) => !isScored(scenario));
  return [
    run,
    `    ${"scenario".padEnd(width)} ${"gateway".padStart(7)} no gateway`,
    ...lines,
    `  ${required ? "scored: " : ""}${total(direct.filter(isScored), outcome)}`,
    ...(rest.length > 0 ? [`  unscored: ${total(rest, outcome)}`] : []),
    "",
  ].join("\n");
}

function total(scenarios: readonly Scenario[], { through, losses }: Outcome): string {
  const names = new Set(scenarios.map(({ name }) => name));
  const passed = scenarios.filter(({ name }) => losses.every(({ scenario }) => scenario !== name)).length;
  const checks = countPassed(through.filter(({ name }) => names.has(name)).flatMap((scenario) => scenario.checks));
  const wanted = countPassed(scenarios.flatMap((scenario) => scenario.checks));
  return `${passed}/${scenarios.length} scenarios, checks ${checks} through the gateway, ${wanted} without`;
}

const checksOf = (scenarios: readonly Scenario[], wanted: string) => scenarios.find(({ name }) => name === wanted)?.checks ?? [];

/** Checks passed of checks that came to a verdict; remarks and skipped ones are neither. */
function countPassed(checks: Scenario["checks"]): string {
  const of = (...statuses: string[]) => checks.filter(({ status }) => statuses.includes(status)).length;
  return `${of("SUCCESS")}/${of("SUCCESS", "FAILURE", "WARNING")}`;
}
