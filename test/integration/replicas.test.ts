// Two proxies behind a balancer without stickiness are one server: what a session began on one goes on on the other. So are two
// workers of one proxy, with or without Redis: workers-as-replicas.test.ts and workers-with-redis.test.ts run this then.
// Longer than most files here, because that is one promise, and every part of the protocol has to keep it.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { request as httpRequest } from "undici";
import { type Backend, type Call, counter, plainTool, startBackend, textResult } from "../support/backend.ts";
import { type Balancer, type Exchange, startBalancer } from "../support/balancer.ts";
import { mcpHeaders, openClient, type RawAnswer, send } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { readRpc } from "../support/json.ts";
import { type Mesh, startMesh, workersOf } from "../support/mesh.ts";
import { type RunningVmcp, startVmcp } from "../support/processes.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";

process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex"); // the proxies inherit it

const { VMCP_REPLICAS: kind = "proxies with Redis" } = process.env;
const areWorkers = kind.startsWith("workers");
const hasRedis = kind.endsWith("with Redis");
const skip = areWorkers && "workers share a secret, and workers.test.ts kills them";

const stack = new AsyncDisposableStack();
let mesh: Mesh;
let balancer: Balancer;
let backend: Backend;
let redis: RedisServer;
let replicas: readonly { readonly address: string }[];
let gate = Promise.withResolvers<void>();
let questions = 0;

const tools = [...["echo", "steps", "gated", "ask", "endless"].map((name) => plainTool(name)), counter.tool];

before(async () => {
  backend = stack.use(
    await startBackend({ tools, calls: { echo: () => textResult("hello"), steps, gated, ask, endless, counter: counter.call } }),
  );
  // Large enough that three lists don't fit on one page.
  const many = Array.from({ length: 50 }, (_, i) => plainTool(`t${i}`, "x".repeat(9_000)));
  const wide = { tools: many, pageSize: 20, calls: { t49: () => textResult("the last") } };
  const [one, two, three] = await Promise.all([startBackend(wide), startBackend(wide), startBackend(wide)]);
  for (const started of [one, two, three]) stack.use(started);
  if (hasRedis) redis = stack.use(await startRedis());
  const flags = hasRedis ? ["--redis", redis.url] : [];
  mesh = stack.use(await (areWorkers ? startMesh(1, ["--workers", "2", ...flags]) : startMesh(2, flags)));
  const { code, stderr } = await mesh.apply([
    virtualServer("team", { backends: [httpBackend("b", backend.url)] }),
    virtualServer("wide", {
      backends: [httpBackend("one", one.url), httpBackend("two", two.url), httpBackend("three", three.url)],
    }),
  ]);
  assert.equal(code, 0, stderr);
  replicas = areWorkers ? (await workersOf(mesh.proxies[0] as RunningVmcp)).running : mesh.proxies;
  for (const replica of replicas) await becomesReady(replica);
  balancer = stack.use(await startBalancer(replicas.map(({ address }) => address)));
});
after(() => stack.disposeAsync());

test("the SDK's client initializes, lists, calls and is asked, each request on another replica", async () => {
  await using sdk = await openClient(`${balancer.address}/team/mcp`, { elicitation: {}, sampling: {}, roots: {} });
  sdk.client.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept", content: { name: "Ada" } }));
  sdk.client.setRequestHandler(ListRootsRequestSchema, async () => ({ roots: [{ uri: "file:///work" }] }));
  sdk.client.setRequestHandler(CreateMessageRequestSchema, async () => {
    return { model: "m", role: "assistant", content: { type: "text", text: "sampled" } };
  });
  assert.deepEqual((await sdk.toolNames()).sort(), ["b_ask", "b_counter", "b_echo", "b_endless", "b_gated", "b_steps"]);
  const before = balancer.counts.slice();
  for (let i = 0; i < 10; i++) assert.equal(await sdk.call("b_echo"), "hello");
  for (const [i, count] of balancer.counts.entries()) assert.ok(count >= (before[i] as number) + 5, `replica ${i}: ${count}`);
  for (let i = 0; i < 3; i++) {
    assert.match(await sdk.call("b_ask", elicitation), /"name":"Ada"/);
    assert.match(await sdk.call("b_ask", sampling), /"text":"sampled"/);
    assert.match(await sdk.call("b_ask", { method: "roots/list" }), /"uri":"file:\/\/\/work"/);
    await sdk.client.ping(); // turns the balancer by one, so that either replica gets either part
  }
  const answered = balancer.exchanges.filter((one) => one.body().includes(`"result":`));
  assert.deepEqual(new Set(answered.map((one) => one.backend)), new Set([0, 1]));
  assert.ok(answered.every((one) => one.status === 202));
});

