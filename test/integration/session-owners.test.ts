// A session belongs to the caller who opened it: on every verb, on every replica, in every mode.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { oneKey } from "../../data-plane/mcp/seal.ts";
import type { SessionOptions } from "../../data-plane/serving.ts";
import { type Backend, counter, startBackend } from "../support/backend.ts";
import { mcpHeaders, type RawAnswer, send } from "../support/client.ts";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { startTwoUserGateway, type TwoUserGateway } from "../support/two-user-gateway.ts";

const skip = await whyMissing("redis-server", "redis-server");
const stack = new AsyncDisposableStack();
let redis: RedisServer;
let backend: Backend;

before(async () => {
  if (skip) return;
  redis = stack.use(await startRedis());
  backend = stack.use(await startBackend({ tools: [counter.tool], calls: { counter: counter.call } }));
});
after(() => stack.disposeAsync());

interface Replicas extends AsyncDisposable {
  readonly all: readonly TwoUserGateway[];
  /** A session opened on the first one. */
  open(user: string, token?: string): Promise<string>;
}

let prefixes = 0;

async function startReplicas(session: SessionOptions = {}): Promise<Replicas> {
  await using own = new AsyncDisposableStack();
  const keys = oneKey(randomBytes(32));
  const settings = { keys, session: { ...session, redis: redis.url, redisPrefix: `owners${prefixes++}:` } };
  const all: TwoUserGateway[] = [];
  for (let i = 0; i < 3; i++) all.push(own.use(await startTwoUserGateway({ b: backend.url }, settings)));
  const owned = own.move();
  return {
    all,
    async open(user, token = "t") {
      const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "raw", version: "1" } };
      const answer = await post(all[0], undefined, user, "initialize", params, token);
      return String(answer.headers["mcp-session-id"]);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function headersOf(id: string | undefined, user: string, token = "t"): Record<string, string> {
  const own = { ...mcpHeaders, "x-user": user, "x-token": token };
  return id === undefined ? own : { ...own, "mcp-session-id": id, "mcp-protocol-version": "2025-11-25" };
}

function post(
  gateway: TwoUserGateway | undefined,
  id: string | undefined,
  user: string,
  method: string,
  params: object = {},
  token = "t",
) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  return send(gateway?.url ?? "", { method: "POST", headers: headersOf(id, user, token), body });
}

type Verb = (gateway: TwoUserGateway, id: string, user: string) => Promise<RawAnswer>;

const verbs: [what: string, use: Verb][] = [
  ["a ping", (gateway, id, user) => post(gateway, id, user, "ping")],
  ["a list", (gateway, id, user) => post(gateway, id, user, "tools/list")],
  ["a call", (gateway, id, user) => post(gateway, id, user, "tools/call", { name: "b_counter" })],
  [
    "a notification",
    (gateway, id, user) => {
      const body = `{"jsonrpc":"2.0","method":"notifications/initialized"}`;
      return send(gateway.url, { method: "POST", headers: headersOf(id, user), body });
    },
  ],
  [
    "an answer",
    (gateway, id, user) =>
      send(gateway.url, { method: "POST", headers: headersOf(id, user), body: `{"jsonrpc":"2.0","id":"x","result":{}}` }),
  ],
  ["a stream", (gateway, id, user) => send(gateway.url, { headers: headersOf(id, user) })],
  [
    "a stream that goes on",
    (gateway, id, user) => send(gateway.url, { headers: { ...headersOf(id, user), "last-event-id": "aaaaaaaa0-1" } }),
  ],
  ["a goodbye", (gateway, id, user) => send(gateway.url, { method: "DELETE", headers: headersOf(id, user) })],
];

