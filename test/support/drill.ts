// What drills are made on: control planes and proxies as processes, nginx in front of the proxies, and clients that call through it
// without a pause. Whatever a drill does to the control planes, no call may fail.
import { setTimeout as sleep } from "node:timers/promises";
import { httpBackend, virtualServer } from "./config.ts";
import { eventually } from "./eventually.ts";
import { type Nginx, startNginx } from "./nginx.ts";
import { type Finished, lastingPort, type RunningVmcp, runVmcpctl, startVmcp, temporaryDirectory } from "./processes.ts";
import { completeText, startStatelessBackend } from "./stateless-backend.ts";
import { callTool } from "./stateless-client.ts";

export interface DrillOptions {
  /** Default 2. */
  readonly proxies?: number;
  /** Flags of each control plane but its address. Default: one, over a file of its own. */
  readonly controlPlanes?: readonly (readonly string[])[];
  /** Environment of a proxy, by its place. */
  readonly env?: (proxy: number) => Record<string, string>;
}

export interface Drill extends AsyncDisposable {
  /** Where each control plane is, or will be again. */
  readonly planes: readonly DrilledPlane[];
  readonly proxies: readonly DrilledProxy[];
  /** `vmcpctl` with the first control plane that runs. */
  ctl(...args: string[]): Promise<Finished>;
  /** `vmcpctl apply` of the virtual server with these backends besides the one that clients call, and other parts. */
  apply(backends?: readonly object[], parts?: Readonly<Record<string, unknown>>): Promise<Finished>;
  /** Runs until every proxy is in a state, as `vmcpctl proxy status` of the control plane says that it follows. */
  all(state: string, ms?: number): Promise<void>;
  /** Ends the calls; gives how many there were, and what became of those that failed. */
  stop(): Promise<{ readonly calls: number; readonly failed: readonly string[] }>;
}

interface DrilledPlane {
  readonly address: string;
  readonly process: RunningVmcp;
  readonly isRunning: boolean;
  /** SIGKILL. */
  kill(): Promise<void>;
  start(): Promise<void>;
}

interface DrilledProxy {
  readonly id: string;
  readonly process: RunningVmcp;
  /** What `/status` says of its configuration. */
  config(): Promise<{ readonly source: string; readonly control_plane?: string; readonly age_seconds: number }>;
  /** SIGTERM, and once it has ended the same again. Gives how long it took from its start to ready, milliseconds. */
  restart(): Promise<number>;
}

const clientCount = 4;

/** Everything runs, the proxies are SYNCED, and clients call. */
export async function startDrill(options: DrillOptions = {}): Promise<Drill> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const calls = { echo: () => completeText("here") };
  const tool = JSON.stringify({ name: "echo", inputSchema: { type: "object" } });
  const backend = stack.use(await startStatelessBackend({ tools: [tool], calls }));
  const planes: DrilledPlane[] = [];
  for (const flags of options.controlPlanes ?? [["--data", `${directory.path}/vmcp.db`]])
    planes.push(await startPlane(["control-plane", "--listen", `127.0.0.1:${await lastingPort()}`, ...flags], stack));
  const running = () => planes.filter(({ isRunning }) => isRunning);
  const ctl = (...args: string[]) => runVmcpctl((running()[0] ?? planes[0])?.address as string, args);
  let applied = 0;

  async function apply(more: readonly object[] = [], parts: Readonly<Record<string, unknown>> = {}): Promise<Finished> {
    const document = virtualServer("team", { ...parts, backends: [httpBackend("b", backend.url), ...more] });
    return ctl("apply", "-f", await directory.write(`apply-${++applied}.yaml`, JSON.stringify(document)));
  }

  const declared = await apply();
  if (declared.code !== 0) throw new Error(declared.stderr);
  const addresses = planes.map(({ address }) => address);
  const proxies: DrilledProxy[] = [];
  for (let at = 0; at < (options.proxies ?? 2); at++) {
    const id = `proxy-${at + 1}`;
    const where = [
      "--control-plane",
      ...addresses,
      "--port",
      String(await lastingPort()),
      "--state-dir",
      `${directory.path}/${id}`,
    ];
    proxies.push(await startDrilledProxy(id, { where, env: options.env?.(at) ?? {}, stack }));
  }
  const nginx = stack.use(await startNginx(proxies.map(({ process }) => process.address)));
  const load = startCalls(`${nginx.address}/team/mcp`);
  stack.defer(async () => void (await load.stop()));

  async function all(state: string, ms = 10_000): Promise<void> {
    const isIn = new RegExp(` ${state} `);
    await eventually(
      `every proxy is ${state}`,
      async () => {
        const said = await Promise.all(running().map(({ address }) => runVmcpctl(address, ["proxy", "status"])));
        const lines = said.flatMap(({ stdout }) => stdout.trim().split("\n").slice(1));
        return proxies.every(({ id }) => lines.some((line) => line.startsWith(`${id} `) && isIn.test(line)));
      },
      ms,
    );
  }

  await all("SYNCED");
  await callsGoThrough(nginx, load, proxies);
  const owned = stack.move();
  return { planes, proxies, ctl, apply, all, stop: load.stop, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function startPlane(args: readonly string[], stack: AsyncDisposableStack): Promise<DrilledPlane> {
  let running = await startVmcp(args);
  let isRunning = true;
  stack.defer(async () => void (await running.stop()));
  return {
    address: running.adminAddress,
    get isRunning() {
      return isRunning;
    },
    get process() {
      return running;
    },
    async kill() {
      isRunning = false;
      running.kill("SIGKILL");
      await running.ended;
    },
    async start() {
      running = await startVmcp(args);
      isRunning = true;
    },
  };
}

interface ProxyNeeds {
  readonly where: readonly string[];
  readonly env: Record<string, string>;
  readonly stack: AsyncDisposableStack;
}

async function startDrilledProxy(id: string, { where, env, stack }: ProxyNeeds): Promise<DrilledProxy> {
  const start = () => startVmcp(["proxy", "--id", id, "--drain-delay", "1s", ...where], { env });
  let running = await start();
  stack.defer(async () => void (await running.stop()));
  return {
    id,
    get process() {
      return running;
    },
    async config() {
      const status = (await (await fetch(`${running.address}/status`)).json()) as { config: never };
      return status.config;
    },
    async restart() {
      await running.stop();
      const startedMs = performance.now();
      running = await start();
      return performance.now() - startedMs;
    },
  };
}

interface Calls {
  count(): number;
  stop(): Promise<{ readonly calls: number; readonly failed: readonly string[] }>;
}

function startCalls(url: string): Calls {
  const failed: string[] = [];
  let count = 0;
  let isStopped = false;
  const running = Array.from({ length: clientCount }, async () => {
    while (!isStopped) {
      const answer = await callTool(url, "b_echo").catch((error: unknown) => ({ text: "", status: 0, body: String(error) }));
      count += 1;
      if (answer.text !== "here") failed.push(`${answer.status} ${answer.body.slice(0, 200)}`);
      await sleep(5);
    }
  });
  return {
    count: () => count,
    async stop() {
      isStopped = true;
      await Promise.all(running);
      return { calls: count, failed };
    },
  };
}

/** Before anything is done to anybody. */
async function callsGoThrough(nginx: Nginx, load: Calls, proxies: readonly DrilledProxy[]): Promise<void> {
  await eventually("nginx has all proxies", () => nginx.ready().length === proxies.length);
  const before = load.count();
  await eventually("calls go through", () => load.count() > before + 20);
}