for (const [name, question, answer] of [
  [
    "elicitation",
    { method: "elicitation/create", params: { message: "who?" } },
    `{"action":"accept","content":{"n":12345678901234567890}}`,
  ],
  [
    "sampling",
    { method: "sampling/createMessage", params: { messages: [], maxTokens: 1 } },
    `{"model":"m","role":"assistant","content":{}}`,
  ],
  ["roots", { method: "roots/list" }, `{"roots":[]}`],
] as const) {
  for (const [asking, answering] of [
    [0, 1],
    [1, 0],
  ] as const) {
    test(`${name} inside a call on replica ${asking}, answered on replica ${answering}`, async () => {
      const session = await openSession(asking);
      await using call = await open(asking, session, rpc(1, "tools/call", { name: "b_ask", arguments: question }));
      const asked = await call.next(({ data }) => readRpc(data)?.method === question.method);
      const { status } = await post(answering, session, `{"jsonrpc":"2.0","id":${readRpc(asked.data)?.id},"result":${answer}}`);
      assert.equal(status, 202);
      const { data } = await call.next(({ data }) => readRpc(data)?.id === "1");
      assert.ok(JSON.parse(data).result.content[0].text.includes(answer), data);
    });
  }
}

test("an answer that was not asked for is refused on either replica", async () => {
  const session = await openSession(0);
  const stranger = await openSession(0);
  await using call = await open(0, session, rpc(1, "tools/call", { name: "b_ask", arguments: { method: "roots/list" } }));
  const { data } = await call.next((one) => readRpc(one.data)?.method === "roots/list");
  const answer = `{"jsonrpc":"2.0","id":${readRpc(data)?.id},"result":{"roots":[]}}`;
  for (const replica of [0, 1]) {
    assert.equal((await post(replica, stranger, answer)).status, 400, "of another session");
    assert.equal((await post(replica, session, `{"jsonrpc":"2.0","id":"made up","result":{}}`)).status, 400);
  }
  assert.equal((await post(1, session, answer)).status, 202);
  await call.next((one) => readRpc(one.data)?.id === "1");
});

test("progress keeps its order, and its token, from either replica", async () => {
  await using sdk = await openClient(`${balancer.address}/team/mcp`);
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      const seen: number[] = [];
      const call = { name: "b_steps", arguments: {} };
      await sdk.client.callTool(call, undefined, { onprogress: ({ progress }) => seen.push(progress) });
      assert.deepEqual(
        seen,
        Array.from({ length: 50 }, (_, i) => i + 1),
      );
    }),
  );
});

for (const [calling, cancelling] of [
  [0, 1],
  [1, 0],
] as const) {
  test(`a call on replica ${calling} that is cancelled on replica ${cancelling} is cancelled at the backend`, async () => {
    const session = await openSession(0);
    await using call = await open(calling, session, rpc(`c${calling}`, "tools/call", { name: "b_endless" }));
    const received = readRpc(backend.bodies("tools/call").at(-1) ?? "");
    const before = backend.bodies("notifications/cancelled").length;
    const params = { requestId: `c${calling}`, reason: "enough" };
    assert.equal((await post(cancelling, session, note("notifications/cancelled", params))).status, 202);
    await eventually("the backend hears of it", () => backend.bodies("notifications/cancelled").length > before);
    const cancelled = readRpc(backend.bodies("notifications/cancelled").at(-1) ?? "");
    assert.equal(JSON.stringify(cancelled?.params.requestId), received?.id);
    await call.ended;
    assert.ok(!call.events.some(({ data }) => /"result"|"error"/.test(data)), "nothing answers a cancelled call");
  });
}

