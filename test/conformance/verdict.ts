// Compares what the suite said through the gateway with what it said of the same servers without one.
import { parse } from "yaml";
import { z } from "zod";
import type { Check, Scenario } from "./suite.ts";

/** A check that came out worse behind the gateway. */
export interface Loss {
  readonly scenario: string;
  readonly check: string;
  readonly reason: string;
}

/** A loss that nothing can be done about; `why` says so. */
export interface ExpectedFailure {
  readonly scenario: string;
  readonly check: string;
  readonly why: string;
}

const expectedFailures = z.array(z.strictObject({ scenario: z.string(), check: z.string(), why: z.string().min(20) }));

/** Reads the list; throws when it is none, or when an entry has no reason worth the name. */
export const parseExpectedFailures = (text: string): ExpectedFailure[] => expectedFailures.parse(parse(text) ?? []);

/**
 * Everything that got worse. A warning or a missing check counts, because a client shall not be able to tell that it
 * talks to a gateway. So does what fails without the gateway: there the fixture is wrong, and nothing is proved.
 */
export function findLosses(direct: readonly Scenario[], through: readonly Scenario[]): Loss[] {
  return direct.flatMap((scenario) => {
    const checks = through.find(({ name }) => name === scenario.name)?.checks ?? [];
    return [...new Set([...scenario.checks, ...checks].map(({ id }) => id))].flatMap((id) => {
      const reason = compare(ofId(scenario.checks, id), ofId(checks, id));
      return reason === undefined ? [] : [{ scenario: scenario.name, check: id, reason }];
    });
  });
}

const ofId = (checks: readonly Check[], id: string) => checks.filter((check) => check.id === id);
const isBad = ({ status }: Check) => status === "FAILURE" || status === "WARNING";
const isGood = ({ status }: Check) => status === "SUCCESS";

function compare(direct: readonly Check[], through: readonly Check[]): string | undefined {
  const isFixtureBad = direct.some(isBad);
  const bad = (isFixtureBad ? direct : through).find(isBad);
  if (bad) {
    return `${isFixtureBad ? "without the gateway too: " : ""}${bad.errorMessage ?? `${bad.status} without a message`}`;
  }
  const [wanted, got] = [direct.filter(isGood).length, through.filter(isGood).length];
  if (got >= wanted) return undefined;
  const instead = through.find((check) => !isGood(check));
  return `passes ${wanted} times without the gateway, ${got} times with it${instead ? ` (${instead.status})` : ""}`;
}

/** Losses that nobody expected, and expectations that did not come true. */
export function judge(losses: readonly Loss[], expected: readonly ExpectedFailure[]) {
  const isSame = (a: Loss | ExpectedFailure, b: Loss | ExpectedFailure) => a.scenario === b.scenario && a.check === b.check;
  return {
    unexpected: losses.filter((loss) => !expected.some((entry) => isSame(entry, loss))),
    stale: expected.filter((entry) => !losses.some((loss) => isSame(entry, loss))),
  };
}
