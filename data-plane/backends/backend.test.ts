import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type BackendScript, counter, plainTool, startBackend, textResult } from "../../test/support/backend.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { createLocalSessions } from "../session/local-sessions.ts";
import type { Session } from "../session/session.ts";
import { type Backend, createBackend } from "./backend.ts";
import { BackendError } from "./errors.ts";
import type { Hear } from "./leg.ts";
import { createLimit, type Limit } from "./limit.ts";

const log = pino({ level: "silent" });
const breaker = { enabled: true, failureThreshold: 3, openMs: 60_000 };

/** A backend of ours in front of a scripted server, with sessions to call it from. */
async function setUp(t: TestContext, url: string, settings = breaker) {
  const sessions = createLocalSessions({ idleMs: 60_000, sessionsMax: 10 });
  const changes = new EventTarget();
  const outside: string[] = [];
  const backend = createBackend({
    spec: create(BackendSchema, { name: "scripted", url, transport: "streamable-http" }),
    credential: sameForAll([]),
    breaker: settings,
    log,
    onMessage: (_session, _backend, message) => void outside.push(message.json.toString()),
    onChange: () => changes.dispatchEvent(new Event("change")),
  });
  t.after(async () => {
    await sessions[Symbol.asyncDispose]();
    await backend.retire(0);
  });
  await backend.firstAttempt;
  const until = async (isTrue: () => boolean) => {
    while (!isTrue()) await once(changes as never, "change", { signal: AbortSignal.timeout(10_000) });
  };
  return { backend, sessions, newSession: () => newSession(sessions), until, outside };
}

function newSession(sessions: ReturnType<typeof createLocalSessions>): Session {
  const identity = { issuer: "i", subject: "s", isAnonymous: false };
  const session = sessions.create({
    virtualServer: "v",
    identity,
    era: "session",
    protocolVersion: "2025-11-25",
    clientInfo: '{"name":"c","version":"1"}',
    capabilities: '{"roots":{}}',
  });
  assert.ok(session);
  return session;
}

const toolCall = (name: string, id = "1") => readMessage(request("tools/call", JSON.stringify({ name }), id));

function call(
  backend: Backend,
  session: Session,
  name: string,
  options: { timeoutMs?: number; limit?: Limit; onMessage?: Hear } = {},
) {
  const { timeoutMs = 5_000, limit = createLimit(), onMessage } = options;
  return backend.call(session, toolCall(name), { timeoutMs, limit, ...(onMessage ? { onMessage } : {}) });
}

const resultOf = ({ json }: Message) => JSON.parse(json.toString()).result.content[0].text as string;
const failure = (code: string, outcome: string) => (error: unknown) => {
  assert.ok(error instanceof BackendError, String(error));
  assert.deepEqual([error.code, error.outcome], [code, outcome]);
  return true;
};

const counting: BackendScript = { tools: [counter.tool], calls: { counter: counter.call } };

test("a session keeps its own session with the backend", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession } = await setUp(t, server.url);
  const [one, two] = [newSession(), newSession()];
  const counts = [];
  for (const session of [one, one, two, one]) counts.push(resultOf(await call(backend, session, "counter")));
  assert.deepEqual(counts, ["1", "2", "1", "3"]);
});

test("calls that come together open one session", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession } = await setUp(t, server.url);
  const session = newSession();
  const answers = await Promise.all([1, 2, 3, 4].map(() => call(backend, session, "counter")));
  assert.deepEqual(answers.map(resultOf).sort(), ["1", "2", "3", "4"]);
  assert.equal(server.sessions().length, 2); // the watcher's, and this one
});

test("a session that ends ends its session with the backend", async (t) => {
  await using server = await startBackend(counting);
  const { backend, sessions, newSession } = await setUp(t, server.url);
  const session = newSession();
  await call(backend, session, "counter");
  sessions.end(session);
  while (server.sessions().length > 1) await new Promise(setImmediate);
});

for (const sessionsCount of [0, 3])
  test(`one that is removed with ${sessionsCount} clients is left without a session, that of the lists included`, async (t) => {
    await using server = await startBackend(counting);
    const { backend, newSession } = await setUp(t, server.url);
    for (let i = 0; i < sessionsCount; i++) await call(backend, newSession(), "counter");
    assert.equal(server.sessions().length, sessionsCount + 1);
    await backend.retire(0);
    assert.deepEqual(server.sessions(), []);
  });