test("list_changed comes on a GET stream that another replica carries", async () => {
  for (const replica of [0, 1]) {
    const session = await openSession(0);
    await using stream = await open(replica, session);
    assert.equal(stream.status, 200);
    await changeTools(session, `new${replica}`);
    await stream.next(({ data }) => readRpc(data)?.method === "notifications/tools/list_changed");
  }
});

test("the SDK's client comes back on another replica after its stream was cut, and misses nothing", async () => {
  await using own = await startBalancer(replicas.map(({ address }) => address));
  await using sdk = await openClient(`${own.address}/team/mcp`);
  const isStream = ({ method, status }: Exchange) => method === "GET" && status === 200;
  const cut = await eventually("its stream", () => own.cut(isStream));
  await changeTools({ id: sdk.sessionId }, "while-away");
  await eventually("list_changed", () => sdk.notifications.includes("notifications/tools/list_changed"), 20_000);
  assert.notEqual(own.exchanges.findLast(isStream)?.backend, cut.backend);
});

for (const [carrying, resuming] of [
  [0, 1],
  [1, 0],
  [1, 1],
] as const) {
  test(`a GET stream cut on replica ${carrying} is resumed on replica ${resuming}`, async () => {
    const session = await openSession(0);
    const cut = await open(carrying, session);
    const priming = await cut.next(({ id }) => id !== undefined);
    await cut[Symbol.asyncDispose]();
    await changeTools(session, `cut${carrying}${resuming}`);
    await using resumed = await open(resuming, session, undefined, priming.id);
    await resumed.next(({ data }) => readRpc(data)?.method === "notifications/tools/list_changed");
    assert.equal(resumed.events.filter(({ data }) => data.includes("tools/list_changed")).length, 1);
  });

  test(`a call's stream cut on replica ${carrying} is resumed on replica ${resuming}: nothing is lost, nothing comes twice`, async () => {
    const session = await openSession(0);
    gate = Promise.withResolvers();
    const params = { name: "b_gated", _meta: { progressToken: "p" } };
    const cut = await open(carrying, session, rpc(7, "tools/call", params));
    const last = await cut.next(({ data }) => data.includes(`"progress":2`));
    await cut[Symbol.asyncDispose]();
    gate.resolve();
    await using resumed = await open(resuming, session, undefined, last.id);
    await resumed.next(({ data }) => readRpc(data)?.id === "7");
    await resumed.ended;
    const steps = resumed.events.filter(({ data }) => data !== "").map(({ data }) => JSON.parse(data));
    assert.deepEqual(
      steps.map((one) => one.params?.progress ?? one.result.content[0].text),
      [3, 4, "done"],
    );
  });
}

test("150 tools of three backends are all found, page by page, each page on another replica", async () => {
  await using sdk = await openClient(`${balancer.address}/wide/mcp`);
  const wanted = ["one", "two", "three"].flatMap((name) => Array.from({ length: 50 }, (_, i) => `${name}_t${i}`)).sort();
  await eventually("all are listed", async () => (await sdk.toolNames()).length === 150);
  const before = balancer.exchanges.length;
  assert.deepEqual((await sdk.toolNames()).sort(), wanted);
  const pages = balancer.exchanges.slice(before).filter((one) => one.body().includes(`"tools/list"`));
  assert.ok(pages.length > 1, `${pages.length} pages`);
  assert.deepEqual(new Set(pages.map((one) => one.backend)), new Set([0, 1]));
  assert.equal(await sdk.call("three_t49"), "the last");
});

test("a session that ended on one replica is gone on the other", async () => {
  for (const [ending, asking] of [
    [1, 0],
    [0, 1],
  ] as const) {
    const session = await openSession(0);
    await using stream = await open(1, session);
    assert.ok((await send(url(ending), { method: "DELETE", headers: headersOf(session) })).status < 300);
    for (const replica of [asking, ending]) assert.equal((await post(replica, session, rpc(1, "ping"))).status, 404);
    await stream.ended;
  }
});

