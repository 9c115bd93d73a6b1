// Two control planes on one PostgreSQL, a proxy behind each: what one commits reaches the proxies of the other, and what happens to
// proxies, clients and operators while the database is away.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, type SdkClient } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { type PostgresServer, startPostgres } from "../support/postgres.ts";
import { freePort, type RunningVmcp, runVmcpctl, startProcess, startVmcp, temporaryDirectory } from "../support/processes.ts";

const skip = await whyMissing("postgres", "postgresql");
const stack = new AsyncDisposableStack();
const planes: RunningVmcp[] = [];
const proxies: RunningVmcp[] = [];
let postgres: PostgresServer;
let store: string;
let backend: Backend;
let directory: Awaited<ReturnType<typeof temporaryDirectory>>;

before(async () => {
  if (skip !== false) return;
  const tools = ["hello", "more"].map((name) => plainTool(name));
  const calls = { hello: () => textResult("hello"), more: () => textResult("more") };
  backend = stack.use(await startBackend({ tools, calls }));
  postgres = stack.use(await startPostgres());
  store = postgres.freshUrl();
  directory = stack.use(await temporaryDirectory());
  for (const id of ["edge-1", "edge-2"]) {
    const plane = stack.use(await startVmcp(["control-plane", "--listen", "127.0.0.1:0", "--store", store]));
    planes.push(plane);
    proxies.push(stack.use(await startEdge(id, plane)));
  }
  assert.equal((await apply("one")).code, 0);
});
after(() => stack.disposeAsync());

test("what one control plane commits reaches the proxies of the other, under the same version", { skip }, async () => {
  await using client = await openClient(await endpointOf(proxies[1]));
  await eventually("its tool", async () => (await client.toolNames()).includes("one_hello"));
  const versions = await Promise.all([0, 1].map(async (at) => (await ctl(at, "version")).stdout));
  const [first, second] = versions.map((said) => /revision \d+, snapshot (\S+), store \S+/.exec(said)?.[0]);
  assert.ok(first);
  assert.equal(second, first);
});

test("one proxy of all watches the backend, and all have what it listed", { skip }, async () => {
  const statuses = async () => {
    const said = await Promise.all([0, 1].map(async (at) => JSON.parse((await ctl(at, "proxy", "status", "-o", "json")).stdout)));
    const rows = said.flatMap(({ proxies: all }) => all) as { node: { id: string }; backends?: { watched?: boolean }[] }[];
    return new Map(rows.map(({ node, backends }) => [node.id, backends?.[0]?.watched ?? false]));
  };
  await eventually("one watches", async () => [...(await statuses()).values()].filter((watched) => watched).length === 1, 20_000);
  const snapshots = await Promise.all([0, 1].map(async (at) => (await ctl(at, "get", "tools", "-o", "name")).stdout));
  assert.deepEqual(snapshots, Array(2).fill("one_hello\none_more\n"));
});

test("commits through both at once are all made, one after the other", { skip }, async () => {
  const applied = [0, 1].map(async (at) => {
    for (let turn = 0; turn < 4; turn += 1) {
      const path = await directory.write(`g${at}-${turn}.yaml`, `kind: Group\nname: g${at}-${turn}\n`);
      const { code, stderr } = await ctl(at, "apply", "--no-wait", "-f", path);
      assert.equal(code, 0, stderr);
    }
  });
  await Promise.all(applied);
  const listed = await Promise.all([0, 1].map(async (at) => (await ctl(at, "get", "groups", "-o", "name")).stdout));
  assert.equal(listed[0], listed[1]);
  assert.equal(listed[0]?.match(/groups\/g\d-\d/g)?.length, 8);
});

