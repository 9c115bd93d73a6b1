// What a second worker brings: calls a second of `vmcp proxy --workers 1` and `--workers 2`, in turns, under as many calls as they take, from
// wrk, in C. `npm run bench:workers -- [--rounds N] [--seconds N] [--part 0.2]`. Where load, server and others on the machine leave
// workers less than a processor each, it is the machine that is measured: so each worker gets only a part of a processor (a control
// group of Linux, for which one has to be root), and how much of the machine was idle shows that the rest did not lack any. `--part 1`
// measures without. Exits with 1 when a bound is broken.
import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { mcpHeaders, openRawSession } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { programPath } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { startMesh, workersOf } from "../support/mesh.ts";
import { type RunningVmcp, runProcess, startProcess, startVmcp, temporaryDirectory } from "../support/processes.ts";
import { bound, cpuOf, median, say } from "./measure.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "4" },
    part: { type: "string", default: "0.2" },
  },
});
const [rounds, seconds, part] = [Number(values.rounds), Number(values.seconds), Number(values.part)];
const connectionsEach = 32; // of each worker, in step with what a call costs

await using stack = new AsyncDisposableStack();
const wrk = await programPath("wrk", "wrk");
const directory = stack.use(await temporaryDirectory());
const canned = stack.use(startProcess(process.execPath, [join(import.meta.dirname, "canned-backend.ts"), "10"]));
await eventually("the server listens", async () => canned.stdout().includes("\n"));
const mesh = stack.use(await startMesh(0));
const backends = [httpBackend("one", `http://127.0.0.1:${canned.stdout().trim()}/mcp`)];
await mesh.apply([virtualServer("team", { backends })], "--no-wait");

interface Lane {
  readonly workers: number;
  readonly url: string;
  /** Those that serve, then the one that leads them, if there is one. */
  readonly pids: readonly number[];
  readonly script: string;
  readonly rounds: Round[];
}

interface Round {
  readonly callsPerSecond: number;
  /** Microseconds a call. */
  readonly serving: number;
  readonly leading: number;
  readonly load: number;
  readonly server: number;
  /** Part of all processors. */
  readonly idle: number;
  /** The most that one worker took, of what all took. */
  readonly mostOfOne: number;
}

async function laneOf(workers: number): Promise<Lane> {
  const flags = [
    "--id",
    `w${workers}`,
    "--workers",
    `${workers}`,
    "--port",
    "0",
    "--control-plane",
    mesh.controlPlane.adminAddress,
  ];
  const proxy: RunningVmcp = stack.use(await startVmcp(["proxy", ...flags, "--drain-delay", "0s"]));
  const url = `${proxy.address}/team/mcp`;
  await eventually("the tools are listed", async () => {
    const session = await openRawSession(url);
    return (await session.result("tools/list")).includes("one_small");
  });
  const sessions = await Promise.all(Array.from({ length: connectionsEach * workers }, () => openRawSession(url)));
  const script = await directory.write(`load-${workers}.lua`, loadScript(sessions.map(({ id }) => id)));
  const running = workers > 1 ? (await workersOf(proxy)).running.map(({ pid }) => pid) : [];
  for (const pid of workers > 1 ? running : [proxy.pid]) await limit(pid);
  return { workers, url, pids: [...running, proxy.pid], script, rounds: [] };
}

/** Gives a process `part` of a processor, until this program ends. */
async function limit(pid: number): Promise<void> {
  if (part >= 1) return;
  const group = `/sys/fs/cgroup/cpu/vmcp-bench-${pid}`;
  await mkdir(group);
  stack.defer(async () => {
    await writeFile("/sys/fs/cgroup/cpu/cgroup.procs", `${pid}`).catch(() => undefined); // it has ended
    await rmdir(group);
  });
  const periodMicroseconds = 20_000;
  await writeFile(`${group}/cpu.cfs_period_us`, `${periodMicroseconds}`);
  await writeFile(`${group}/cpu.cfs_quota_us`, `${Math.round(periodMicroseconds * part)}`);
  await writeFile(`${group}/cgroup.procs`, `${pid}`);
}

