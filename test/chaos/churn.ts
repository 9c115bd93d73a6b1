// Backends join and leave all the time while others are called: nothing of the others may fail, and nothing may be left over.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, getGlobalDispatcher, setGlobalDispatcher } from "undici";
import { type Backend, counter, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession } from "../support/client.ts";
import { virtualServer } from "../support/config.ts";
import { type FakeContainer, type FakeDocker, fakeContainer, startDockerApi } from "../support/docker-api.ts";
import { eventually } from "../support/eventually.ts";
import { type Held, heldBy, reporting } from "../support/held-resources.ts";
import { runVmcpctl, startVmcp, temporaryDirectory } from "../support/processes.ts";
import { completeText, startStatelessBackend } from "../support/stateless-backend.ts";
import { startChurnLoad } from "./churn-load.ts";

export interface ChurnOptions {
  readonly seconds: number;
  /** As many joins and as many leaves. */
  readonly joinsPerMinute: number;
  readonly callsPerSecond: number;
}

const warmUpSeconds = 3;
const presentAtOnce = 4;
// Connections that are kept alive for a while, and what a timer of the moment may be.
const slack = 3;
// Three hundred backends that came and left took 25 MB when each of them held on to the one before it.
const heapGrowthMax = 6 * 1024 * 1024;
const settleMs = 30_000;

/** Gives a line of what was seen; throws when something did not hold. */
export async function churn({ seconds, joinsPerMinute, callsPerSecond }: ChurnOptions): Promise<string> {
  await using stack = new AsyncDisposableStack();
  process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex"); // the proxy inherits it
  const docker = stack.use(await startDockerApi());
  const directory = stack.use(await temporaryDirectory());
  const stable = await Promise.all([1, 2].map(async () => stack.use(await startBackend(counting))));
  const stateless = stack.use(
    await startStatelessBackend({ tools: [plainTool("say")], calls: { say: () => completeText("said") } }),
  );
  const pool = await Promise.all(Array.from({ length: 8 }, async () => stack.use(await startBackend(counting))));
  for (const [i, { port }] of [...stable, stateless].entries()) docker.start(containerOf(`stable${i}`, port));

  const where = (name: string) => `${directory.path}/${name}.json`;
  const listen = ["--listen", "127.0.0.1:0", "--data", ":memory:"];
  const plane = stack.use(
    await startVmcp(["control-plane", ...listen, "--discovery", "docker", "--docker-host", docker.address], {
      env: reporting(where("plane")),
    }),
  );
  const proxy = stack.use(
    await startVmcp(["proxy", "--id", "p", "--control-plane", plane.adminAddress, "--port", "0", "--drain-delay", "0s"], {
      env: reporting(where("proxy")),
      isReady: false,
    }),
  );
  await directory.write("team.yaml", JSON.stringify(virtualServer("team", { groupRef: "team", backends: [] })));
  const applied = await runVmcpctl(plane.adminAddress, ["apply", "-f", `${directory.path}/team.yaml`]);
  assert.equal(applied.code, 0, applied.stderr);
  const url = `${proxy.address}/team/mcp`;
  const lister = await openRawSession(url);
  await eventually("the stable ones are listed", async () => {
    const tools = await lister.result("tools/list");
    return ["stable0_counter", "stable1_counter", "stable2_say"].every((name) => tools.includes(name));
  });

  const churning = createChurning(docker, pool);
  const load = await startChurnLoad({ url, callsPerSecond });
  const measure = async () => ({
    plane: await heldBy(plane, where("plane")),
    proxy: await heldBy(proxy, where("proxy")),
  });
  async function round(forSeconds: number): Promise<void> {
    load.resume();
    await churning.run({ seconds: forSeconds, joinsPerMinute, onJoin: load.expect });
    await load.pause();
    await closeOwnConnections();
    await churning.clear();
    await eventually("all that came have left", async () => !(await lister.result("tools/list")).includes("guest"), settleMs);
    await eventually("their sessions are ended", () => pool.every((one) => one.sessions().length === 0), settleMs);
  }

  await round(warmUpSeconds);
  await sleep(5_000); // what is kept alive for a moment is closed
  const before = await measure();
  const sessionsBefore = stable.map((one) => one.sessions().length);
  load.reset();
  churning.reset();
  await round(seconds);
  let after = await measure();
  await eventually(
    "as little is held as before",
    async () => {
      after = await measure();
      if (isNoMore(after.plane, before.plane) && isNoMore(after.proxy, before.proxy)) return true;
      throw new Error(`${JSON.stringify(after)} instead of ${JSON.stringify(before)}`);
    },
    settleMs,
  );
  assert.deepEqual(
    stable.map((one) => one.sessions().length),
    sessionsBefore,
    "sessions of the stable ones",
  );
  load.check();
  const rate = Math.round(load.calls() / seconds);
  assert.ok(rate >= callsPerSecond * 0.9, `only ${rate} calls a second`);
  assert.ok(churning.joins() >= (seconds * joinsPerMinute * 0.9) / 60, `only ${churning.joins()} joins`);
  return [
    `${churning.joins()} joins and ${churning.leaves()} leaves in ${seconds} s, ${load.calls()} calls (${rate}/s) to the others, 0 failed`,
    load.summary(),
    `control plane ${grown(before.plane, after.plane)}`,
    `proxy ${grown(before.proxy, after.proxy)}`,
  ].join("; ");
}

