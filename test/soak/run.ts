// `npm run test:soak`: ten minutes of mixed traffic at half a processor; VMCP_SOAK_SECONDS makes it shorter or longer.
import { soak } from "./soak.ts";

const seconds = Number(process.env.VMCP_SOAK_SECONDS || 600);
try {
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  await soak({ ms: seconds * 1_000, samples: 40, growthMax: { heap: 0.05, resident: 0.1 }, say });
  process.stdout.write("✔ flat\n");
  process.exit(0);
} catch (error) {
  process.stdout.write(`✖ ${(error as Error).stack}\n`);
  process.exit(1);
}
