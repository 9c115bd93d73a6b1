// What sessions live through: replicas that stop or die, a backend that forgets, a Redis that goes away.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { type Backend, type Call, counter, plainTool, startBackend, textResult } from "../support/backend.ts";
import { mcpHeaders, openRawSession, type RawAnswer, send } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";
import { type RunningVmcp, startVmcp } from "../support/processes.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { ask as askStateless } from "../support/stateless-client.ts";

process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex"); // the proxies inherit it

const skip = await whyMissing("redis-server", "redis-server");
const stack = new AsyncDisposableStack();
let redis: RedisServer;
let mesh: Mesh;
let one: Backend;
let two: Backend;
let gate = Promise.withResolvers<void>();

before(async () => {
  if (skip) return;
  redis = stack.use(await startRedis());
  const script = {
    tools: [counter.tool, plainTool("gated"), plainTool("link")],
    resources: [`{"uri":"x:1","name":"n"}`],
    calls: { counter: counter.call, gated, link: () => `{"content":[{"type":"resource_link","uri":"given:1","name":"l"}]}` },
    reads: { "given:1": () => `{"contents":[{"uri":"given:1","text":"found"}]}` },
    methods: { "resources/subscribe": () => "{}", "logging/setLevel": () => "{}" },
  };
  one = stack.use(await startBackend(script));
  two = stack.use(await startBackend(script));
  mesh = stack.use(await startMesh(2, ["--redis", redis.url]));
  const backends = [httpBackend("one", one.url), httpBackend("two", two.url)];
  const { code, stderr } = await mesh.apply([virtualServer("team", { backends })]);
  assert.equal(code, 0, stderr);
  for (const proxy of mesh.proxies) await serves(proxy);
});
after(() => stack.disposeAsync());

test("a session goes on elsewhere when its replica is killed: state, level, subscriptions, links and stream", {
  skip,
}, async () => {
  await using opener = await startProxy("killed");
  const session = await openRawSession(urlOf(opener));
  assert.match(await count(urlOf(opener), session.id), /"1"/);
  await session.result("logging/setLevel", `{"level":"debug"}`);
  assert.match(await session.result("resources/subscribe", `{"uri":"x:1"}`), /"result"/);
  assert.match(await session.result("tools/call", `{"name":"two_link"}`), /given:1/);
  opener.kill("SIGKILL");
  await opener.ended;

  const [a, b] = urls();
  const initialized = one.bodies("initialize").length;
  assert.match(await count(b, session.id), /"2"/);
  assert.match(await count(a, session.id), /"3"/);
  assert.equal(one.bodies("initialize").length, initialized, "the backend's own session was adopted");
  assert.match((await ask(a, session.id, "resources/read", { uri: "given:1" })).body, /found/);
  await using stream = await streamOf(b, session.id);
  await eventually("the backend is heard there", () => one.streams() > 0);
  const subscribed = one.bodies("resources/subscribe").length + two.bodies("resources/subscribe").length;
  const owner = one.bodies("resources/subscribe").length > 0 ? one : two;
  await eventually("an update arrives", () => {
    owner.push(`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"x:1"}}`);
    return stream.messages.some((message) => message.includes("resources/updated"));
  });
  assert.equal(one.bodies("resources/subscribe").length + two.bodies("resources/subscribe").length, subscribed);
});

