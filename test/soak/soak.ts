// A proxy under half a processor's load for long: memory that is in use after a collection stays flat once it is warm, and when everybody
// has left, nothing of them is left: connections, timers, listeners, sessions at the server.
import assert from "node:assert/strict";
import { readdir, readlink } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Inside, inspected, lookInside, type Memory } from "../support/inside.ts";
import { startMesh } from "../support/mesh.ts";
import { type RunningVmcp, startVmcp } from "../support/processes.ts";
import { startServer, startTraffic } from "./traffic.ts";

export interface SoakOptions {
  /** Of load; the first third is to warm up. */
  readonly ms: number;
  readonly samples: number;
  /** Growth from the end of the warm-up to the end, by the regression line, of the mean; undefined: only what is left at the end counts. */
  readonly growthMax?: { readonly heap: number; readonly resident: number } | undefined;
  readonly say: (line: string) => void;
}

const busy = 0.5;
const ttlSeconds = 4;
// The gateway's own, and that of callers without sessions, which is kept for ten minutes.
const sessionsKept = 2;
const megabyte = 1024 * 1024;

export async function soak({ ms, samples, growthMax, say }: SoakOptions): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const backend = stack.use(await startServer());
  const mesh = stack.use(await startMesh(0));
  const flags = ["--control-plane", mesh.controlPlane.adminAddress, "--port", "0", "--drain-delay", "0s"];
  await mesh.apply([virtualServer("team", { backends: [httpBackend("b", backend.url)] })], "--no-wait");
  const proxy = stack.use(await startVmcp(["proxy", "--session-ttl", `${ttlSeconds}s`, ...flags], { env: inspected }));
  using inside = await lookInside(proxy);
  const url = `${proxy.address}/team/mcp`;

  // A first round fills what is filled once: pools, caches, code.
  const load = async (roundMs: number, onSample?: (memory: Memory) => void): Promise<number> => {
    await using traffic = startTraffic({ url, pid: proxy.pid, busy, backend });
    for (let i = 0; i < samples; i++) {
      await sleep(roundMs / samples);
      onSample?.(await inside.memory());
    }
    const { operations, failures } = traffic.seen;
    assert.deepEqual(failures.slice(0, 5), [], `${failures.length} of ${operations} failed`);
    return operations;
  };
  await load(ms / 6);
  const before = await atRest(proxy, inside, backend.sessions);
  say(`at rest after a first round: ${shown(before.memory)}; ${JSON.stringify(before.held)}`);

  const seen: Memory[] = [];
  const operations = await load(ms, (memory) => {
    seen.push(memory);
    say(`${seen.length}/${samples}: ${shown(memory)}`);
  });
  const after = await atRest(proxy, inside, backend.sessions, before.held);
  say(`${operations} operations; at rest: ${shown(after.memory)}; ${JSON.stringify(after.held)}`);

  assert.ok(isNoMore(after.held, before.held), "what keeps the process alive, and who listens");
  const grown = after.memory.heapBytes - before.memory.heapBytes;
  assert.ok(
    grown <= Math.max(2 * megabyte, before.memory.heapBytes * 0.08),
    `${(grown / megabyte).toFixed(1)} MB of heap are left`,
  );
  assert.doesNotMatch(proxy.stderr(), /MaxListenersExceeded|something failed that nobody waited for/);
  if (!growthMax) return;
  const warm = seen.slice(Math.ceil(samples / 3));
  for (const [name, key] of [
    ["heap", "heapBytes"],
    ["resident", "residentBytes"],
  ] as const) {
    const part = growthOf(warm.map((memory) => memory[key]));
    say(
      `${name}: ${(part * 100).toFixed(2)} % from the end of the warm-up to the end, ${(growthMax[name] * 100).toFixed(0)} % at most`,
    );
    assert.ok(part <= growthMax[name], `${name} grew by ${(part * 100).toFixed(1)} %`);
  }
}

type Held = Awaited<ReturnType<Inside["held"]>>;

/** The same; of sockets fewer will do, since some were still idle the first time. */
function isNoMore({ sockets, ...held }: Held, { sockets: most, ...before }: Held): boolean {
  return JSON.stringify(held) === JSON.stringify(before) && (sockets ?? 0) <= (most ?? 0);
}

/** When everybody has left and what they left has gone: idle connections, sessions that nobody ended. `expected`: waits for that. */
async function atRest(
  proxy: RunningVmcp,
  inside: Inside,
  sessions: () => readonly unknown[],
  expected?: Held,
): Promise<{ memory: Memory; held: Held }> {
  const look = async () => ({ ...(await inside.held()), sockets: await socketsOf(proxy.pid) });
  await sleep((ttlSeconds + 2) * 1_000);
  let last = "";
  await eventually(
    "nothing is left of anybody",
    async () => {
      const text = JSON.stringify(await look());
      const isQuiet = text === last && sessions().length <= sessionsKept;
      last = text;
      await sleep(500);
      return isQuiet && (expected === undefined || isNoMore(JSON.parse(text) as Held, expected));
    },
    60_000,
  ).catch((error: Error) => {
    throw new Error(`${error.message}: ${last}, ${sessions().length} sessions; wanted ${JSON.stringify(expected)}`);
  });
  return { memory: await inside.memory(), held: await look() };
}

/** Open sockets of a process, ours for the inspector among them. */
async function socketsOf(pid: number): Promise<number> {
  const links = (await readdir(`/proc/${pid}/fd`)).map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => ""));
  return (await Promise.all(links)).filter((target) => target.startsWith("socket:")).length;
}

/** By the line of least squares: how much the last value is above the first, of the mean. */
function growthOf(values: readonly number[]): number {
  const n = values.length;
  const meanX = (n - 1) / 2;
  const meanY = values.reduce((sum, y) => sum + y, 0) / n;
  const covariance = values.reduce((sum, y, x) => sum + (x - meanX) * (y - meanY), 0);
  const variance = values.reduce((sum, _, x) => sum + (x - meanX) ** 2, 0);
  return ((covariance / variance) * (n - 1)) / meanY;
}

function shown({ heapBytes, residentBytes }: Memory): string {
  return `${(heapBytes / megabyte).toFixed(1)} MB of heap, ${(residentBytes / megabyte).toFixed(0)} MB resident`;
}