test("a backend that forgot the session gets a new one, and the refused call runs once", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession } = await setUp(t, server.url);
  const session = newSession();
  await call(backend, session, "counter");
  server.dropSessions();
  assert.equal(resultOf(await call(backend, session, "counter")), "1");
});

test("what the backend says and asks before the answer is handed on; pings are answered", async (t) => {
  const progress = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}';
  const question = '{"jsonrpc":"2.0","id":"s2","method":"roots/list"}';
  const calls: BackendScript["calls"] = {
    talk: ({ notify }) => {
      for (const said of ['{"jsonrpc":"2.0","id":"s1","method":"ping"}', question, progress]) notify(said);
      return textResult("done");
    },
  };
  await using server = await startBackend({ tools: [plainTool("talk")], calls });
  const { backend, newSession } = await setUp(t, server.url);
  const heard: string[] = [];
  const answer = await call(backend, newSession(), "talk", { onMessage: ({ json }) => void heard.push(json.toString()) });
  assert.equal(resultOf(answer), "done");
  assert.deepEqual(heard, [question, progress]);
  while (!server.requests.some(({ body }) => body === '{"jsonrpc":"2.0","id":"s1","result":{}}')) await new Promise(setImmediate);
});

test("the backend is told what the client can do", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession } = await setUp(t, server.url);
  await call(backend, newSession(), "counter");
  const told = server.bodies("initialize").map((body) => JSON.parse(body).params.capabilities);
  assert.deepEqual(told, [{}, { roots: {} }]); // the watcher can do nothing
});

test("a session with a stream hears what the backend says outside of calls, also after the stream was cut", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession, outside } = await setUp(t, server.url);
  const session = newSession();
  const closed = new AbortController();
  session.stream = { send: () => undefined, end: () => undefined, closed: closed.signal };
  await call(backend, session, "counter");
  const heard = async (note: string) => {
    while (server.streams() < 2) await new Promise(setImmediate);
    server.push(note);
    while (!outside.includes(note)) await new Promise(setImmediate);
  };
  await heard('{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}');
  server.cutStreams();
  await heard('{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":2}}');
  closed.abort();
  while (server.streams() > 1) await new Promise(setImmediate);
});

test("a call whose stream is cut before the answer is resumed where it was cut", async (t) => {
  await using server = await startResumable(t);
  const { backend, newSession } = await setUp(t, server.url);
  assert.equal(resultOf(await call(backend, newSession(), "slow")), "resumed after e1");
});

test("a call ends at its deadline, with an unknown outcome, and the backend is told", async (t) => {
  const calls: BackendScript["calls"] = { hang: () => new Promise<string>(() => undefined) };
  await using server = await startBackend({ tools: [plainTool("hang")], calls });
  const { backend, newSession } = await setUp(t, server.url);
  await assert.rejects(call(backend, newSession(), "hang", { timeoutMs: 100 }), failure("timeout", "unknown"));
  while (server.bodies("notifications/cancelled").length === 0) await new Promise(setImmediate);
  assert.deepEqual(JSON.parse(server.bodies("notifications/cancelled")[0] ?? "").params, { requestId: 1 });
});

test("a backend that can't be reached did not run the call", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession, until } = await setUp(t, server.url);
  await server.down();
  await until(() => backend.state.state !== "healthy");
  await assert.rejects(call(backend, newSession(), "counter"), failure("unavailable", "not_executed"));
});

test("the breaker opens after failures in a row, answers at once, and closes when the backend is back", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession, until } = await setUp(t, server.url);
  const session = newSession();
  await call(backend, session, "counter");
  await server.down();
  await until(() => backend.state.state !== "healthy");
  for (let i = 0; i < 3; i++) await assert.rejects(call(backend, session, "counter"), failure("unavailable", "not_executed"));
  await assert.rejects(call(backend, session, "counter"), failure("shed", "not_executed"));
  assert.equal(backend.catalog?.tools.length, 1); // what it offers stays known
  await server.up();
  await until(() => ["healthy", "degraded"].includes(backend.state.state));
  assert.equal(resultOf(await call(backend, session, "counter")), "1");
});