for (const [what, use] of verbs) {
  test(`${what} of Bob with Alice's session is refused like an unknown one, and ends it on every replica`, { skip }, async () => {
    await using replicas = await startReplicas();
    const unknown = await use(
      replicas.all[1] as TwoUserGateway,
      await replicas.open("carol").then((id) => `${id.slice(0, -1)}!`),
      "bob",
    );
    for (const [i, gateway] of replicas.all.entries()) {
      const id = await replicas.open("alice");
      for (const one of replicas.all) assert.equal((await post(one, id, "alice", "ping")).status, 200);
      const calls = backend.bodies("tools/call").length;
      const stolen = await use(gateway, id, "bob");
      assert.deepEqual([stolen.status, stolen.body], [404, unknown.body], `replica ${i}`);
      assert.equal(backend.bodies("tools/call").length, calls);
      for (const one of replicas.all)
        await eventually("it is gone", async () => (await post(one, id, "alice", "ping")).status === 404, 2_000);
    }
  });
}

test("where mismatches are only rejected, Alice's session goes on", { skip }, async () => {
  await using replicas = await startReplicas({ onMismatch: "reject" });
  const id = await replicas.open("alice");
  for (const gateway of replicas.all) for (const [, use] of verbs) assert.equal((await use(gateway, id, "bob")).status, 404);
  for (const gateway of replicas.all) assert.equal((await post(gateway, id, "alice", "ping")).status, 200);
});

test("Alice's refreshed token goes on with her session on every replica", { skip }, async () => {
  await using replicas = await startReplicas({ binding: "identity" });
  const id = await replicas.open("alice", "first");
  for (const [i, gateway] of replicas.all.entries()) {
    const { body } = await post(gateway, id, "alice", "tools/call", { name: "b_counter" }, `refreshed ${i}`);
    assert.match(body, new RegExp(`"${i + 1}"`), "and with the backend's own session");
  }
});

test("unless sessions are bound to the very token: then it is refused, and the session is gone", { skip }, async () => {
  await using replicas = await startReplicas({ binding: "token" });
  const [first, second, third] = replicas.all as [TwoUserGateway, TwoUserGateway, TwoUserGateway];
  const id = await replicas.open("alice", "first");
  for (const gateway of replicas.all) assert.equal((await post(gateway, id, "alice", "ping", {}, "first")).status, 200);
  assert.equal((await post(second, id, "alice", "ping", {}, "refreshed")).status, 404);
  for (const gateway of [first, second, third])
    await eventually("it is gone", async () => (await post(gateway, id, "alice", "ping", {}, "first")).status === 404, 2_000);
});

test("a session of one virtual server is unknown on another, and goes on where it belongs", { skip }, async () => {
  await using replicas = await startReplicas();
  const id = await replicas.open("alice");
  for (const { url } of replicas.all) {
    const body = `{"jsonrpc":"2.0","id":1,"method":"ping"}`;
    const other = await send(url.replace("/team/", "/other/"), { method: "POST", headers: headersOf(id, "alice"), body });
    assert.equal(other.status, 404);
  }
  for (const gateway of replicas.all) assert.equal((await post(gateway, id, "alice", "ping")).status, 200);
});

test("a caller whose name could be taken for another's gets no session", { skip }, async () => {
  await using replicas = await startReplicas();
  const answer = await post(replicas.all[0], undefined, "x".repeat(1_025), "initialize", {
    protocolVersion: "2025-11-25",
    capabilities: {},
    clientInfo: { name: "raw", version: "1" },
  });
  assert.equal(answer.status, 403);
  assert.equal(answer.headers["mcp-session-id"], undefined);
});

test("a 33rd session of one caller ends the one unused for longest, and nobody else's", { skip }, async () => {
  await using replicas = await startReplicas();
  const bobs = await replicas.open("bob");
  const ids: string[] = [];
  for (let i = 0; i < 33; i++) ids.push(await replicas.open("alice"));
  const statuses = await Promise.all(ids.map(async (id) => (await post(replicas.all[1], id, "alice", "ping")).status));
  assert.deepEqual([statuses[0], ...new Set(statuses.slice(1))], [404, 200]);
  assert.equal((await post(replicas.all[2], bobs, "bob", "ping")).status, 200);
});