test("a changed session id is no session on any replica", async () => {
  const session = await openSession(0);
  const { id } = session;
  const other = (char: string) => (char === "A" ? "B" : "A");
  const changed = Array.from(id, (char, i) => id.slice(0, i) + other(char) + id.slice(i + 1));
  const madeUp = [
    id.slice(0, -1),
    `${id}A`,
    id.slice(1),
    id + id,
    "x",
    "s1.",
    "../../etc",
    randomBytes(64).toString("base64url"),
  ];
  for (const replica of [0, 1]) {
    const answers = await Promise.all([...changed, ...madeUp].map((forged) => post(replica, { id: forged }, rpc(1, "ping"))));
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([404]));
  }
  assert.equal((await post(1, session, rpc(1, "ping"))).status, 200);
});

test("a session id is void on another virtual server, and among proxies that have another secret", { skip }, async () => {
  await using stranger = await startProxy("stranger", { VMCP_SESSION_HMAC_SECRET: randomBytes(32).toString("hex") });
  const session = await openSession(0);
  for (const { address } of replicas) assert.equal((await ping(`${address}/wide/mcp`, session)).status, 404);
  assert.equal((await ping(`${stranger.address}/team/mcp`, session)).status, 404);
  const foreign = await openSession(`${stranger.address}/team/mcp`);
  assert.equal((await ping(`${stranger.address}/team/mcp`, foreign)).status, 200);
  for (const replica of [0, 1]) assert.equal((await post(replica, foreign, rpc(1, "ping"))).status, 404);
});

test("a session outlives the replica that opened it: only the call that it ran is lost", { skip }, async () => {
  await using opener = await startProxy("short-lived");
  const session = await openSession(`${opener.address}/team/mcp`);
  await using call = await open(`${opener.address}/team/mcp`, session, rpc(1, "tools/call", { name: "b_endless" }));
  const count = async (at: number | string): Promise<string> =>
    (await post(at, session, rpc(2, "tools/call", { name: "b_counter" }))).body;
  assert.match(await count(`${opener.address}/team/mcp`), /"1"/);
  opener.kill("SIGKILL");
  await Promise.all([call.ended, opener.ended]);
  // The backend's own session goes on too: it counts on.
  for (const [i, replica] of [1, 0, 1].entries()) assert.match(await count(replica), new RegExp(`"${i + 2}"`));
  await using stream = await open(1, session);
  assert.equal(stream.status, 200);
});

const elicitation = {
  method: "elicitation/create",
  params: { message: "who?", requestedSchema: { type: "object", properties: {} } },
};
const sampling = {
  method: "sampling/createMessage",
  params: { messages: [{ role: "user", content: { type: "text", text: "hi" } }], maxTokens: 1 },
};

function steps({ params, notify }: Call): string {
  for (let progress = 1; progress <= 50; progress++) notify(step(params, progress));
  return textResult("done");
}

/** Two steps, and two more once the gate opens. */
async function gated({ params, notify }: Call): Promise<string> {
  for (const progress of [1, 2]) notify(step(params, progress));
  await gate.promise;
  for (const progress of [3, 4]) notify(step(params, progress));
  return textResult("done");
}

/** Asks the client what its arguments say, and gives the client's answer as it came. */
async function ask({ params, notify }: Call): Promise<string> {
  const id = `"question-${++questions}"`;
  const question = params.arguments as { method: string; params?: object };
  notify(JSON.stringify({ jsonrpc: "2.0", id: JSON.parse(id), ...question }));
  const isAnswer = ({ message }: Backend["requests"][number]) => message?.id === id && message.method === undefined;
  return textResult((await eventually("the client's answer", () => backend.requests.find(isAnswer))).body);
}

/** Says one thing, so that the answer is a stream at once, and never ends. */
function endless({ notify }: Call): Promise<string> {
  notify(note("notifications/message", { level: "info", data: "on it" }));
  return new Promise(() => undefined);
}

function step({ _meta }: Call["params"], progress: number): string {
  const { progressToken } = _meta as { progressToken: unknown };
  return note("notifications/progress", { progressToken, progress });
}

const note = (method: string, params: object) => JSON.stringify({ jsonrpc: "2.0", method, params });
const rpc = (id: number | string, method: string, params: object = {}) => JSON.stringify({ jsonrpc: "2.0", id, method, params });

interface Session {
  readonly id: string;
}

