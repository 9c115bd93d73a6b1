// Two control planes on one PostgreSQL, each with proxies of its own: each shows all of them, also those that nobody hears from. And one
// control plane that comes back without its proxies.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { connectFakeProxy } from "../../control-plane/push/fake-proxy.ts";
import { NackReason } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { startPostgres } from "../support/postgres.ts";
import { lastingPort, type RunningVmcp, runVmcpctl, startVmcp, temporaryDirectory } from "../support/processes.ts";

const skip = await whyMissing("postgres", "postgresql");
const stack = new AsyncDisposableStack();
const planes: Record<string, RunningVmcp> = {};
const proxies: Record<string, RunningVmcp> = {};
let store: string;
let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let url: string;

before(async () => {
  if (skip !== false) return;
  const calls = { hello: () => textResult("hello") };
  url = stack.use(await startBackend({ tools: [plainTool("hello")], calls })).url;
  store = stack.use(await startPostgres()).freshUrl();
  directory = stack.use(await temporaryDirectory());
  await Promise.all(["cp-a", "cp-b"].map(startPlane));
  proxies["edge-1"] = await startEdge("edge-1", ["cp-a"]);
  proxies["edge-2"] = await startEdge("edge-2", ["cp-b"]);
  const { code, stderr } = await apply("cp-a", "one");
  assert.equal(code, 0, stderr);
  assert.match(stderr, /2\/2 proxies acknowledged/, "also the one that another control plane has");
});
after(() => stack.disposeAsync());

test("each control plane shows the proxies of both, and which of them has each", { skip }, async () => {
  for (const at of ["cp-a", "cp-b"]) {
    await showsEventually(at, /^edge-1 .* SYNCED .* cp-a +\S+\nedge-2 .* SYNCED .* cp-b +\S+\n$/m);
    const { proxies: rows, controlPlanes } = JSON.parse((await ctl(at, "proxy", "status", "-o", "json")).stdout);
    assert.deepEqual(
      rows.map(({ node, controlPlane }: Row) => [node.id, controlPlane]),
      [
        ["edge-1", "cp-a"],
        ["edge-2", "cp-b"],
      ],
    );
    assert.deepEqual(controlPlanes.map(({ id, live }: Plane) => [id, live]).sort(), [
      ["cp-a", true],
      ["cp-b", true],
    ]);
    assert.equal(controlPlanes[0].id, at);
    const { stdout } = await ctl(at, "rollout", "status");
    assert.match(stdout, /^\S+ +COMPLETE +2\/2 /m);
  }
});

test("sessions are listed of the proxies of both", { skip }, async () => {
  const opened = await Promise.all(["edge-1", "edge-2"].map((id) => openClient(`${proxies[id]?.address}/team/mcp`)));
  for (const at of ["cp-a", "cp-b"]) {
    const { code, stdout, stderr } = await ctl(at, "session", "list");
    assert.deepEqual([code, stderr], [0, ""]);
    assert.deepEqual([...stdout.matchAll(/ (edge-\d)$/gm)].map(([, id]) => id).sort(), ["edge-1", "edge-2"]);
  }
  for (const client of opened) await client[Symbol.asyncDispose]();
});