test("a backend that is down at first is listed when it comes", async (t) => {
  await using server = await startBackend(counting);
  await server.down();
  const { backend, until } = await setUp(t, server.url);
  const listed = () => backend.catalog?.tools.map(({ key }) => key);
  assert.equal(listed(), undefined);
  await server.up();
  await until(() => listed() !== undefined);
  assert.deepEqual(listed(), ["counter"]);
});

test("a changed list is fetched again", async (t) => {
  await using server = await startBackend({ ...counting, pageSize: 1 });
  const { backend, until } = await setUp(t, server.url);
  while (server.streams() === 0) await new Promise(setImmediate);
  server.set({ tools: [counter.tool, plainTool("new"), plainTool("new")] });
  server.announce("tools");
  await until(() => backend.catalog?.tools.length === 2);
});

const faults: [name: string, status: number, type: string, body: string, code: string, outcome: string][] = [
  ["no JSON", 200, "application/json", "<html>", "bad_answer", "unknown"],
  ["half of a message", 200, "application/json", '{"jsonrpc":"2.0","id":1,"result":{', "bad_answer", "unknown"],
  ["another id", 200, "application/json", '{"jsonrpc":"2.0","id":2,"result":{}}', "bad_answer", "unknown"],
  ["nothing", 200, "application/json", "", "bad_answer", "unknown"],
  ["a stream without an answer", 200, "text/event-stream", ": hi\n\n", "bad_answer", "unknown"],
  ["a stream of nonsense", 200, "text/event-stream", "data: nonsense\n\n", "bad_answer", "unknown"],
  ["a server error", 502, "text/plain", "oops", "unavailable", "unknown"],
  ["401", 401, "application/json", "{}", "unauthorized", "not_executed"],
  ["a redirect", 302, "text/plain", "", "bad_answer", "unknown"],
];
for (const [name, status, type, body, code, outcome] of faults) {
  test(`an answer that is ${name} is ${code}, ${outcome}`, async (t) => {
    const { backend, newSession } = await setUp(t, await startFaulty(t, status, type, body));
    await assert.rejects(call(backend, newSession(), "t"), failure(code, outcome));
  });
}

test("an HTTP error that carries a JSON-RPC error is that error", async (t) => {
  const { backend, newSession } = await setUp(
    t,
    await startFaulty(
      t,
      400,
      "application/json",
      '{"jsonrpc":"2.0","id":null,"error":{"code":-7,"message":"no","data":{"n":1.0}}}',
    ),
  );
  const { json } = await call(backend, newSession(), "t");
  assert.equal(json.toString(), '{"jsonrpc":"2.0","id":1,"error":{"code":-7,"message":"no","data":{"n":1.0}}}');
});

for (const [sent, answered] of [
  ['"req\\/1"', '"req/1"'],
  ['"\\u00e9"', '"é"'],
  ["1.0", "1"],
]) {
  test(`an answer to ${sent} may call it ${answered}, and gets to the client as it was asked`, async (t) => {
    const url = await startServer(t, (text, _incoming, response) => {
      if (!text.includes('"tools/call"')) return void response.writeHead(202).end();
      response
        .writeHead(200, { "content-type": "application/json" })
        .end(`{"jsonrpc":"2.0","id":${answered},"result":{"n":1.0}}`);
    });
    const { backend, newSession } = await setUp(t, url);
    const { json } = await backend.call(newSession(), toolCall("t", sent), { timeoutMs: 5_000, limit: createLimit() });
    assert.equal(json.toString(), `{"jsonrpc":"2.0","id":${sent},"result":{"n":1.0}}`);
  });
}

test("requests that a backend refuses do not open the breaker", async (t) => {
  const { backend, newSession } = await setUp(t, await startFaulty(t, 413, "text/plain", "too large"));
  for (let i = 0; i < 10; i++) await assert.rejects(call(backend, newSession(), "t"), failure("refused", "not_executed"));
});

test("new breaker settings hold from the next call on", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession, until } = await setUp(t, server.url);
  await server.down();
  await until(() => backend.state.state !== "healthy");
  backend.configure({ ...breaker, failureThreshold: 1 });
  await assert.rejects(call(backend, newSession(), "counter"), failure("unavailable", "not_executed"));
  await assert.rejects(call(backend, newSession(), "counter"), failure("shed", "not_executed"));
});

