// What every bench measures and prints with.
import { readdir, readFile } from "node:fs/promises";

export const say = (line: string): void => void process.stdout.write(`${line}\n`);

export const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? 0;

/** User and system time of all threads of a process, microseconds. The scheduler counts in nanoseconds, `stat` in ticks of 10 ms. */
export async function cpuOf(pid: number): Promise<number> {
  const tasks = await readdir(`/proc/${pid}/task`);
  // A thread may end meanwhile.
  const times = await Promise.all(tasks.map((task) => readFile(`/proc/${pid}/task/${task}/schedstat`, "utf8").catch(() => "0")));
  return times.reduce((sum, text) => sum + Number(text.split(" ")[0]) / 1_000, 0);
}

/** A number with its bound; the bench fails when it is beyond. */
export function bound(what: string, value: number, wanted: { atLeast: number } | { atMost: number }, unit = ""): void {
  const isGood = "atLeast" in wanted ? value >= wanted.atLeast : value <= wanted.atMost;
  const text = "atLeast" in wanted ? `at least ${wanted.atLeast.toFixed(2)}` : `at most ${wanted.atMost.toFixed(2)}`;
  say(`${isGood ? "  good" : "  BAD "} ${what}: ${value.toFixed(3)}${unit}, ${text}${unit}`);
  if (!isGood) process.exitCode = 1;
}
