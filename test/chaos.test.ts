// A short round of every chaos scenario. The long ones: `npm run test:chaos`.
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { createRandom } from "./chaos/random.ts";
import { scenarios } from "./chaos/scenarios.ts";
import { whyMissing } from "./support/debian.ts";

const skip = (await whyMissing("redis-server", "redis-server")) || (await whyMissing("nginx", "nginx"));
const seed = Number(process.env.CHAOS_SEED ?? randomInt(2 ** 31));

for (const { name, run } of scenarios)
  test(`chaos: ${name}`, { skip }, async (t) => {
    t.diagnostic(`seed ${seed}`);
    t.diagnostic(await run(createRandom(seed), "short"));
  });
