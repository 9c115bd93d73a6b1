// The long chaos suite: `npm run test:chaos -- [--seed N] [--short] [part of a scenario's name]`. The last line says
// `N passed, N failed`.
import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { createRandom } from "./random.ts";
import { scenarios } from "./scenarios.ts";

const { values, positionals } = parseArgs({
  options: { seed: { type: "string" }, short: { type: "boolean", default: false } },
  allowPositionals: true,
});
const seed = values.seed === undefined ? randomInt(2 ** 31) : Number(values.seed);
process.stdout.write(`seed ${seed}\n`);
let failed = 0;
const chosen = scenarios.filter(({ name }) => name.includes(positionals[0] ?? ""));
for (const { name, run } of chosen) {
  const startedMs = performance.now();
  const seconds = () => `${Math.round((performance.now() - startedMs) / 1_000)} s`;
  try {
    const seen = await run(createRandom(seed), values.short ? "short" : "full");
    process.stdout.write(`✔ ${name}: ${seen} (${seconds()})\n`);
  } catch (error) {
    failed++;
    process.stdout.write(`✖ ${name} (${seconds()}, --seed ${seed}): ${(error as Error).stack}\n`);
  }
}
process.stdout.write(`${chosen.length - failed} passed, ${failed} failed\n`);
process.exit(failed === 0 && chosen.length > 0 ? 0 : 1);
