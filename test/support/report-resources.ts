// Loaded into a program under test (`--import`): on SIGUSR2 it writes what it holds to the file that VMCP_TEST_RESOURCES names.
import { readdirSync, readlinkSync, writeFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

process.on("SIGUSR2", () => {
  collect();
  const open = readdirSync("/proc/self/fd").map(targetOf);
  const active = Object.groupBy(process.getActiveResourcesInfo(), (kind) => kind);
  const held = {
    descriptors: open.length,
    sockets: open.filter((target) => target.startsWith("socket:")).length,
    active: Object.fromEntries(Object.entries(active).map(([kind, all]) => [kind, all?.length ?? 0])),
    heapBytes: process.memoryUsage().heapUsed,
  };
  writeFileSync(process.env.VMCP_TEST_RESOURCES as string, JSON.stringify(held));
});

function targetOf(descriptor: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`);
  } catch {
    return ""; // the one that reads the directory
  }
}