test("new breaker settings keep an open breaker open", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession, until } = await setUp(t, server.url);
  const session = newSession();
  await server.down();
  await until(() => backend.state.state !== "healthy");
  for (let i = 0; i < 3; i++) await assert.rejects(call(backend, session, "counter"), failure("unavailable", "not_executed"));
  backend.configure({ ...breaker, failureThreshold: 100 });
  await assert.rejects(call(backend, session, "counter"), (error: unknown) => {
    assert.ok(error instanceof BackendError && error.leftAlone, String(error));
    const { sinceMs, retryAfterMs } = error.leftAlone;
    assert.ok(sinceMs >= 0 && retryAfterMs > 0 && retryAfterMs <= 1_500, `${sinceMs} ${retryAfterMs}`);
    return true;
  });
  backend.configure({ ...breaker, enabled: false });
  await assert.rejects(call(backend, session, "counter"), failure("unavailable", "not_executed"));
});

test("a backend that asks for less is no failure, and known for what it is", async (t) => {
  const { backend, newSession } = await setUp(t, await startFaulty(t, 429, "text/plain", "slow down"));
  for (let i = 0; i < 5; i++)
    await assert.rejects(call(backend, newSession(), "t"), (error: unknown) => (error as BackendError).asksForLess);
});

for (const [status, isLeftAlone] of [
  [429, false],
  [500, false],
  [502, true],
  [503, true],
  [504, true],
] as const)
  test(`errors in words of MCP under HTTP ${status} reach the client, ${isLeftAlone ? "and the backend is left alone after a few" : "and are no failures"}`, async (t) => {
    const words = JSON.stringify({ jsonrpc: "2.0", error: { code: -32603, message: "too much" } });
    const url = await startFaulty(t, status, "application/json", words);
    const { backend, newSession } = await setUp(t, url, { ...breaker, failureThreshold: 3, openMs: 60_000 });
    const session = newSession();
    for (let i = 0; i < 3; i++) assert.match(`${(await call(backend, session, "t")).json}`, /too much/);
    const next = call(backend, session, "t");
    if (isLeftAlone) await assert.rejects(next, failure("shed", "not_executed"));
    else assert.match(`${(await next).json}`, /too much/);
  });

test("a backend that answers us is left alone for longer and longer while its calls fail", async (t) => {
  const url = await startServer(t, (body, _incoming, response) => {
    if (!body.includes('"ping"')) return void response.writeHead(body.includes('"tools/call"') ? 500 : 202).end();
    const { id } = JSON.parse(body);
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ jsonrpc: "2.0", id, result: {} }));
  });
  const { backend, newSession } = await setUp(t, url, { ...breaker, failureThreshold: 1, openMs: 4_500 });
  const session = newSession();
  const pausesMs: number[] = [];
  for (let lastMs = 0; pausesMs.length < 3; ) {
    const error = await call(backend, session, "t").then(
      () => assert.fail("it worked"),
      (failed: BackendError) => failed,
    );
    if (error.code !== "shed") {
      if (lastMs > 0) pausesMs.push(performance.now() - lastMs);
      lastMs = performance.now();
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  // That it answers is news once, as far as anybody knows; the third pause is 3 s to 4.5 s.
  const least = [1_000, 1_000, 3_000];
  for (const [i, ms] of pausesMs.entries()) assert.ok(ms >= (least[i] as number) - 50, `tried after ${pausesMs}`);
});

test("what we ask on top of a call is not asked of a backend that is left alone", async (t) => {
  await using server = await startBackend(counting);
  const { backend, newSession, until } = await setUp(t, server.url);
  const session = newSession();
  await server.down();
  await until(() => backend.state.state !== "healthy");
  const onTop = () => backend.call(session, toolCall("counter"), { timeoutMs: 5_000, limit: createLimit(), isIncidental: true });
  for (let i = 0; i < 5; i++) await assert.rejects(onTop(), failure("unavailable", "not_executed")); // nor does it count
  for (let i = 0; i < 3; i++) await assert.rejects(call(backend, session, "counter"), failure("unavailable", "not_executed"));
  await assert.rejects(onTop(), failure("shed", "not_executed"));
});

