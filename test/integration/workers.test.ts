// `vmcp proxy --workers 2`: to clients, operators and the control plane two processes are one proxy.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { test } from "node:test";
import { type Backend, counter, plainTool, startBackend, textResult } from "../support/backend.ts";
import { mcpHeaders, openClient, openRawSession, send } from "../support/client.ts";
import { httpBackend, stdioBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Mesh, startMesh, workersOf } from "../support/mesh.ts";
import { freePort, type RunningVmcp, runVmcp, startVmcp, stdioServer, temporaryDirectory } from "../support/processes.ts";

interface World extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly proxy: RunningVmcp;
  readonly backend: Backend;
  /** Lets the calls of `slow` end. */
  open(): void;
}

async function start(...flags: string[]): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const gate = Promise.withResolvers<void>();
  const slow = () => gate.promise.then(() => textResult("done"));
  const tools = [plainTool("echo"), plainTool("slow"), counter.tool];
  const calls = { echo: () => textResult("hello"), slow, counter: counter.call };
  const backend = stack.use(await startBackend({ tools, calls }));
  const mesh = stack.use(await startMesh(1, ["--workers", "2", ...flags]));
  const proxy = mesh.proxies[0] as RunningVmcp;
  const { code, stderr } = await mesh.apply([virtualServer("team", { backends: [httpBackend("b", backend.url)] })], "--wait");
  assert.equal(code, 0, stderr);
  for (const { address } of (await workersOf(proxy)).running)
    await eventually(`${address} lists`, async () => {
      await using client = await openClient(`${address}/team/mcp`);
      return (await client.toolNames()).length === tools.length;
    });
  const owned = stack.move();
  return { mesh, proxy, backend, open: gate.resolve, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

test("the control plane has one proxy, the disk one copy, and pages tell of both workers, whoever is asked", async () => {
  await using directory = await temporaryDirectory();
  await using world = await start("--state-dir", directory.path);
  const { mesh, proxy } = world;
  const versions = (await readdir(directory.path)).map((name) => name.replace(/^\d+-/, ""));
  assert.ok(versions.length > 0);
  assert.equal(new Set(versions).size, versions.length, `each is written once: ${versions}`);
  const rows = (await mesh.ctl("get", "proxies")).stdout.trim().split("\n");
  assert.equal(rows.length, 2, rows.join("\n"));

  const { running } = await workersOf(proxy);
  assert.deepEqual(
    running.map(({ worker }) => worker),
    [1, 2],
  );
  const [one, two] = await Promise.all(running.map(({ address }) => openRawSession(`${address}/team/mcp`)));
  for (let i = 0; i < 3; i++) assert.match((await one?.result("tools/call", `{"name":"b_echo"}`)) ?? "", /hello/);
  for (let i = 0; i < 4; i++) assert.match((await two?.result("tools/call", `{"name":"b_echo"}`)) ?? "", /hello/);
  for (const { address } of running) {
    const { body } = await send(`${address}/metrics`);
    assert.match(body, /^vmcp_backend_calls_total\{backend="[^"]+",outcome="success"\} 7$/m);
    assert.match(body, /^vmcp_workers 2$/m);
    assert.match(body, /^vmcp_limit\{limit="in_flight"\} 1024$/m);
  }
  const { sessions: listed } = JSON.parse((await mesh.ctl("session", "list", "-o", "json")).stdout) as {
    sessions: { key: string }[];
  };
  const keys = listed.map(({ key }) => key);
  assert.equal(new Set(keys).size, keys.length, "a session comes once");
  assert.equal(keys.length, 2, JSON.stringify(listed));
});

test("both start from disk when no control plane is there", async () => {
  await using directory = await temporaryDirectory();
  {
    await using _world = await start("--state-dir", directory.path);
  }
  const flags = ["--control-plane", `127.0.0.1:${await freePort()}`, "--port", "0", "--state-dir", directory.path];
  await using proxy = await startVmcp(["proxy", "--workers", "2", ...flags]);
  for (const { address } of (await workersOf(proxy)).running) assert.equal((await send(`${address}/readyz`)).status, 200);
});

test("a snapshot that workers can't run is refused whole, and both go on with the old one", async () => {
  await using world = await start();
  const { mesh, proxy, backend } = world;
  const broken = stdioBackend("broken", stdioServer("memory"), { TOKEN: "env:VMCP_TEST_IS_NOT_SET" });
  const team = virtualServer("team", { backends: [httpBackend("b", backend.url), broken] });
  const { code, stderr } = await mesh.apply([team], "--wait");
  assert.equal(code, 1);
  assert.match(stderr, /proxy-1 refused[\s\S]*VMCP_TEST_IS_NOT_SET/);
  for (const { address } of (await workersOf(proxy)).running) {
    await using client = await openClient(`${address}/team/mcp`);
    assert.equal(await client.call("b_echo"), "hello");
  }
});

test("a worker that is killed under load: its calls fail, no session does, and another takes its place with what is live", async () => {
  await using world = await start();
  const { mesh, proxy, backend } = world;
  const [victim, other] = (await workersOf(proxy)).running;
  assert.ok(victim && other);
  const sessions = await Promise.all(Array.from({ length: 8 }, () => openRawSession(`${proxy.address}/team/mcp`)));
  const counted = await openRawSession(`${victim.address}/team/mcp`); // in the hands of the one that is killed
  assert.match(await counted.result("tools/call", `{"name":"b_counter"}`), /"1"/);

  let isOver = false;
  const failures: number[] = []; // by when
  let successes = 0;
  const load = sessions.map(async (session) => {
    while (!isOver)
      await session.result("tools/call", `{"name":"b_echo"}`).then(
        (text) => (/hello/.test(text) ? successes++ : failures.push(performance.now())),
        () => failures.push(performance.now()),
      );
  });
  await eventually("calls are answered", () => successes > 100);
  process.kill(victim.pid, "SIGKILL");
  const killedMs = performance.now();
  const replaced = await eventually("another is there", async () => {
    const { running, restarts } = await workersOf(proxy).catch(() => ({ running: [], restarts: 0 }));
    return running.length === 2 && restarts === 1 && running;
  });
  const tookMs = performance.now() - killedMs;
  const before = successes;
  await eventually("calls go on", () => successes > before + 200);
  isOver = true;
  await Promise.all(load);
  // Each of the eight had one call at a time in hand; connections that died are noticed at the next call.
  assert.ok(failures.length <= 16, `${failures.length} calls failed of ${successes}`);
  assert.ok(
    failures.every((atMs) => atMs - killedMs < 1_000),
    "calls fail only while it dies",
  );
  assert.ok(tookMs < 10_000, `replaced after ${tookMs} ms`);

  for (const session of sessions) assert.match(await session.result("tools/call", `{"name":"b_echo"}`), /hello/);
  // The session goes on with the other worker, and the backend's own with it.
  const body = `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"b_counter"}}`;
  const headers = { ...mcpHeaders, "mcp-session-id": counted.id, "mcp-protocol-version": "2025-11-25" };
  assert.match((await send(`${other.address}/team/mcp`, { method: "POST", headers, body })).body, /"2"/);
  const { address } = replaced.find(({ worker }) => worker === victim.worker) ?? {};
  await using client = await openClient(`${address}/team/mcp`);
  assert.equal(await client.call("b_echo"), "hello");
  assert.match((await send(`${proxy.address}/metrics`)).body, /^vmcp_worker_restarts_total 1$/m);

  // What comes after that reaches the new one as well.
  const more = [httpBackend("b", backend.url), httpBackend("c", backend.url)];
  assert.equal((await mesh.apply([virtualServer("team", { backends: more })], "--wait")).code, 0);
  for (const worker of (await workersOf(proxy)).running) {
    await using sdk = await openClient(`${worker.address}/team/mcp`);
    await eventually("the new tools", async () => (await sdk.toolNames()).includes("c_echo"));
  }
});

test("a worker that hangs is replaced", { timeout: 60_000 }, async () => {
  await using world = await start();
  const [victim] = (await workersOf(world.proxy)).running;
  assert.ok(victim);
  process.kill(victim.pid, "SIGSTOP");
  await eventually("it is gone", () => !isRunning(victim.pid), 30_000);
  await eventually("another is there", async () => {
    const { running, restarts } = await workersOf(world.proxy).catch(() => ({ running: [], restarts: 0 }));
    return running.length === 2 && restarts === 1;
  });
});

test("told to stop, both finish what they have in hand, and nothing is left", async () => {
  await using world = await start();
  const { proxy, backend } = world;
  const { running } = await workersOf(proxy);
  const calls = await Promise.all(
    running.map(async ({ address }) => {
      const session = await openRawSession(`${address}/team/mcp`);
      return { answer: session.result("tools/call", `{"name":"b_slow"}`) };
    }),
  );
  await eventually("both calls run", () => backend.requests.filter(({ body }) => body.includes(`"slow"`)).length === 2);
  // As a terminal does: every process is told.
  for (const { pid } of running) process.kill(pid, "SIGINT");
  proxy.kill("SIGTERM");
  await eventually("nobody is let in", () =>
    send(`${proxy.address}/readyz`).then(
      ({ status }) => status !== 200,
      () => true,
    ),
  );
  world.open();
  for (const { answer } of calls) assert.match(await answer, /done/);
  assert.equal(await proxy.ended, 0);
  for (const { pid } of running) await eventually(`${pid} has ended`, () => !isRunning(pid));
});

test("workers end with the process that leads them", async () => {
  await using world = await start();
  const { running } = await workersOf(world.proxy);
  world.proxy.kill("SIGKILL");
  for (const { pid } of running) await eventually(`${pid} has ended`, () => !isRunning(pid));
});

test("a port that is taken is told as by one process, and a number of workers that makes no sense is refused", async () => {
  await using world = await start();
  const { port } = new URL(world.proxy.address);
  const taken = await runVmcp(["proxy", "--workers", "2", "--port", port, "--state-dir", "none"]);
  assert.equal(taken.code, 1);
  assert.match(taken.stderr, new RegExp(`port ${port} on 127.0.0.1 is taken`));
  for (const wrong of ["0", "65", "many"])
    assert.match((await runVmcp(["proxy", "--workers", wrong])).stderr, /a number from 1 to 64, or auto/);
});

/** A process that has ended and that nobody has asked about is not running. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
