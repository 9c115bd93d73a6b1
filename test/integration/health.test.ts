// How backends are, from checks and from calls, on two proxies: what operators see of it, and what clients do.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, openRawSession } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";

const stack = new AsyncDisposableStack();
const echo = { tools: [plainTool("echo")], calls: { echo: () => textResult("said") } };
let good: Backend;
let bad: Backend;
let mesh: Mesh;

before(async () => {
  [good, bad] = [stack.use(await startBackend(echo)), stack.use(await startBackend(echo))];
  mesh = stack.use(await startMesh(2));
  const backends = [httpBackend("good", good.url), httpBackend("bad", bad.url)];
  const checks = { healthCheckInterval: "1s", healthCheckTimeout: "500ms", unhealthyThreshold: 3, statusReportingInterval: "1s" };
  const operational = (partialFailureMode: string) => ({ operational: { failureHandling: { ...checks, partialFailureMode } } });
  const { code, stderr } = await mesh.apply([
    virtualServer("listed", { backends, ...operational("fail") }),
    virtualServer("hidden", { backends, ...operational("best_effort") }),
  ]);
  assert.equal(code, 0, stderr);
  await eventually("both proxies say that all are healthy", async () => (await states()).every((state) => state === "healthy"));
});
after(() => stack.disposeAsync());

/** As `vmcpctl get backends` says it: the word of all proxies, or words with counts. */
async function states(name = ""): Promise<string[]> {
  const { stdout } = await mesh.ctl("get", "backends", "-o", "json");
  const rows = (JSON.parse(stdout) as { backends: { name: string; state: string }[] }).backends;
  return rows.filter((row) => row.name.endsWith(name)).map(({ state }) => state);
}

const url = (server: string, proxy = 0): string => `${mesh.proxies[proxy]?.address}/${server}/mcp`;

async function comesBack(): Promise<void> {
  await eventually("it is trusted again", async () => (await states("bad")).every((state) => state === "healthy"), 20_000);
}

test("a backend that is gone is unhealthy on every proxy, and healthy soon after it is back", async () => {
  await bad.down();
  await eventually("operators see it", async () => (await states("bad")).every((state) => state === "unhealthy"), 20_000);
  assert.deepEqual(await states("good"), ["healthy", "healthy"]);
  await bad.up();
  await comesBack();
});

test("its tools stay listed, and calls say at once what is wrong", async () => {
  await using client = await openClient(url("listed"));
  const session = await openRawSession(url("listed", 1));
  await bad.down();
  try {
    await eventually("it is known", async () => (await states("bad")).every((state) => state === "unhealthy"), 20_000);
    assert.deepEqual((await client.toolNames()).sort(), ["bad_echo", "good_echo"]);
    assert.equal(client.notifications.includes("notifications/tools/list_changed"), false);
    const startedMs = performance.now();
    const answer = await session.result("tools/call", '{"name":"bad_echo"}');
    assert.ok(performance.now() - startedMs < 500);
    assert.match(answer, /"outcome":"not_executed"/);
    assert.match(answer, /backend \\"bad\\"/);
    assert.equal(await client.call("good_echo"), "said");
  } finally {
    await bad.up();
  }
  await comesBack();
  assert.equal(await client.call("bad_echo"), "said");
});

test("best_effort hides them, and clients are told when they go and come", async () => {
  await using client = await openClient(url("hidden"));
  const changes = () => client.notifications.filter((method) => method === "notifications/tools/list_changed").length;
  await bad.down();
  try {
    await eventually("the client is told", () => changes() > 0, 20_000);
    assert.deepEqual(await client.toolNames(), ["good_echo"]);
  } finally {
    await bad.up();
  }
  const before = changes();
  await eventually("it is told again", () => changes() > before, 20_000);
  assert.deepEqual((await client.toolNames()).sort(), ["bad_echo", "good_echo"]);
  await comesBack();
});

test("one that lets nobody in is unauthenticated, and no failure", async () => {
  bad.set({ fault: { status: 401 } });
  await eventually("operators see it", async () => (await states("bad")).every((state) => state === "unauthenticated"), 20_000);
  bad.set({ fault: undefined });
  await comesBack();
});

test("calls that fail degrade a backend before any check does", async () => {
  const { address } = mesh.proxies[0] ?? {};
  const session = await openRawSession(url("listed"));
  bad.set({ calls: { echo: () => new Promise<string>(() => undefined) } });
  const hanging = session.ask("tools/call", '{"name":"bad_echo"}');
  await new Promise((resolve) => setTimeout(resolve, 200));
  bad.dropSessions();
  await bad.down();
  await hanging;
  const { backends } = (await (await fetch(`${address}/status`)).json()) as { backends: { resource: string; health: string }[] };
  assert.notEqual(backends.find(({ resource }) => resource === "virtualServers/listed/backends/bad")?.health, "healthy");
  bad.set(echo);
  await bad.up();
  await comesBack();
});

test("checks open no sessions that they leave behind", async () => {
  const before = good.sessions().length;
  await new Promise((resolve) => setTimeout(resolve, 3_500)); // three checks of each proxy and virtual server
  assert.equal(good.sessions().length, before);
  const pings = good.requests.filter(({ message }) => message?.method === "ping").length;
  assert.ok(pings >= 4, `${pings} checks`);
});
