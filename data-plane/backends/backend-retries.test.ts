// What fails between us and a real server, and how often the server is called for it.
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type BackendScript, counter, type Handler, rawError, startBackend } from "../../test/support/backend.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { createLocalSessions } from "../session/local-sessions.ts";
import type { Session } from "../session/session.ts";
import { type Backend, createBackend } from "./backend.ts";
import { BackendError } from "./errors.ts";
import type { Hear } from "./leg.ts";
import { createLimit } from "./limit.ts";

const values = '{"completion":{"values":["a"]}}';
const progress = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}';
const script: BackendScript = {
  tools: [counter.tool],
  calls: { counter: counter.call },
  reads: { "x:1": () => '{"contents":[]}' },
  gets: { hello: () => '{"messages":[]}' },
  methods: { "completion/complete": () => values },
};

test("a server that is down at first and up again a moment later gets the call once", async (t) => {
  const { front, server, call, onRetry } = await setUp(t);
  await front.down();
  onRetry(() => void front.up());
  assert.match(text(await call("tools/call", '{"name":"counter"}')), /"text":"1"/);
  assert.equal(server.bodies("tools/call").length, 1);
});

test("one that comes back without its sessions gets the call once, on a new session", async (t) => {
  const { front, server, call, newSession, onRetry } = await setUp(t);
  const session = newSession();
  let runs = 0;
  const count: Handler = (asked) => {
    runs++;
    return counter.call(asked);
  };
  server.set({ calls: { counter: count } });
  await call("tools/call", '{"name":"counter"}', { session });
  await front.down();
  server.dropSessions();
  onRetry(() => void front.up());
  assert.match(text(await call("tools/call", '{"name":"counter"}', { session })), /"text":"1"/);
  assert.equal(runs, 2);
});

test("one that stays down is tried twice", async (t) => {
  const { front, call, retries } = await setUp(t);
  await front.down();
  await assert.rejects(call("tools/call", '{"name":"counter"}'), failure("unavailable", "not_executed"));
  assert.equal(retries(), 1);
});

test("a call is not tried again past its deadline", async (t) => {
  const { front, call, retries } = await setUp(t);
  await front.down();
  await assert.rejects(call("tools/call", '{"name":"counter"}', { timeoutMs: 9 }), BackendError);
  assert.ok(retries() <= 1);
});

test("a call of more than 64 KB is not sent again", async (t) => {
  const { front, call, retries } = await setUp(t);
  await front.down();
  const large = `{"name":"counter","arguments":{"text":"${"x".repeat(64 * 1024)}"}}`;
  await assert.rejects(call("tools/call", large), failure("unavailable", "not_executed"));
  assert.equal(retries(), 0);
});

for (const [method, params] of [
  ["tools/call", '{"name":"counter"}'],
  ["resources/read", '{"uri":"x:1"}'],
  ["prompts/get", '{"name":"hello"}'],
] as const) {
  test(`${method} whose connection is cut after the server had it runs once, and its outcome is unknown`, async (t) => {
    const { front, server, call, retries } = await setUp(t);
    front.cut(method, 1);
    await assert.rejects(call(method, params), failure("unavailable", "unknown"));
    assert.equal(server.bodies(method).length, 1);
    assert.equal(retries(), 0);
  });
}

for (const method of [
  "tools/list",
  "prompts/list",
  "resources/list",
  "resources/templates/list",
  "ping",
  "completion/complete",
]) {
  test(`${method} that is cut once is answered by a second attempt, and given up when that is cut too`, async (t) => {
    const { front, server, call, newSession } = await setUp(t);
    const session = newSession();
    const before = server.bodies(method).length;
    front.cut(method, 1);
    assert.match(text(await call(method, "{}", { session })), /"result"/);
    front.cut(method, 2);
    await assert.rejects(call(method, "{}", { session }), failure("unavailable", "unknown"));
    assert.equal(server.bodies(method).length - before, 4);
  });
}

test("a question that is cut after its client has heard progress is not asked again", async (t) => {
  const { front, server, call } = await setUp(t);
  server.set({
    methods: {
      "completion/complete": async ({ notify }) => {
        notify(progress);
        await said.promise;
        return values;
      },
    },
  });
  const said = Promise.withResolvers<void>();
  const heard: string[] = [];
  const onMessage: Hear = ({ json }) => {
    heard.push(json.toString());
    front.cutAll();
    said.resolve();
    return undefined;
  };
  await assert.rejects(call("completion/complete", "{}", { onMessage }), failure("unavailable", "unknown"));
  assert.deepEqual(heard, [progress]);
  assert.equal(server.bodies("completion/complete").length, 1);
});

test("an error that the server means is no reason to ask again", async (t) => {
  const { server, call } = await setUp(t);
  server.set({ methods: { "completion/complete": () => rawError('{"code":-32603,"message":"no"}') } });
  assert.match(text(await call("completion/complete", "{}")), /"message":"no"/);
  assert.equal(server.bodies("completion/complete").length, 1);
});

test("a server that answers nothing gets a fifth more than its calls, and fifty", async (t) => {
  const { front, server, call, newSession } = await setUp(t);
  const sessions = Array.from({ length: 5 }, newSession);
  const calls = 300;
  front.cut("completion/complete", Number.POSITIVE_INFINITY);
  for (let made = 0; made < calls; made += 50) {
    const some = Array.from({ length: 50 }, (_, i) => call("completion/complete", "{}", { session: sessions[i % 5] as Session }));
    for (const { status } of await Promise.allSettled(some)) assert.equal(status, "rejected");
  }
  const attempts = server.bodies("completion/complete").length;
  assert.ok(attempts > calls && attempts <= calls * 1.2 + 50, `${attempts} attempts for ${calls} calls`);
});

