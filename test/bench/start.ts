// How long `vmcp proxy` takes from exec to ready, when it has only its disk: with what an earlier start compiled, without it, and with two
// workers; and what `vmcpctl --help` takes. `npm run bench:start -- [--rounds N]`. Time on the clock, of the processor, and until all modules of
// the proxy were loaded. The least of the rounds is what counts: whatever else runs here only adds to it. Exits with 1 when a bound is broken.
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { startMesh } from "../support/mesh.ts";
import { freePort, runProcess, startProcess, startVmcp, temporaryDirectory } from "../support/processes.ts";
import { bound, cpuOf, median, say } from "./measure.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "9" } } });
const rounds = Number(values.rounds);
const root = join(import.meta.dirname, "../..");
const readyMsMax = 1_000;
const helpMsMax = 200;

await using stack = new AsyncDisposableStack();
const [state, cache] = [stack.use(await temporaryDirectory()), stack.use(await temporaryDirectory())];

/** Leaves a snapshot on disk, and what the start compiled. */
async function prepare(): Promise<void> {
  await using backend = await startBackend({ tools: [plainTool("echo")], calls: { echo: () => textResult("hello") } });
  await using mesh = await startMesh(0);
  const backends = Array.from({ length: 5 }, (_, i) => httpBackend(`b${i}`, backend.url));
  await mesh.apply([virtualServer("team", { backends })], "--no-wait");
  const flags = [
    "--state-dir",
    state.path,
    "--port",
    "0",
    "--control-plane",
    mesh.controlPlane.adminAddress,
    "--drain-delay",
    "0s",
  ];
  await using _proxy = await startVmcp(["proxy", ...flags], { env: { XDG_CACHE_HOME: cache.path } });
}

interface Start {
  readonly readyMs: number;
  readonly cpuMs: number;
  readonly modulesMs: number;
}

async function startOnce(env: Record<string, string>, ...more: string[]): Promise<Start> {
  const port = await freePort();
  const flags = ["--state-dir", state.path, "--port", `${port}`, "--control-plane", `127.0.0.1:${nobody}`, "--drain-delay", "0s"];
  const startedMs = performance.now();
  await using child = startProcess(process.execPath, [join(root, "cli/vmcp.ts"), "proxy", ...flags, ...more], { env });
  while (!(await isReady(port))) {
    await sleep(4);
    if (performance.now() - startedMs > 20_000) throw new Error(`it is not ready: ${child.stderr()}`);
  }
  const readyMs = performance.now() - startedMs;
  const cpuMs = (await cpuOf(child.pid)) / 1_000;
  const modulesMs = Number(/"modulesMilliseconds":(\d+)/.exec(child.stderr())?.[1]);
  return { readyMs, cpuMs, modulesMs };
}

async function isReady(port: number): Promise<boolean> {
  return fetch(`http://127.0.0.1:${port}/readyz`).then(
    ({ status }) => status === 200,
    () => false,
  );
}

async function help(): Promise<number> {
  const startedMs = performance.now();
  await runProcess(process.execPath, [join(root, "cli/vmcpctl.ts"), "--help"], { env: warm });
  return performance.now() - startedMs;
}

const warm = { XDG_CACHE_HOME: cache.path };
const cold = { NODE_DISABLE_COMPILE_CACHE: "1" };
const nobody = await freePort();
await prepare();
await help();

const rows = { "with what was compiled before": [] as Start[], without: [] as Start[], "with two workers": [] as Start[] };
const helps: number[] = [];
for (let round = 0; round < rounds; round++) {
  rows["with what was compiled before"].push(await startOnce(warm));
  rows.without.push(await startOnce(cold));
  rows["with two workers"].push(await startOnce(warm, "--workers", "2"));
  helps.push(await help());
}
say(`${"ms, least (median)".padEnd(32)}${["ready", "processor", "modules"].map((name) => name.padStart(16)).join("")}`);
for (const [name, starts] of Object.entries(rows)) {
  const cells = (["readyMs", "cpuMs", "modulesMs"] as const).map((key) => {
    const all = starts.map((start) => start[key]);
    return `${Math.min(...all).toFixed(0)} (${median(all).toFixed(0)})`.padStart(16);
  });
  say(`${name.padEnd(32)}${cells.join("")}`);
}
say(`${"vmcpctl --help".padEnd(32)}${`${Math.min(...helps).toFixed(0)} (${median(helps).toFixed(0)})`.padStart(16)}`);
const { stdout: bare } = await runProcess(process.execPath, ["-p", "Math.round(performance.now())"]);
say(`of that, Node by itself: ${bare.trim()}`);
const least = (starts: readonly Start[]): number => Math.min(...starts.map(({ readyMs }) => readyMs));
bound("from exec to ready, from disk", least(rows["with what was compiled before"]), { atMost: readyMsMax }, " ms");
bound("vmcpctl --help", Math.min(...helps), { atMost: helpMsMax }, " ms");