test("a backend that forgot a session is met once again, for all calls that wait, and no other backend is", {
  skip,
}, async () => {
  const [a, b] = urls();
  const session = await openRawSession(a);
  await session.result("resources/subscribe", `{"uri":"x:1"}`);
  for (const tool of ["one_counter", "two_counter"]) assert.match(await count(a, session.id, tool), /"1"/);
  await using stream = await streamOf(a, session.id);
  await eventually("both are heard", () => one.streams() > 0 && two.streams() > 0);
  const owner = one.bodies("resources/subscribe").length > 0 ? one : two;
  const before = [one, two].map((backend) => backend.bodies("initialize").length);
  const subscribed = owner.bodies("resources/subscribe").length;
  owner.dropSessions();
  const tool = owner === one ? "one_counter" : "two_counter";
  const counts = await Promise.all([a, b, a, b, a, b].map((url, i) => count(url, session.id, tool, i + 10)));
  assert.deepEqual(counts.map((text) => /"text":"(\d+)"/.exec(text)?.[1]).toSorted(), ["1", "2", "3", "4", "5", "6"]);
  await stream.next("notifications/tools/list_changed");
  await eventually("it is subscribed again", () => owner.bodies("resources/subscribe").length > subscribed);
  const after = [one, two].map((backend) => backend.bodies("initialize").length);
  const [own, others] = owner === one ? [0, 1] : [1, 0];
  assert.equal(after[others], before[others], "the other backend was left alone");
  // Two replicas may meet it at the same time; then one of the two new sessions is given up, and only one is used.
  assert.ok((after[own] as number) - (before[own] as number) <= 2);
  assert.match(await count(b, session.id, owner === one ? "two_counter" : "one_counter"), /"2"/);
});

test("a goodbye on one replica ends what another opened with backends", { skip }, async () => {
  const [a, b] = urls();
  const session = await openRawSession(a);
  const before = new Set(one.sessions());
  await count(a, session.id, "one_counter");
  const own = one.sessions().filter((id) => !before.has(id));
  assert.equal(own.length, 1);
  const bye = await send(b, { method: "DELETE", headers: headersOf(session.id) });
  assert.equal(bye.status, 204);
  for (const url of [a, b])
    await eventually("it is gone", async () => (await ask(url, session.id, "ping")).status === 404, 2_000);
  await eventually("the backend knows", () => !one.sessions().includes(own[0] as string));
});

test("a proxy that is told to stop is unready, goes on, finishes calls, and leaves the rest to others", { skip }, async () => {
  await using leaving = await startProxy("leaving", ["--drain-delay", "600ms"]);
  const url = urlOf(leaving);
  const session = await openRawSession(url);
  await using _stream = await streamOf(url, session.id);
  gate = Promise.withResolvers();
  const calling = ask(url, session.id, "tools/call", { name: "one_gated" });
  await eventually("the call runs", () => one.bodies("tools/call").some((body) => body.includes("gated")));
  leaving.kill("SIGTERM");
  await eventually("it is unready", async () => (await send(`${leaving.address}/readyz`)).status === 503);
  const meanwhile = await ask(url, session.id, "ping", {}, 7);
  assert.deepEqual([meanwhile.status, meanwhile.headers.connection], [200, "close"]);
  const other = await openRawSession(url);
  await eventually("it takes no more", () =>
    send(`${leaving.address}/health`).then(
      () => false,
      () => true,
    ),
  );
  gate.resolve();
  assert.match((await calling).body, /finished/);
  assert.equal(await leaving.ended, 0);
  const [a, b] = urls();
  for (const id of [session.id, other.id]) assert.equal((await ask(a, id, "ping")).status, 200);
  await using again = await streamOf(b, session.id, "aaaaaaaa0-3");
  await again.next("notifications/tools/list_changed"); // it can't know what it missed, so it looks again
});

test("calls that do not end in time are answered: whether they took effect is not known", { skip }, async () => {
  await using leaving = await startProxy("impatient", ["--drain-timeout", "300ms"]);
  const session = await openRawSession(urlOf(leaving));
  gate = Promise.withResolvers();
  const before = one.bodies("tools/call").length;
  const calling = ask(urlOf(leaving), session.id, "tools/call", { name: "one_gated" });
  await eventually("the call runs", () => one.bodies("tools/call").length > before);
  const startedMs = performance.now();
  leaving.kill("SIGTERM");
  assert.match((await calling).body, /"outcome":"unknown"/);
  assert.equal(await leaving.ended, 0);
  assert.ok(performance.now() - startedMs < 3_000);
  gate.resolve();
});