test("what a proxy of one refuses goes no further on the other, until there is another revision", { skip }, async () => {
  // The first by name is tried first; it refuses whatever is new to it.
  using refuser = connectFakeProxy(addressOf("cp-a"), "a-refuser");
  refuser.hello();
  refuser.ack(await refuser.next());
  await eventually("it is known", async () => /^a-refuser .*SYNCED/m.test((await ctl("cp-b", "proxy", "status")).stdout));
  // On the other control plane nobody answers before the refusal is known.
  using silent = connectFakeProxy(addressOf("cp-b"), "a-silent");
  silent.hello();
  silent.ack(await silent.next());
  const applying = apply("cp-a", "two");
  const tried = await silent.next();
  refuser.nack(await refuser.next(), { reason: NackReason.INVALID_RESOURCE });
  await eventually("the other control plane says so", async () => {
    return /HALTED/.test((await ctl("cp-b", "rollout", "status")).stdout);
  });
  silent.ack(tried);
  const { code, stderr } = await applying;
  assert.equal(code, 1, stderr);
  assert.match(stderr, /a-refuser refused/);
  const held = await ctl("cp-b", "proxy", "status");
  assert.match(held.stdout, /^edge-1 .* HELD .* cp-a /m);
  assert.match(held.stdout, /^edge-2 .* HELD .* cp-b /m);
  const rollout = await ctl("cp-b", "rollout", "status", "-o", "json");
  assert.match(JSON.parse(rollout.stdout).reason, /^a-refuser refused r\d+-/);
  assert.equal((await ctl("cp-b", "proxy", "status", "--fail-on", "nacked")).code, 79);
  refuser.leave();
  silent.leave();
  await eventually("another revision goes to all", async () => (await apply("cp-b", "three")).code === 0);
});

test("drained at any control plane, a proxy turns unready, ends streams, goes on with sessions; undone it is ready", {
  skip,
}, async () => {
  const edge = proxies["edge-2"] as RunningVmcp;
  await using client = await openClient(`${edge.address}/team/mcp`);
  assert.equal(await client.call("b_hello"), "hello");
  const drained = await ctl("cp-a", "proxy", "drain", "edge-2", "--reason", "a new disk");
  assert.deepEqual([drained.code, drained.stdout], [0, "proxies/edge-2 drains\n"]);
  await eventually("it is unready", async () => (await fetch(`${edge.address}/readyz`)).status === 503);
  assert.deepEqual(await (await fetch(`${edge.address}/readyz`)).json(), { status: "not_ready", reason: "draining" });
  assert.equal(await client.call("b_hello"), "hello", "what still comes is served");
  await client.client.close(); // it would open its stream again
  await showsEventually("cp-a", /^edge-2 .* SYNCED,DRAINED /m);
  assert.match((await ctl("cp-a", "proxy", "drain", "edge-2")).stdout, /is drained already/);
  assert.match((await ctl("cp-b", "audit", "list")).stdout, /DrainProxy +allowed .*edge-2.* drain edge-2: a new disk/);

  await edge.stop();
  proxies["edge-2"] = await startEdge("edge-2", ["cp-a"], { isReady: false, flags: ["--workers", "2"] });
  await showsEventually("cp-b", /^edge-2 .* SYNCED,DRAINED .* cp-a /m);
  const again = proxies["edge-2"] as RunningVmcp;
  assert.equal((await fetch(`${again.address}/readyz`)).status, 503);
  assert.match((await ctl("cp-b", "proxy", "drain", "--undo", "edge-2")).stdout, /^proxies\/edge-2 takes work again\n$/);
  await eventually("it is ready", async () => (await fetch(`${again.address}/readyz`)).status === 200);
  await showsEventually("cp-b", /^edge-2 .* SYNCED /m);
  const unknown = await ctl("cp-a", "proxy", "drain", "nobody");
  assert.deepEqual([unknown.code, unknown.stdout], [1, ""]);
  assert.match(unknown.stderr, /no proxy "nobody" has connected/);
});

test("of a control plane that is killed the proxies are SERVING_STALE, which --fail-on finds, until they come elsewhere", {
  skip,
}, async () => {
  proxies["edge-3"] = await startEdge("edge-3", ["cp-b"]);
  await showsEventually("cp-a", /^edge-3 .* SYNCED .* cp-b /m);
  assert.equal((await ctl("cp-a", "proxy", "status", "--fail-on", "stale")).code, 0);
  (planes["cp-b"] as RunningVmcp).kill("SIGKILL");
  const stale = await showsEventually("cp-a", /^edge-3 .* SERVING_STALE .* cp-b /m, 30_000);
  assert.match(stale.stderr, /^control plane cp-b is gone: last heard of \d+s ago$/m);
  assert.equal((await ctl("cp-a", "proxy", "status", "--fail-on", "stale")).code, 79);
  const { code, stderr } = await apply("cp-a", "four");
  assert.equal(code, 0, "nobody waits for it");
  assert.match(stderr, /2\/2 proxies acknowledged/);
  assert.equal((await fetch(`${proxies["edge-3"]?.address}/readyz`)).status, 200);
  await startPlane("cp-b");
  const back = await showsEventually("cp-a", /^edge-3 .* SYNCED .* cp-b /m);
  assert.equal(back.stderr, "");
});