/** Every request with an id of its own, in one of the sessions. */
function loadScript(sessions: readonly string[]): string {
  const headers = { ...mcpHeaders, "mcp-protocol-version": "2025-11-25" };
  return `
    local ids = {${sessions.map((id) => `"${id}"`).join(",")}}
    local headers = {${Object.entries(headers)
      .map(([name, value]) => `["${name}"]="${value}"`)
      .join(",")}}
    local next = 0
    request = function()
      next = next + 1
      headers["mcp-session-id"] = ids[next % #ids + 1]
      local body = '{"jsonrpc":"2.0","id":' .. next .. ',"method":"tools/call","params":{"name":"one_small","arguments":{"text":"${"x".repeat(160)}"}}}'
      return wrk.format("POST", "/team/mcp", headers, body)
    end`;
}

async function measure({ url, pids, script, workers }: Lane): Promise<Round> {
  const cpu = () => Promise.all([...pids, canned.pid].map(cpuOf));
  const [before, idleBefore] = [await cpu(), await idleSeconds()];
  const startedMs = performance.now();
  const { origin } = new URL(url);
  // `times` of the shell is what wrk took, user and system.
  const command = `"$0" -t1 -c${connectionsEach * workers} -d${seconds}s -s "$1" "$2" && times`;
  const { stdout, code, stderr } = await runProcess("bash", ["-c", command, wrk, script, origin]);
  const tookSeconds = (performance.now() - startedMs) / 1_000;
  const [after, idleAfter] = [await cpu(), await idleSeconds()];
  const calls = Number(/(\d+) requests in/.exec(stdout)?.[1]);
  if (code !== 0 || !(calls > 0) || /Non-2xx|Socket errors/.test(stdout)) throw new Error(`the load failed: ${stdout}${stderr}`);
  const spent = after.map((one, i) => (one - (before[i] as number)) / calls);
  const server = spent.pop() as number;
  const leading = workers > 1 ? (spent.pop() as number) : 0;
  const serving = spent.reduce((sum, one) => sum + one, 0);
  return {
    callsPerSecond: calls / seconds,
    ...{ serving, leading, server },
    load: (secondsOf(stdout.trim().split("\n").at(-1) ?? "") / calls) * 1e6,
    idle: (idleAfter - idleBefore) / (tookSeconds * cpus().length),
    mostOfOne: Math.max(...spent) / serving,
  };
}

/** Of all processors, since the machine started. */
async function idleSeconds(): Promise<number> {
  const [, , , , idle] = (await readFile("/proc/stat", "utf8")).split(/\s+/);
  return Number(idle) / 100;
}

/** `0m1.234s 0m0.567s` → their sum. */
function secondsOf(times: string): number {
  return [...times.matchAll(/(\d+)m([\d.]+)s/g)].reduce((sum, [, minutes, rest]) => sum + Number(minutes) * 60 + Number(rest), 0);
}

const lanes = [await laneOf(1), await laneOf(2)];
for (const lane of lanes) await measure(lane); // warm
for (let round = 0; round < rounds; round++) for (const lane of lanes) lane.rounds.push(await measure(lane));

const [one, two] = lanes.map(({ rounds }) => {
  const of = (name: keyof Round) => median(rounds.map((round) => round[name]));
  const middle = {
    calls: of("callsPerSecond"),
    serving: of("serving"),
    leading: of("leading"),
    load: of("load"),
    server: of("server"),
  };
  return { ...middle, idle: of("idle"), mostOfOne: of("mostOfOne") };
}) as [Medians, Medians];
type Medians = Record<"calls" | "serving" | "leading" | "load" | "server" | "idle" | "mostOfOne", number>;

say("workers   calls/s   µs a call: serving, leading, load, server   idle   busiest worker's part");
for (const [workers, row] of [
  [1, one],
  [2, two],
] as const) {
  const micros = [row.serving, row.leading, row.load, row.server].map((value) => value.toFixed(0).padStart(7)).join("");
  const parts = [row.idle, row.mostOfOne].map((value) => `${(value * 100).toFixed(0)} %`.padStart(8)).join("");
  say(`${`${workers}`.padEnd(8)}${row.calls.toFixed(0).padStart(9)}   ${micros}   ${parts}`);
}
bound("calls of two workers, of one", two.calls / one.calls, { atLeast: 1.7 });
bound("what a call costs two workers and who leads them, of one", (two.serving + two.leading) / one.serving, { atMost: 1.15 });