test("a call that nobody waits for any longer holds its slot until it has ended", async (t) => {
  let opens = Promise.resolve();
  const url = await startServer(
    t,
    (text, _incoming, response) => {
      if (!text.includes('"tools/call"')) return void response.writeHead(202).end();
      const { id } = JSON.parse(text);
      response.writeHead(200, { "content-type": "application/json" }).end(`{"jsonrpc":"2.0","id":${id},"result":{}}`);
    },
    () => opens,
  );
  const { backend, newSession } = await setUp(t, url, { ...breaker, enabled: false });
  const session = newSession();
  const opening = Promise.withResolvers<void>();
  opens = opening.promise;
  const calls = Array.from({ length: 256 }, () => call(backend, session, "t", { timeoutMs: 100 }));
  for (const one of calls) await assert.rejects(one, failure("timeout", "unknown"));
  await assert.rejects(call(backend, session, "t"), failure("shed", "not_executed")); // all of them wait for the session still
  opening.resolve();
  const deadlineMs = performance.now() + 5_000;
  for (let isShed = true; isShed; ) {
    assert.ok(performance.now() < deadlineMs);
    await new Promise(setImmediate);
    isShed = await call(backend, session, "t").then(
      () => false,
      ({ code }: BackendError) => code === "shed",
    );
  }
});

test("a retired backend lets its calls in flight end", async (t) => {
  let answer: (text: string) => void = () => undefined;
  const calls: BackendScript["calls"] = {
    slow: () =>
      new Promise<string>((resolve) => {
        answer = resolve;
      }),
  };
  await using server = await startBackend({ tools: [plainTool("slow")], calls });
  const { backend, newSession } = await setUp(t, server.url);
  const pending = call(backend, newSession(), "slow");
  while (server.bodies("tools/call").length === 0) await new Promise(setImmediate);
  const retired = backend.retire(5_000);
  answer(textResult("in time"));
  assert.equal(resultOf(await pending), "in time");
  await retired;
  await assert.rejects(call(backend, newSession(), "slow"), failure("gone", "not_executed"));
});

test("a refused handshake leaves no session behind at the server", async (t) => {
  const initialize = JSON.stringify({ protocolVersion: "1999-01-01", capabilities: {}, serverInfo: { name: "s", version: "1" } });
  await using server = await startBackend({ ...counting, initialize });
  const { backend } = await setUp(t, server.url);
  assert.match(backend.state.error ?? "", /speaks MCP revision "1999-01-01"/);
  assert.deepEqual(server.sessions(), []);
});

/** A server that ends a call's stream early, with a hint when to come back. */
async function startResumable(t: TestContext): Promise<{ url: string } & AsyncDisposable> {
  const result = (text: string) => JSON.stringify({ content: [{ type: "text", text }] });
  const url = await startServer(t, (text, incoming, response) => {
    const lastId = incoming.headers["last-event-id"];
    if (incoming.method === "GET" && lastId === undefined) return response.writeHead(405).end();
    if (incoming.method !== "GET" && !text.includes('"tools/call"')) return response.writeHead(202).end();
    response.writeHead(200, { "content-type": "text/event-stream" });
    if (text.includes('"tools/call"')) return response.end("id: e1\nretry: 10\ndata:\n\n");
    return response.end(`id: e2\ndata: {"jsonrpc":"2.0","id":1,"result":${result(`resumed after ${lastId}`)}}\n\n`);
  });
  return { url, [Symbol.asyncDispose]: async () => undefined };
}

/** A server that opens sessions, and answers every call in one way. */
function startFaulty(t: TestContext, status: number, type: string, body: string): Promise<string> {
  return startServer(t, (text, _incoming, response) => {
    if (text.includes('"tools/call"')) response.writeHead(status, { "content-type": type }).end(body);
    else response.writeHead(202).end();
  });
}

type Respond = (text: string, incoming: IncomingMessage, response: ServerResponse) => void;

async function startServer(t: TestContext, respond: Respond, opens = async (): Promise<void> => undefined): Promise<string> {
  const server = createServer(async (incoming, response) => {
    const body = await text(incoming);
    if (!body.includes('"initialize"')) return respond(body, incoming, response);
    await opens();
    const result = { protocolVersion: "2025-11-25", capabilities: {}, serverInfo: { name: "f", version: "1" } };
    const { id } = JSON.parse(body);
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ jsonrpc: "2.0", id, result }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
}
