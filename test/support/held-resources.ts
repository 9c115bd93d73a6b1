// What a running program holds: descriptors, sockets, watchers, timers and memory, as it says itself.
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { eventually } from "./eventually.ts";
import type { RunningProcess } from "./processes.ts";

export interface Held {
  readonly descriptors: number;
  readonly sockets: number;
  /** What keeps its event loop alive, by kind: `Timeout`, `FSEvent`, `TCPSocketWrap` and others. */
  readonly active: Readonly<Record<string, number>>;
  /** After a collection. */
  readonly heapBytes: number;
}

/** The environment of a program that is to say what it holds, into a file. */
export function reporting(file: string): Record<string, string> {
  return { NODE_OPTIONS: `--import=${join(import.meta.dirname, "report-resources.ts")}`, VMCP_TEST_RESOURCES: file };
}

export async function heldBy(program: RunningProcess, file: string): Promise<Held> {
  await rm(file, { force: true });
  program.kill("SIGUSR2");
  return eventually("it says what it holds", async () => {
    const text = await readFile(file, "utf8").catch(() => "");
    return text.endsWith("}") ? (JSON.parse(text) as Held) : undefined;
  });
}