const counting = { tools: [counter.tool, plainTool("where")], calls: { counter: counter.call, where: () => textResult("here") } };

function containerOf(name: string, port: number): FakeContainer {
  return fakeContainer(name, { "vmcp.enable": "true", "vmcp.group": "team" }, { publishedAs: port });
}

/** The clients' own, which would be kept alive for a minute: how many there are is chance. */
async function closeOwnConnections(): Promise<void> {
  const own = getGlobalDispatcher();
  setGlobalDispatcher(new Agent());
  await own.close();
}

/** Containers that come and go, each under a name of its own. */
function createChurning(docker: FakeDocker, pool: readonly Backend[]) {
  const present: FakeContainer[] = [];
  let count = 0;
  let joins = 0;
  let leaves = 0;

  function leave(): void {
    const oldest = present.shift();
    if (!oldest) return;
    docker.destroy(oldest);
    leaves++;
  }

  return {
    joins: () => joins,
    leaves: () => leaves,
    reset() {
      joins = 0;
      leaves = 0;
    },
    async run({ seconds, joinsPerMinute, onJoin }: { seconds: number; joinsPerMinute: number; onJoin: (name: string) => void }) {
      const startedMs = performance.now();
      for (let turn = 0; performance.now() - startedMs < seconds * 1_000; turn++) {
        const { port } = pool[count++ % pool.length] as Backend;
        present.push(docker.start(containerOf(`guest${count}`, port)));
        joins++;
        onJoin(`guest${count}`);
        if (present.length > presentAtOnce) leave();
        await sleep(Math.max(0, startedMs + ((turn + 1) * 60_000) / joinsPerMinute - performance.now()));
      }
    },
    async clear() {
      // One by one: a loss of many at once would be doubted first.
      for (; present.length > 0; leave()) await sleep(300);
    },
  };
}

function isNoMore(after: Held, before: Held): boolean {
  const kinds = Object.keys(after.active);
  return (
    after.descriptors <= before.descriptors + slack &&
    after.sockets <= before.sockets + slack &&
    kinds.every((kind) => (after.active[kind] ?? 0) <= (before.active[kind] ?? 0) + slack) &&
    after.heapBytes <= before.heapBytes + heapGrowthMax
  );
}

function grown(before: Held, after: Held): string {
  const timers = ({ active }: Held) => active.Timeout ?? 0;
  const heap = ({ heapBytes }: Held) => (heapBytes / 1024 / 1024).toFixed(1);
  const change = (of: (held: Held) => number | string) => `${of(before)} → ${of(after)}`;
  return [
    `descriptors ${change((held) => held.descriptors)}`,
    `sockets ${change((held) => held.sockets)}`,
    `timers ${change(timers)}`,
    `heap ${change(heap)} MB`,
  ].join(", ");
}