test("a server that is down is not tried more often than its budget allows", async (t) => {
  const { front, call, newSession, retries } = await setUp(t);
  const sessions = Array.from({ length: 5 }, newSession);
  await front.down();
  const all = Array.from({ length: 200 }, (_, i) =>
    call("tools/call", '{"name":"counter"}', { session: sessions[i % 5] as Session }),
  );
  for (const { status } of await Promise.allSettled(all)) assert.equal(status, "rejected");
  assert.ok(retries() > 0 && retries() <= 200 * 0.2 + 50, `${retries()} retries`);
});

test("while the breaker is open nothing is tried at all", async (t) => {
  const { front, call, retries } = await setUp(t, { enabled: true, failureThreshold: 1, openMs: 60_000 });
  await front.down();
  await assert.rejects(call("tools/call", '{"name":"counter"}'), failure("unavailable", "not_executed"));
  assert.equal(retries(), 1);
  await assert.rejects(call("tools/call", '{"name":"counter"}'), failure("shed", "not_executed"));
  assert.equal(retries(), 1);
});

test("a call that is let through to see whether the backend is back is tried once", async (t) => {
  const { front, call, newSession, retries } = await setUp(t, { enabled: true, failureThreshold: 1, openMs: 1_000 });
  const session = newSession();
  await front.down();
  await assert.rejects(call("tools/call", '{"name":"counter"}'), failure("unavailable", "not_executed"));
  const before = retries();
  const next = () =>
    call("tools/call", '{"name":"counter"}', { session }).then(
      () => assert.fail("it worked"),
      ({ code }: BackendError) => code,
    );
  const deadlineMs = performance.now() + 5_000;
  while ((await next()) === "shed") {
    assert.ok(performance.now() < deadlineMs);
    await new Promise(setImmediate);
  }
  assert.equal(retries(), before);
});

const text = ({ json }: Message) => json.toString();

function failure(code: string, outcome: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof BackendError, String(error));
    assert.deepEqual([error.code, error.outcome], [code, outcome]);
    return true;
  };
}

/** A backend of ours, a real server, and between them a wire that breaks when it is told to. */
async function setUp(t: TestContext, breaker = { enabled: false, failureThreshold: 3, openMs: 60_000 }) {
  const server = await startBackend(script);
  const front = await startFront(t, server.port);
  const sessions = createLocalSessions({ idleMs: 60_000, sessionsMax: 10 });
  let retries = 0;
  let onRetry: () => void = () => undefined;
  const log = pino({
    level: "debug",
    hooks: {
      logMethod(args) {
        if (args[1] !== "a call is made again") return;
        retries++;
        onRetry();
      },
    },
  });
  const backend = createBackend({
    spec: create(BackendSchema, { name: "scripted", url: `http://127.0.0.1:${front.port}/mcp`, transport: "streamable-http" }),
    credential: sameForAll([]),
    breaker,
    log,
    onMessage: () => undefined,
    onChange: () => undefined,
  });
  t.after(async () => {
    await sessions[Symbol.asyncDispose]();
    await backend.retire(0);
    await front.down();
    await server[Symbol.asyncDispose]();
  });
  await backend.firstAttempt;
  const newSession = () => openSession(sessions);
  const call = (method: string, params: string, options: { session?: Session; timeoutMs?: number; onMessage?: Hear } = {}) => {
    const { session = newSession(), timeoutMs = 5_000, onMessage } = options;
    const message = readMessage(request(method, params, "1"));
    return callOf(backend, session, message, { timeoutMs, ...(onMessage ? { onMessage } : {}) });
  };
  return {
    front,
    server,
    call,
    newSession,
    retries: () => retries,
    onRetry(act: () => void) {
      onRetry = act;
    },
  };
}

function callOf(backend: Backend, session: Session, message: Message, options: { timeoutMs: number; onMessage?: Hear }) {
  return backend.call(session, message, { ...options, limit: createLimit() });
}

function openSession(sessions: ReturnType<typeof createLocalSessions>): Session {
  const session = sessions.create({
    virtualServer: "v",
    identity: { issuer: "i", subject: "s", isAnonymous: false },
    era: "session",
    protocolVersion: "2025-11-25",
    clientInfo: '{"name":"c","version":"1"}',
    capabilities: "{}",
  });
  assert.ok(session);
  return session;
}

/** Passes bytes on to a port. A request that is to be cut reaches the server, and the connection ends when its answer comes. */
async function startFront(t: TestContext, to: number) {
  const sockets = new Set<Socket>();
  let cutMethod = "";
  let cuts = 0;
  const front = createServer((near) => {
    const far = connect(to, "127.0.0.1");
    let isDoomed = false;
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.on("data", (chunk) => {
      if (cuts > 0 && chunk.includes(`"method":"${cutMethod}"`)) {
        cuts--;
        isDoomed = true;
      }
      far.write(chunk);
    });
    far.on("data", (chunk) => {
      if (isDoomed) near.destroy();
      else near.write(chunk);
    });
  });
  front.listen(0, "127.0.0.1");
  await once(front, "listening");
  const { port } = front.address() as AddressInfo;
  const cutAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  t.after(cutAll);
  return {
    port,
    /** The next so many requests of this method. */
    cut(method: string, times: number) {
      cutMethod = method;
      cuts = times;
    },
    cutAll,
    /** Nobody listens there. */
    async down() {
      if (!front.listening) return;
      const closed = once(front, "close");
      front.close();
      cutAll();
      await closed;
      for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate); // whoever was connected has seen it by now
    },
    async up() {
      if (front.listening) return;
      front.listen(port, "127.0.0.1");
      await once(front, "listening");
    },
  };
}
