// The tools that break things, and those that see what broke, tried on the real thing: a test that uses them may trust them.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { startBackend } from "./support/backend.ts";
import { openClient } from "./support/client.ts";
import { whyMissing } from "./support/debian.ts";
import { eventually } from "./support/eventually.ts";
import { type FaultMode, type FaultProxy, startFaultProxy } from "./support/fault-proxy.ts";
import {
  type BackendEntry,
  type ClientEntry,
  checkLedgers,
  createMemoryLedger,
  createWorkTool,
  openFileLedger,
  recordCall,
} from "./support/ledger.ts";
import { startNginx } from "./support/nginx.ts";
import { temporaryDirectory } from "./support/processes.ts";
import { askRedis, startRedis, startRedisCluster, startSentinels } from "./support/redis.ts";

const noRedis = await whyMissing("redis-server", "redis-server");
const noNginx = await whyMissing("nginx", "nginx");

// Faults

/** A server that sends back whatever comes, and remembers it. */
async function startEcho() {
  const sockets = new Set<Socket>();
  let heard = "";
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (chunk) => {
      heard += chunk;
    });
    socket.pipe(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    heard: () => heard,
    sockets: () => sockets.size,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** What a client of one connection sees. */
function openSocket(port: number) {
  let text = "";
  let end = "";
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.on("end", () => {
    end ||= "end";
  });
  socket.on("error", (error: NodeJS.ErrnoException) => {
    end = String(error.code);
  });
  return {
    socket,
    text: () => text,
    /** "end", the code of an error, or "" while it is open. */
    end: () => end,
    says: async (words: string) => {
      socket.write(words);
      await eventually(`the echo of ${words}`, () => text.endsWith(words));
    },
    ends: () => eventually("the connection ends", () => end !== "" && end, 2_000),
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

async function setUp(t: { after(done: () => Promise<void>): void }) {
  const stack = new AsyncDisposableStack();
  t.after(() => stack.disposeAsync());
  const echo = stack.use(await startEcho());
  const proxy: FaultProxy = stack.use(await startFaultProxy({ port: echo.port, random: () => 0.5 }));
  const open = () => stack.use(openSocket(proxy.port));
  return { echo, proxy, open };
}

const quietMs = 150;

test("without a fault bytes and ends go through, and connections are counted", async (t) => {
  const { echo, proxy, open } = await setUp(t);
  const client = open();
  await client.says("hello");
  assert.deepEqual([proxy.connections, proxy.accepted], [1, 1]);
  client.socket.end("bye");
  assert.equal(await client.ends(), "end");
  assert.equal(client.text(), "hellobye");
  await eventually("everybody is gone", () => proxy.connections === 0 && echo.sockets() === 0);
});

test("latency delays every chunk, keeps the order, and delays what follows no more than that", async (t) => {
  const { proxy, open } = await setUp(t);
  const client = open();
  await client.says("now");
  await proxy.set({ kind: "latency", ms: 100 });
  const startedMs = performance.now();
  for (const word of ["a", "b", "c", "d"]) {
    client.socket.write(word);
    await sleep(20);
  }
  await eventually("all came back", () => client.text() === "nowabcd");
  const tookMs = performance.now() - startedMs;
  assert.ok(tookMs >= 250 && tookMs < 450, `there and back within ${tookMs} ms`); // 60 + 2 × 100
});

test("a black hole takes everything, from new and open connections, and never gives them back", async (t) => {
  const { echo, proxy, open } = await setUp(t);
  const old = open();
  await old.says("before");
  await proxy.set({ kind: "black-hole" });
  const fresh = open();
  old.socket.write("lost");
  fresh.socket.end("lost");
  await sleep(quietMs);
  await proxy.set({ kind: "pass" });
  old.socket.write("lost too");
  await sleep(quietMs);
  assert.deepEqual([echo.heard(), old.end(), fresh.end(), fresh.text()], ["before", "", "", ""]);
  const later = open();
  await later.says("after");
  proxy.cutAll();
  await eventually("nobody is left in it", () => echo.sockets() === 0);
});

test("a half-open connection hangs without an end, and goes on where it was", async (t) => {
  const { echo, proxy, open } = await setUp(t);
  const old = open();
  await old.says("before");
  await proxy.set({ kind: "half-open" });
  const fresh = open();
  const gone = open();
  old.socket.write(" during");
  fresh.socket.write(" new");
  await once(gone.socket, "connect");
  gone.socket.destroy();
  await sleep(quietMs);
  assert.deepEqual([echo.heard(), old.end(), fresh.end(), echo.sockets()], ["before", "", "", 1]);
  await proxy.set({ kind: "pass" });
  await eventually("both go on", () => old.text() === "before during" && fresh.text() === " new");
});

test("refused is refused, open connections go on, and the port comes back", async (t) => {
  const { proxy, open } = await setUp(t);
  const old = open();
  await old.says("before");
  await proxy.set({ kind: "refuse" });
  assert.equal(await open().ends(), "ECONNREFUSED");
  await old.says("still");
  await proxy.set({ kind: "pass" });
  await open().says("again");
});

test("a reset is a real one, for new and open connections and the target", async (t) => {
  const { echo, proxy, open } = await setUp(t);
  const old = open();
  await old.says("before");
  await proxy.set({ kind: "reset" });
  assert.equal(await old.ends(), "ECONNRESET");
  assert.equal(await open().ends(), "ECONNRESET");
  await eventually("the target has lost it", () => echo.sockets() === 0);
});

test("a client that resets is seen to by the target, and a target that is down by the client", async (t) => {
  const { echo, proxy, open } = await setUp(t);
  const client = open();
  await client.says("before");
  client.socket.resetAndDestroy();
  await eventually("the target has lost it", () => echo.sockets() === 0 && proxy.connections === 0);
  await echo[Symbol.asyncDispose]();
  assert.equal(await open().ends(), "ECONNRESET");
});

test("accepted and then closed is a proper end, and the target hears nothing", async (t) => {
  const { echo, proxy, open } = await setUp(t);
  await proxy.set({ kind: "accept-then-close" });
  const client = open();
  client.socket.write("lost");
  assert.equal(await client.ends(), "end");
  assert.equal(echo.heard(), "");
});

for (const [mode, heard, seen] of [
  [{ kind: "cut-after", bytes: 7, direction: "down" }, "0123456789", "0123456"],
  [{ kind: "cut-after", bytes: 7, direction: "up" }, "0123456", ""],
  [{ kind: "cut-before-reply" }, "0123456789", ""],
] as const satisfies readonly (readonly [FaultMode, string, string])[]) {
  test(`${JSON.stringify(mode)} lets exactly that through, on new and open connections`, async (t) => {
    const { echo, proxy, open } = await setUp(t);
    const old = open();
    await old.says("before");
    await proxy.set(mode);
    for (const [pick, before] of [
      [() => old, "before"],
      [open, ""],
    ] as const) {
      const client = pick();
      const already = echo.heard();
      client.socket.write("0123456789");
      await client.ends();
      await eventually("the target has lost it", () => echo.sockets() === 0);
      assert.equal(echo.heard(), already + heard);
      // Of a cut on the way up the target may have answered something.
      if (mode.kind === "cut-after" && mode.direction === "up") assert.ok("before0123456".startsWith(client.text()));
      else assert.equal(client.text(), before + seen);
    }
  });
}

test("one reply is cut, of the request that was meant, whatever else goes on", async (t) => {
  const { echo, proxy, open } = await setUp(t);
  const [one, two] = [open(), open()];
  const cut = proxy.cutNext({ match: (chunk) => chunk.includes("INCR") });
  await one.says("GET");
  await two.says("GET");
  two.socket.write("INCR");
  await cut;
  await two.ends();
  assert.equal(echo.heard(), "GETGETINCR");
  assert.equal(two.text(), "GET");
  await one.says("INCR again");
});

test("a sender waits for a reader that doesn't read", async (t) => {
  const { proxy, open } = await setUp(t);
  const client = open();
  await client.says("hello");
  client.socket.pause();
  const megabyte = Buffer.alloc(1024 * 1024, "x");
  for (let i = 0; i < 64; i++) client.socket.write(megabyte);
  let before = -1;
  await eventually("the sender stands still", async () => {
    const now = client.socket.writableLength;
    await sleep(quietMs);
    const isStill = now === before;
    before = now;
    return isStill;
  });
  // Somewhere between: buffers of the machine, and at most a few megabytes here.
  assert.ok(client.socket.writableLength > 32 * megabyte.length, `${client.socket.writableLength} bytes still wait`);
  let received = 0;
  client.socket.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  client.socket.resume();
  await eventually("everything arrives", () => received === 64 * megabyte.length);
  assert.equal(proxy.connections, 1);
});

// Ledgers

const intent = (uuid: string, more: object = {}): ClientEntry => ({ uuid, kind: "intent", atNs: "0", ...more });
const ok = (uuid: string, echo = uuid): ClientEntry => ({ uuid, kind: "ok", echo, atNs: "1000000" });
const error = (uuid: string, outcome: "unknown" | "not_executed"): ClientEntry => ({ uuid, kind: "error", outcome, atNs: "1" });
const failed = (uuid: string): ClientEntry => ({ uuid, kind: "failed", why: "503", atNs: "1" });
const ran = (uuid: string, backend = "x", session = "s"): BackendEntry => ({ uuid, backend, session, atNs: "1" });

for (const [what, client, backend, wanted] of [
  ["a clean run", [intent("1"), ok("1")], [ran("1")], []],
  ["an unknown outcome of a call that ran", [intent("1"), error("1", "unknown")], [ran("1")], []],
  ["an unknown outcome of a call that didn't", [intent("1"), error("1", "unknown")], [], []],
  ["a call that was not executed", [intent("1"), error("1", "not_executed")], [], []],
  ["a call that broke after it ran", [intent("1"), failed("1")], [ran("1")], []],
  ["a call that may be repeated", [intent("1", { isRepeatable: true }), ok("1")], [ran("1"), ran("1")], []],
  ["an acknowledged call that no backend has", [intent("1"), ok("1")], [], ["I1"]],
  ["an acknowledged call that two backends have", [intent("1"), ok("1")], [ran("1"), ran("1", "y")], ["I1", "I2"]],
  ["a call that the wrong backend ran", [intent("1", { backend: "y" }), ok("1")], [ran("1")], ["I1"]],
  ["a call that ran twice", [intent("1"), ok("1")], [ran("1"), ran("1")], ["I2"]],
  ["a call that ran twice and failed", [intent("1"), failed("1")], [ran("1"), ran("1")], ["I2"]],
  ["another's answer", [intent("1"), ok("1", "2"), intent("2"), ok("2")], [ran("1"), ran("2")], ["I3"]],
  ["a call that nobody made", [intent("1"), ok("1")], [ran("1"), ran("2")], ["I3"]],
  [
    "a session of two clients",
    [intent("1", { client: "a" }), ok("1"), intent("2", { client: "b" }), ok("2")],
    [ran("1"), ran("2")],
    ["I3"],
  ],
  ["a call without an end", [intent("1")], [ran("1")], ["I4"]],
  ["a call with two ends", [intent("1"), ok("1"), ok("1")], [ran("1")], ["I4"]],
  ["a call that ended late", [intent("1"), { ...ok("1"), atNs: "3000000000" }], [ran("1")], ["I4"]],
  ["a call that ran and is said not to have", [intent("1"), error("1", "not_executed")], [ran("1")], ["I11"]],
] as const) {
  test(`ledgers with ${what} break ${wanted.join(", ") || "nothing"}`, () => {
    const violations = checkLedgers(client, backend, { endsWithinMs: 2_000 });
    assert.deepEqual(
      violations.map(({ invariant }) => invariant),
      wanted,
      JSON.stringify(violations),
    );
  });
}

test("real calls leave ledgers that agree, and a cut reply is seen as one that ran", async (t) => {
  const stack = new AsyncDisposableStack();
  t.after(() => stack.disposeAsync());
  const directory = stack.use(await temporaryDirectory());
  const path = join(directory.path, "ledger");
  const work = createWorkTool({ ledger: stack.use(openFileLedger<BackendEntry>(path, { isSynced: true })), backend: "one" });
  const backend = stack.use(await startBackend({ tools: [work.tool], calls: { work: work.call } }));
  const proxy = stack.use(await startFaultProxy({ port: backend.port }));
  const clients = createMemoryLedger<ClientEntry>();
  const call = async (name: string, count: number) => {
    const client = stack.use(await openClient(`http://${proxy.address}/mcp`));
    const perform = async (uuid: string) => ({ kind: "ok", echo: await client.call("work", { uuid, ms: 1 }) }) as const;
    return Promise.all(Array.from({ length: count }, () => recordCall(clients, perform, { client: name, backend: "one" })));
  };
  await Promise.all([call("a", 10), call("b", 10)]);
  const cut = proxy.cutNext({ match: (chunk) => chunk.includes('"work"') });
  const [end] = await call("c", 1);
  await cut;
  assert.equal(end?.kind, "failed");
  using ledger = openFileLedger<BackendEntry>(path);
  assert.equal(ledger.entries().length, 21);
  assert.deepEqual(checkLedgers(clients.entries(), ledger.entries(), { endsWithinMs: 5_000 }), []);
});

// Servers

test("a Redis comes back on its port, empty", { skip: noRedis }, async () => {
  await using redis = await startRedis({ args: ["--maxmemory", "4mb"] });
  assert.equal(await askRedis(redis.port, ["SET", "key", "value"]), "OK");
  assert.equal(await askRedis(redis.port, ["GET", "key"]), "value");
  const { pid } = redis;
  redis.kill("SIGKILL");
  await redis.ended;
  await assert.rejects(askRedis(redis.port, ["PING"]), { code: "ECONNREFUSED" });
  await redis.restart();
  assert.notEqual(redis.pid, pid);
  assert.equal(await askRedis(redis.port, ["GET", "key"]), undefined);
  redis.kill("SIGSTOP");
  await assert.rejects(askRedis(redis.port, ["PING"]), /does not answer/);
});

test("Sentinels put the replica in the place of a primary that was killed", { skip: noRedis }, async () => {
  await using setup = await startSentinels();
  const [first, second] = setup.servers;
  assert.equal(await setup.primary(), first);
  assert.equal(await setup.replica(), second);
  await askRedis(first.port, ["SET", "key", "value"]);
  assert.equal(await askRedis(first.port, ["WAIT", "1", "500"]), 1);
  first.kill("SIGKILL");
  await eventually("the replica is primary", async () => (await setup.primary()) === second);
  assert.equal(await askRedis(second.port, ["GET", "key"]), "value");
  assert.equal(await askRedis(second.port, ["SET", "key", "new"]), "OK");
});

test("a cluster shares its keys out", { skip: noRedis }, async () => {
  await using cluster = await startRedisCluster();
  const [first] = cluster.nodes;
  const answers = await Promise.allSettled(["a", "b", "c"].map((key) => askRedis(first?.port ?? 0, ["SET", key, "value"])));
  const texts = answers.map((answer) => (answer.status === "fulfilled" ? answer.value : String(answer.reason)));
  assert.ok(texts.includes("OK") && texts.some((text) => /MOVED/.test(String(text))), texts.join());
});

/** A server that says its number, and is ready or not. */
async function startNumber(number: number) {
  let isReady = true;
  let count = 0;
  const server = createHttpServer((incoming, response) => {
    if (incoming.url === "/readyz") return void response.writeHead(isReady ? 200 : 503).end();
    count++;
    incoming.resume().on("end", () => response.end(`${number} ${incoming.headers.host}`));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    count: () => count,
    setReady: (value: boolean) => {
      isReady = value;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

test("nginx balances, and takes an upstream out and in without failing a request", { skip: noNginx }, async (t) => {
  const stack = new AsyncDisposableStack();
  t.after(() => stack.disposeAsync());
  const servers = [stack.use(await startNumber(0)), stack.use(await startNumber(1)), stack.use(await startNumber(2))] as const;
  const addresses = servers.map(({ address }) => address);
  const nginx = stack.use(await startNginx(addresses));
  const ask = async () => {
    const { statusCode, body } = await request(nginx.address, { method: "POST", body: "hello" });
    return `${statusCode} ${await body.text()}`;
  };
  const host = new URL(nginx.address).host;
  const first = [await ask(), await ask(), await ask()];
  assert.deepEqual(first.sort(), [`200 0 ${host}`, `200 1 ${host}`, `200 2 ${host}`]);

  const answers = new Map<string, number>();
  const isOver = new AbortController();
  stack.defer(() => isOver.abort());
  const load = Promise.all(
    Array.from({ length: 8 }, async () => {
      while (!isOver.signal.aborted) {
        const answer = await ask().catch(String);
        answers.set(answer, (answers.get(answer) ?? 0) + 1);
      }
    }),
  );
  servers[0].setReady(false);
  await eventually("it is out", () => !nginx.ready().includes(servers[0].address));
  await sleep(500); // nginx has heard of it by then, and what was on its way has arrived
  const counts = servers.map((server) => server.count());
  await eventually("the others go on", () => servers.every((server, i) => i === 0 || server.count() > (counts[i] ?? 0) + 50));
  assert.equal(servers[0].count(), counts[0]);
  servers[0].setReady(true);
  await eventually("it is in again", () => servers[0].count() > (counts[0] ?? 0) + 50);
  isOver.abort();
  await load;
  assert.deepEqual([...answers.keys()].sort(), first, await nginx.errors());

  await nginx.setUpstreams(addresses.slice(2));
  assert.deepEqual(nginx.ready(), addresses.slice(2));
  assert.equal(await ask(), `200 2 ${host}`);
  servers[2].setReady(false);
  await eventually("nobody is left", async () => (await ask()).startsWith("503"));
});
