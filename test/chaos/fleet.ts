// A whole mesh under nginx: a control plane, proxies that stop and come back on their ports, two backends that keep a ledger, and
// whatever Redis the sessions are in.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { startBackend } from "../support/backend.ts";
import { openRawSession } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type BackendEntry, createMemoryLedger, createWorkTool, type Ledger } from "../support/ledger.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";
import { type Nginx, startNginx } from "../support/nginx.ts";
import { lastingPort, type RunningVmcp, startVmcp } from "../support/processes.ts";
import { completeText, startStatelessBackend } from "../support/stateless-backend.ts";

export interface Fleet extends AsyncDisposable {
  /** Of the virtual server, behind nginx. */
  readonly url: string;
  readonly nginx: Nginx;
  readonly mesh: Mesh;
  readonly runs: Ledger<BackendEntry>;
  /** Of each proxy, in the order of their ports. */
  readonly proxies: readonly RunningVmcp[];
  /** The tool of each backend: one has sessions, the other has none. */
  readonly tools: readonly { readonly name: string; readonly backend: string }[];
  /** SIGTERM, and once it has ended another on the same port; settles when nginx sends it requests again. */
  restart(index: number): Promise<void>;
  /** SIGKILL, and another; settles the same. */
  replace(index: number): Promise<void>;
}

process.setMaxListeners(100); // each child that runs has one

const proxiesCount = 3;
const drainMs = 1_000;

/** `redis`: as the proxies are told. */
export async function startFleet(redis: string): Promise<Fleet> {
  await using stack = new AsyncDisposableStack();
  process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex"); // the proxies inherit it
  const runs = createMemoryLedger<BackendEntry>();
  const sessionful = createWorkTool({ ledger: runs, backend: "s" });
  const stateless = createWorkTool({ ledger: runs, backend: "m", result: completeText });
  const one = stack.use(await startBackend({ tools: [sessionful.tool], calls: { work: sessionful.call } }));
  const two = stack.use(await startStatelessBackend({ tools: [stateless.tool], calls: { work: stateless.call } }));
  const mesh = stack.use(await startMesh(0));
  const backends = [httpBackend("s", one.url), httpBackend("m", two.url)];
  const { code, stderr } = await mesh.apply([virtualServer("team", { backends })], "--no-wait");
  assert.equal(code, 0, stderr);

  const ports: number[] = [];
  for (let i = 0; i < proxiesCount; i++) ports.push(await lastingPort());
  const start = async (index: number): Promise<RunningVmcp> => {
    const where = ["--control-plane", mesh.controlPlane.adminAddress, "--port", String(ports[index]), "--redis", redis];
    const proxy = await startVmcp(["proxy", "--id", `proxy-${index}`, "--drain-delay", `${drainMs}ms`, ...where]);
    await eventually(`${proxy.address} lists both`, () => listsBoth(`${proxy.address}/team/mcp`), 20_000);
    return proxy;
  };
  const proxies = await Promise.all(ports.map((_, i) => start(i)));
  stack.defer(async () => void (await Promise.all(proxies.map((proxy) => proxy[Symbol.asyncDispose]()))));
  const nginx = stack.use(await startNginx(proxies.map(({ address }) => address)));

  async function again(index: number): Promise<void> {
    const proxy = await start(index);
    proxies[index] = proxy;
    await eventually("nginx sends it requests", () => nginx.ready().includes(proxy.address), 20_000);
    await sleep(200); // and has for a moment
  }

  const owned = stack.move();
  return {
    url: `${nginx.address}/team/mcp`,
    nginx,
    mesh,
    runs,
    proxies,
    tools: [
      { name: "s_work", backend: "s" },
      { name: "m_work", backend: "m" },
    ],
    async restart(index) {
      assert.equal(await proxies[index]?.stop(), 0);
      await again(index);
    },
    async replace(index) {
      proxies[index]?.kill("SIGKILL");
      await proxies[index]?.ended;
      await again(index);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function listsBoth(url: string): Promise<boolean> {
  const session = await openRawSession(url).catch(() => undefined);
  if (!session) return false;
  const tools = await session.result("tools/list");
  await session.delete();
  return tools.includes("s_work") && tools.includes("m_work");
}
