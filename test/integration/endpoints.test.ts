// One backend at two places: where calls go, what a session keeps, and what it costs when one of them goes.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { type Backend, counter, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession, type RawSession } from "../support/client.ts";
import { virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";

const stack = new AsyncDisposableStack();
let mesh: Mesh;
let a: Backend;
let b: Backend;
let spare: Backend;

const named = (name: string) => ({
  tools: [counter.tool, plainTool("where"), plainTool("slow")],
  calls: {
    counter: counter.call,
    where: () => textResult(name),
    slow: async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      return textResult(name);
    },
  },
});

before(async () => {
  process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex");
  [a, b, spare] = (await Promise.all(["a", "b", "spare"].map(async (name) => stack.use(await startBackend(named(name)))))) as [
    Backend,
    Backend,
    Backend,
  ];
  mesh = stack.use(await startMesh(1));
  const operational = {
    failureHandling: { healthCheckInterval: "1s", healthCheckTimeout: "500ms", statusReportingInterval: "1s" },
  };
  const { code, stderr } = await mesh.apply([
    virtualServer("even", { operational, backends: [{ name: "one", endpoints: [{ url: a.url }, { url: b.url }] }] }),
    virtualServer("spare", {
      operational,
      backends: [{ name: "one", endpoints: [{ url: a.url }, { url: spare.url, priority: 1 }] }],
    }),
  ]);
  assert.equal(code, 0, stderr);
  await eventually("all are healthy", async () => (await endpointStates()).every((state) => state === "healthy"));
});
after(() => stack.disposeAsync());

async function endpointStates(): Promise<string[]> {
  const { backends } = (await (await fetch(`${mesh.proxies[0]?.address}/status`)).json()) as {
    backends: { endpoints?: { health: string }[] }[];
  };
  return backends.flatMap(({ endpoints = [] }) => endpoints.map(({ health }) => health));
}

const open = (server = "even"): Promise<RawSession> => openRawSession(`${mesh.proxies[0]?.address}/${server}/mcp`);

async function call(session: RawSession, tool: string): Promise<string> {
  const answer = await session.result("tools/call", `{"name":"one_${tool}"}`);
  return /"text":"([^"]*)"/.exec(answer)?.[1] ?? answer;
}

const allHealthy = () =>
  eventually("all are healthy", async () => (await endpointStates()).every((state) => state === "healthy"), 20_000);

test("sessions are spread, and each stays where it began, with what the server keeps for it", async () => {
  const sessions = await Promise.all(Array.from({ length: 20 }, () => open()));
  const places = await Promise.all(sessions.map((session) => call(session, "where")));
  assert.ok(places.filter((place) => place === "a").length >= 5, places.join(""));
  assert.ok(places.filter((place) => place === "b").length >= 5, places.join(""));
  for (const [i, session] of sessions.entries()) {
    for (const count of ["1", "2", "3"]) assert.equal(await call(session, "counter"), count);
    assert.equal(await call(session, "where"), places[i]);
  }
  const { stdout } = await mesh.ctl("get", "tools");
  assert.equal(stdout.match(/one_counter/g)?.length, 2, "listed once in each virtual server");
});

test("one that is gone: its calls in flight are lost and said to be, all others are made elsewhere", async () => {
  const sessions = await Promise.all(Array.from({ length: 20 }, () => open()));
  const places = await Promise.all(sessions.map((session) => call(session, "where")));
  const inFlight = sessions.map((session) => call(session, "slow"));
  await new Promise((resolve) => setTimeout(resolve, 100));
  await a.down();
  for (const [i, answer] of (await Promise.all(inFlight)).entries()) {
    if (places[i] === "b") assert.equal(answer, "b");
    else assert.match(answer, /"outcome":"unknown"/);
  }
  for (const session of sessions) assert.equal(await call(session, "where"), "b");
  assert.equal(await call(await open(), "where"), "b");
  await a.up();
  await allHealthy();
  await eventually("it is used again", async () => (await call(await open(), "where")) === "a");
});

test("both are restarted one after the other under load: no call fails that was not in flight there", async () => {
  const failures: string[] = [];
  let calls = 0;
  let isOver = false;
  const work = async () => {
    let session = await open();
    while (!isOver) {
      const answer = await call(session, "where");
      calls++;
      // A call that was in flight is lost; it is the only kind that may fail.
      if (answer.length > 1 && !answer.includes('"outcome":"unknown"')) failures.push(answer);
      if (calls % 50 === 0) session = await open();
    }
  };
  const workers = Array.from({ length: 8 }, work);
  for (const server of [a, b]) {
    await server.down();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await server.up();
    await allHealthy();
  }
  isOver = true;
  await Promise.all(workers);
  assert.deepEqual(failures, []);
  assert.ok(calls > 200, `${calls} calls`);
});

test("a spare one is used only while the other is gone", async () => {
  for (let i = 0; i < 10; i++) assert.equal(await call(await open("spare"), "where"), "a");
  await a.down();
  assert.equal(await call(await open("spare"), "where"), "spare");
  await a.up();
  await allHealthy();
  await eventually("the first is used again", async () => (await call(await open("spare"), "where")) === "a");
});
