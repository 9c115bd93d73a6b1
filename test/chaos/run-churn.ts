// `npm run test:churn -- [--seconds N]`: three minutes of backends that join and leave, at full rate.
import { parseArgs } from "node:util";
import { churn } from "./churn.ts";

const { values } = parseArgs({ options: { seconds: { type: "string", default: "180" } } });
try {
  const seen = await churn({ seconds: Number(values.seconds), joinsPerMinute: 100, callsPerSecond: 200 });
  process.stdout.write(`✔ ${seen}\n`);
  process.exit(0);
} catch (error) {
  process.stdout.write(`✖ ${(error as Error).stack}\n`);
  process.exit(1);
}