const url = (replica: number) => `${replicas[replica]?.address}/team/mcp`;
const headersOf = ({ id }: Session) => ({ ...mcpHeaders, "mcp-session-id": id, "mcp-protocol-version": "2025-11-25" });
const ping = (at: string, session: Session) => send(at, { method: "POST", headers: headersOf(session), body: rpc(0, "ping") });
const post = (at: number | string, session: Session, body: string): Promise<RawAnswer> =>
  send(typeof at === "number" ? url(at) : at, { method: "POST", headers: headersOf(session), body });

/** A session of a client that can do everything. */
async function openSession(at: number | string): Promise<Session> {
  const capabilities = { elicitation: {}, sampling: {}, roots: {} };
  const params = { protocolVersion: "2025-11-25", capabilities, clientInfo: { name: "raw", version: "1" } };
  const body = rpc(0, "initialize", params);
  const answer = await send(typeof at === "number" ? url(at) : at, { method: "POST", headers: mcpHeaders, body });
  return { id: String(answer.headers["mcp-session-id"]) };
}

interface StreamEvent {
  readonly id: string | undefined;
  readonly data: string;
}

interface Events extends AsyncDisposable {
  readonly status: number;
  /** All so far. */
  readonly events: readonly StreamEvent[];
  /** The first event, present or future, that the test accepts. */
  next(test: (event: StreamEvent) => boolean): Promise<StreamEvent>;
  /** Settles when the other side ended or cut the stream; rejects after 10 s. */
  readonly ended: Promise<unknown>;
}

/** Opens an event stream: of a request when there is a body, else by GET, after the event `lastId` when there is one. */
async function open(at: number | string, session: Session, body?: string, lastId?: string): Promise<Events> {
  const abort = new AbortController();
  const headers = { ...headersOf(session), ...(lastId === undefined ? {} : { "last-event-id": lastId }) };
  const options = { method: body === undefined ? ("GET" as const) : ("POST" as const), headers, signal: abort.signal };
  const answer = await httpRequest(typeof at === "number" ? url(at) : at, body === undefined ? options : { ...options, body });
  const events: StreamEvent[] = [];
  let rest = "";
  let isEnded = false;
  answer.body.on("data", (chunk: Buffer) => {
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop() ?? "";
    events.push(...blocks.map((block) => ({ id: field(block, "id"), data: field(block, "data") ?? "" })));
  });
  answer.body.on("error", () => undefined); // cut, by us or by them: "close" follows
  answer.body.on("close", () => {
    isEnded = true;
  });
  return {
    status: answer.statusCode,
    events,
    next: (test) => eventually(`an event on the stream, after ${events.length}`, () => events.find(test)),
    get ended() {
      return eventually("the end of the stream", () => isEnded);
    },
    [Symbol.asyncDispose]: async () => abort.abort(),
  };
}

function field(block: string, name: string): string | undefined {
  const line = block.split("\n").find((one) => one.startsWith(`${name}:`));
  return line?.slice(name.length + 1).trimStart();
}

/** The backend offers one tool more; settles when the session's owner lists it. */
async function changeTools(session: Session, name: string): Promise<void> {
  backend.set({ tools: [...tools, plainTool(name)] });
  backend.announce("tools");
  const list = rpc(`list-${name}`, "tools/list");
  await eventually(`${name} is listed`, async () => (await post(0, session, list)).body.includes(`"b_${name}"`));
}

async function startProxy(id: string, env: Record<string, string> = {}): Promise<RunningVmcp> {
  const flags = ["--control-plane", mesh.controlPlane.adminAddress, "--port", "0", "--drain-delay", "0s", "--redis", redis.url];
  return becomesReady(await startVmcp(["proxy", "--id", id, ...flags], { env }));
}

/** Settles when the proxy lists the tools of every backend. */
async function becomesReady<T extends { readonly address: string }>(proxy: T): Promise<T> {
  for (const [server, count] of [
    ["team", tools.length],
    ["wide", 150],
  ] as const) {
    await eventually(`${proxy.address} serves ${server}`, async () => {
      await using sdk = await openClient(`${proxy.address}/${server}/mcp`);
      return (await sdk.toolNames()).length >= count;
    });
  }
  return proxy;
}