for (const [what, breakIt, mend] of [
  ["stops", () => postgres.stop(), () => postgres.start()],
  ["hangs", () => postgres.freeze(), () => postgres.thaw()],
] as const) {
  test(`while PostgreSQL ${what}, no call fails, proxies come and go, and changes are refused`, { skip }, async () => {
    await using client = await openClient(await endpointOf(proxies[0]));
    await eventually("its tool", async () => (await client.toolNames()).includes("one_hello"));
    await using calls = callOnAndOn(client);
    await breakIt();
    try {
      const refused = await apply("one", "more");
      assert.equal(refused.code, 69, refused.stderr);
      assert.match(refused.stderr, /the store can't be used at the moment, so nothing is read or changed; proxies keep/);
      const [, plane] = planes as [RunningVmcp, RunningVmcp];
      await using late = await startEdge(`late-${what}`, plane);
      await using lateClient = await openClient(await endpointOf(late));
      await eventually("it has the snapshot", async () => (await lateClient.toolNames()).includes("one_hello"));
      const status = await ctl(1, "proxy", "status");
      assert.match(status.stdout, new RegExp(`late-${what}.*SYNCED`));
    } finally {
      await mend();
    }
    const name = what === "stops" ? "two" : "three";
    await eventually("changes are taken again", async () => (await apply("one", name)).code === 0, 30_000);
    await using other = await openClient(await endpointOf(proxies[1]));
    await eventually("the other's proxy has it", async () => (await other.toolNames()).includes(`${name}_hello`), 10_000);
    const { made, failures } = await calls.end();
    assert.deepEqual(failures, []);
    assert.ok(made > 100, `${made} calls were made`);
    for (const { stderr } of planes) assert.equal(stderr().match(/PostgreSQL is away/g)?.length, what === "stops" ? 1 : 2);
  });
}

test("a control plane that is started while PostgreSQL is away waits for it, and serves nobody", { skip }, async () => {
  await postgres.stop();
  const port = await freePort();
  const args = ["cli/vmcp.ts", "control-plane", "--listen", `127.0.0.1:${port}`, "--store", store];
  await using plane = startProcess(process.execPath, args);
  try {
    await eventually("it says so", () => /the store does not answer; nobody is served until it does/.test(plane.stderr()));
    const { code, stderr } = await runVmcpctl(`127.0.0.1:${port}`, ["get", "groups"]);
    assert.equal(code, 69);
    assert.match(stderr, /no control plane answers/);
  } finally {
    await postgres.start();
  }
  await eventually("it serves", async () => (await runVmcpctl(`127.0.0.1:${port}`, ["get", "groups"])).code === 0, 20_000);
});

test("one that still waits ends when it is told to", { skip }, async () => {
  const args = ["cli/vmcp.ts", "control-plane", "--listen", "127.0.0.1:0", "--store", "postgres://127.0.0.1:1/mesh"];
  const plane = startProcess(process.execPath, args);
  await eventually("it waits", () => /the store does not answer/.test(plane.stderr()));
  assert.equal(await plane.stop(), 0);
});

test("one that runs ends when PostgreSQL hangs", { skip }, async () => {
  const plane = await startVmcp(["control-plane", "--listen", "127.0.0.1:0", "--store", store]);
  await postgres.freeze();
  try {
    assert.equal(await plane.stop(), 0);
  } finally {
    await postgres.thaw();
  }
});

test("the password is in no log and no answer", { skip }, async () => {
  const said = [...planes, ...proxies].map(({ stdout, stderr }) => stdout() + stderr()).join("");
  assert.match(said, /PostgreSQL is back/);
  assert.doesNotMatch(said, new RegExp(postgres.password));
});

const ctl = (at: number, ...args: string[]) => runVmcpctl(planes[at]?.adminAddress ?? "", args);

function startEdge(id: string, { adminAddress }: RunningVmcp): Promise<RunningVmcp> {
  return startVmcp(["proxy", "--id", id, "--control-plane", adminAddress, "--port", "0", "--drain-delay", "0s"], {
    isReady: false,
  });
}

/** One virtual server with backends of these names, through the first control plane. */
async function apply(...names: string[]) {
  const team = virtualServer("team", { backends: names.map((name) => httpBackend(name, backend.url)) });
  return ctl(0, "apply", "-f", await directory.write("team.yaml", JSON.stringify(team)));
}

async function endpointOf({ address } = { address: "" }): Promise<string> {
  await eventually(`${address} is ready`, async () => (await fetch(`${address}/readyz`)).status === 200);
  return `${address}/team/mcp`;
}

/** One call after the other, until told to end. */
function callOnAndOn(client: SdkClient) {
  const failures: string[] = [];
  let made = 0;
  let isOver = false;
  const calling = (async () => {
    for (; !isOver; made += 1) {
      await client.call("one_hello").then(
        (answer) => answer === "hello" || failures.push(answer),
        (error: Error) => failures.push(error.message),
      );
    }
  })();
  async function end() {
    isOver = true;
    await calling;
    return { made, failures };
  }
  return { end, [Symbol.asyncDispose]: async () => void (await end()) };
}