test("while Redis is away sessions wait, the other era goes on, and nobody is told that a session is gone", {
  skip,
}, async () => {
  const [a, b] = urls();
  const session = await openRawSession(a);
  assert.match(await count(a, session.id, "one_counter"), /"1"/);
  redis.kill("SIGSTOP"); // it comes back with what it knew
  try {
    assert.equal((await ask(a, session.id, "ping")).status, 200, "it was seen a moment ago");
    const unavailable = await eventually("it is not served any more", async () => {
      const answer = await ask(a, session.id, "ping");
      assert.ok([200, 503].includes(answer.status), `${answer.status}`);
      return answer.status === 503 && answer;
    });
    assert.equal(unavailable.headers["retry-after"], "1");
    assert.match(unavailable.body, /"outcome":"not_executed"/);
    assert.equal((await ask(b, session.id, "ping")).status, 503);
    assert.equal((await send(b, { method: "DELETE", headers: headersOf(session.id) })).status, 503);
    const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "raw", version: "1" } };
    const opening = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "initialize", params });
    assert.equal((await send(a, { method: "POST", headers: mcpHeaders, body: opening })).status, 503);
    const made = `${session.id.slice(0, -1)}${session.id.endsWith("A") ? "B" : "A"}`;
    assert.equal((await ask(a, made, "ping")).status, 404, "what is none of ours is none, whoever knows");
    assert.equal((await send(`${mesh.proxies[0]?.address}/readyz`)).status, 200, "it is ready all the same");
    for (const url of [a, b]) assert.match((await askStateless(url, "tools/call", { name: "one_counter" })).body, /"result"/);
  } finally {
    redis.kill("SIGCONT");
  }
  for (const url of [a, b]) await eventually("it goes on", async () => (await ask(url, session.id, "ping")).status === 200);
  assert.match(await count(b, session.id, "one_counter"), /"2"/);
});

/** Answers when the gate opens. */
async function gated(_call: Call): Promise<string> {
  await gate.promise;
  return textResult("finished");
}

function urls(): [a: string, b: string] {
  return mesh.proxies.map(urlOf) as [string, string];
}

function urlOf({ address }: RunningVmcp): string {
  return `${address}/team/mcp`;
}

async function startProxy(id: string, flags: readonly string[] = ["--drain-delay", "0s"]): Promise<RunningVmcp> {
  const delay = flags.includes("--drain-delay") ? [] : ["--drain-delay", "0s"];
  const where = ["--control-plane", mesh.controlPlane.adminAddress, "--port", "0", "--redis", redis.url];
  return serves(await startVmcp(["proxy", "--id", id, ...where, ...delay, ...flags]));
}

/** Settles when the proxy lists the tools of both backends. */
async function serves(proxy: RunningVmcp): Promise<RunningVmcp> {
  await eventually(`${proxy.address} serves`, async () => {
    const session = await openRawSession(urlOf(proxy));
    const tools = await session.result("tools/list");
    await session.delete();
    return tools.includes("one_counter") && tools.includes("two_counter");
  });
  return proxy;
}

function headersOf(id: string): Record<string, string> {
  return { ...mcpHeaders, "mcp-session-id": id, "mcp-protocol-version": "2025-11-25" };
}

function ask(url: string, session: string, method: string, params: object = {}, id = 1): Promise<RawAnswer> {
  return send(url, { method: "POST", headers: headersOf(session), body: JSON.stringify({ jsonrpc: "2.0", id, method, params }) });
}

async function count(url: string, session: string, tool = "one_counter", id = 1): Promise<string> {
  return (await ask(url, session, "tools/call", { name: tool }, id)).body;
}

async function streamOf(url: string, id: string, lastId?: string) {
  const { request } = await import("undici");
  const abort = new AbortController();
  const headers = { ...headersOf(id), ...(lastId === undefined ? {} : { "last-event-id": lastId }) };
  const { body, statusCode } = await request(url, { headers, signal: abort.signal });
  assert.equal(statusCode, 200);
  const messages: string[] = [];
  let rest = "";
  body.on("data", (chunk: Buffer) => {
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) messages.push(/^data: ?(.*)$/m.exec(block)?.[1] ?? "");
  });
  body.on("error", () => undefined);
  return {
    messages,
    next: (method: string) => eventually(`${method} on the stream`, () => messages.find((message) => message.includes(method))),
    [Symbol.asyncDispose]: async () => abort.abort(),
  };
}