test("a control plane that is stopped leaves its proxies to the other, which has them at once", { skip }, async () => {
  await (proxies["edge-3"] as RunningVmcp).stop();
  await showsEventually("cp-a", /^edge-3 .* DISCONNECTED /m);
  assert.equal((await ctl("cp-a", "proxy", "status", "--fail-on", "disconnected")).code, 79);
  proxies["edge-4"] = await startEdge("edge-4", ["cp-b", "cp-a"]);
  await eventually("it has come", async () => /^edge-4 .* SYNCED/m.test((await ctl("cp-a", "proxy", "status")).stdout));
  await (planes["cp-b"] as RunningVmcp).stop();
  await showsEventually("cp-a", /^edge-4 .* SYNCED .* cp-a /m);
});

test("one on a file that is started again knows who was there, before they come", async () => {
  await using folder = await temporaryDirectory();
  const port = await lastingPort();
  const start = () => startVmcp(["control-plane", "--listen", `127.0.0.1:${port}`, "--store", `${folder.path}/vmcp.db`]);
  await using first = await start();
  await using proxy = await startVmcp(["proxy", "--port", "0", "--id", "edge", "--control-plane", first.adminAddress], {
    isReady: false,
  });
  const shown = async () => (await runVmcpctl(`127.0.0.1:${port}`, ["proxy", "status"])).stdout;
  await eventually("it has come", async () => /^edge .* SYNCED /m.test(await shown()));
  await first.stop();
  proxy.kill("SIGKILL");
  await proxy.ended;
  await using _again = await start();
  await eventually("it is remembered", async () => /^edge .* SERVING_STALE /m.test(await shown()), 5_000);
});

interface Row {
  readonly node: { readonly id: string };
  readonly controlPlane: string;
}

interface Plane {
  readonly id: string;
  readonly live: boolean;
}

/** On the same port again when it was there before. */
async function startPlane(id: string): Promise<void> {
  const listen = planes[id]?.adminAddress ?? `127.0.0.1:${await lastingPort()}`;
  planes[id] = stack.use(await startVmcp(["control-plane", "--id", id, "--listen", listen, "--store", store]));
}

interface EdgeOptions {
  readonly isReady?: boolean;
  readonly flags?: readonly string[];
}

async function startEdge(id: string, of: readonly string[], options: EdgeOptions = {}): Promise<RunningVmcp> {
  const { isReady = true, flags = [] } = options;
  const args = ["proxy", "--port", "0", "--id", id, "--drain-delay", "0s", "--control-plane", ...of.map(addressOf), ...flags];
  // Before anything is declared there is nothing to be ready for.
  return stack.use(await startVmcp(args, { isReady: isReady && Object.keys(proxies).length >= 2 }));
}

const addressOf = (id: string): string => planes[id]?.adminAddress as string;

const ctl = (id: string, ...args: string[]) => runVmcpctl(addressOf(id), args);

/** `word` makes it another declaration. */
async function apply(id: string, word: string) {
  const document = virtualServer("team", { backends: [httpBackend("b", url)], metadata: { word } });
  return ctl(id, "apply", "-f", await directory.write(`${word}.yaml`, JSON.stringify(document)));
}

async function showsEventually(id: string, wanted: RegExp, ms = 10_000) {
  return await eventually(
    `${id} shows ${wanted}`,
    async () => {
      const said = await ctl(id, "proxy", "status");
      if (!wanted.test(said.stdout)) throw new Error(said.stdout);
      return said;
    },
    ms,
  );
}
