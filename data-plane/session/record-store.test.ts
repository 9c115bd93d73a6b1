// One contract, three stores: what a session's record goes through is the same in memory, in that of workers' leader, and in a real
// Redis.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { pino } from "pino";
import { whyMissing } from "../../test/support/debian.ts";
import { eventually } from "../../test/support/eventually.ts";
import { leadWorkers } from "../../test/support/led-workers.ts";
import { startRedis } from "../../test/support/redis.ts";
import { oneKey } from "../mcp/seal.ts";
import { readRedisAddress } from "../redis/address.ts";
import { recordsOf } from "../workers/shared-stores.ts";
import { createMemoryStore } from "./memory-store.ts";
import { emptyState, type SessionRecord } from "./record.ts";
import { type RecordStore, type StoreEvent, StoreUnavailableError } from "./record-store.ts";
import { createRedisStore } from "./redis-store.ts";

const log = pino({ level: "silent" });
const keys = oneKey(randomBytes(32));
const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const skip = await whyMissing("redis-server", "redis-server");
const redis = skip ? undefined : stack.use(await startRedis());

interface Opened {
  readonly store: RecordStore;
  /** What the replicas beside it were told. */
  readonly told: StoreEvent[];
}

/** Two workers of one leader; the second is given. */
async function openLeaderStore(): Promise<Opened> {
  const told: StoreEvent[] = [];
  const { worker } = leadWorkers(stack);
  worker((event) => told.push(event));
  return { store: recordsOf(worker(() => undefined).leader), told };
}

let replicas = 0;

/** Two replicas; the second is given. Others have keys of their own unless they are given the same prefix. */
async function openRedisStore(prefix = `vmcp${replicas}:`, url = redis?.url ?? ""): Promise<Opened> {
  const told: StoreEvent[] = [];
  const options = { address: readRedisAddress(url), keys, log, prefix };
  const open = (onEvent: (event: StoreEvent) => void) =>
    stack.use(createRedisStore({ ...options, replica: `replica${replicas++}`, onEvent }));
  open((event) => told.push(event)); // another replica
  const store = open(() => undefined);
  await eventually("it is connected", () =>
    store.keys(1).then(
      () => true,
      () => false,
    ),
  );
  return { store, told };
}

const stores: [name: string, skip: string | false, open: () => Promise<Opened>][] = [
  [
    "memory",
    false,
    async () => {
      const told: StoreEvent[] = [];
      return { store: stack.use(createMemoryStore({ onEvent: (event) => told.push(event) })), told };
    },
  ],
  ["the leader of workers", false, openLeaderStore],
  ["Redis", skip, () => openRedisStore()],
];

const times = { pendingMs: 5_000, absoluteMs: 60_000 };

for (const [name, reason, open] of stores) {
  const check = (what: string, work: (opened: Opened) => Promise<void>) =>
    test(`${name}: ${what}`, { skip: reason }, async () => work(await open()));

  check("what was created is read again, whole", async ({ store }) => {
    const key = newKey();
    const record = recordWith({
      logLevel: '"info"',
      subscriptions: new Map([["a:ü", { backend: "b", original: "x:1" }]]),
      legs: new Map([
        ["b", { place: "p", sessionId: "s", protocolVersion: "2025-06-18", capabilities: { tools: { listChanged: true } } }],
      ]),
      links: new Map([["x:2", "b"]]),
    });
    const created = await store.create(key, record, times);
    const stored = await store.read(key);
    assert.deepEqual(stored?.record, record);
    assert.deepEqual([stored.version, stored.createdMs, stored.endMs], [1, created.createdMs, created.createdMs + 60_000]);
    assert.ok(Math.abs(stored.createdMs - Date.now()) < 5_000);
    assert.ok(stored.leftMs > 50_000 && stored.leftMs <= 60_000, `${stored.leftMs}`);
    assert.equal(await store.read(newKey()), undefined);
  });

  check("a write counts versions, is seen, and is told", async ({ store, told }) => {
    const key = newKey();
    const before = await store.create(key, recordWith({}), times);
    assert.equal(await store.write(key, before, recordWith({ logLevel: '"debug"' })), "written");
    const stored = await store.read(key);
    assert.deepEqual([stored?.version, stored?.record.state.logLevel], [2, '"debug"']);
    await eventually("the others know", () => told.some((event) => event.type === "changed" && event.key === key));
  });

  check("of two writes over one version, one is taken", async ({ store }) => {
    const key = newKey();
    const before = await store.create(key, recordWith({}), times);
    const levels = ['"debug"', '"info"', '"error"'];
    const outcomes = await Promise.all(levels.map((logLevel) => store.write(key, before, recordWith({ logLevel }))));
    assert.deepEqual(outcomes.toSorted(), ["changed", "changed", "written"]);
    assert.equal((await store.read(key))?.record.state.logLevel, levels[outcomes.indexOf("written")]);
  });

  check("what was removed is gone, can't be written or touched, and the others are told", async ({ store, told }) => {
    const key = newKey();
    const before = await store.create(key, recordWith({}), times);
    await store.remove(key);
    assert.equal(await store.read(key), undefined);
    assert.equal(await store.write(key, before, recordWith({})), "gone");
    assert.equal(await store.touch(key, 60_000), false);
    assert.ok(!(await store.keys(1_000)).includes(key));
    await eventually("the others know", () => told.some((event) => event.type === "ended" && event.key === key));
  });

  check(
    "a session that nobody came back to ends soon, one that is used does not, and none outlives its end",
    async ({ store }) => {
      const [pending, used, old] = [newKey(), newKey(), newKey()];
      await store.create(pending, recordWith({}), { pendingMs: 150, absoluteMs: 60_000 });
      await store.create(used, recordWith({}), { pendingMs: 150, absoluteMs: 60_000 });
      await store.create(old, recordWith({}), { pendingMs: 150, absoluteMs: 200 });
      assert.deepEqual(await Promise.all([store.touch(used, 30_000), store.touch(old, 30_000)]), [true, true]);
      await sleep(300);
      assert.deepEqual(await Promise.all([pending, used, old].map(async (key) => (await store.read(key)) !== undefined)), [
        false,
        true,
        false,
      ]);
      assert.equal(await store.touch(old, 30_000), false);
    },
  );

  check(
    "beyond the bound those of an owner go that were unused for longest; others' and dead ones do not count",
    async ({ store }) => {
      const [one, two, three, dead] = [newKey(), newKey(), newKey(), newKey()];
      const owner = newKey();
      for (const key of [one, two, three, dead]) await store.create(key, recordWith({}), times);
      assert.deepEqual(await store.enlist(newKey(), one, 1), []);
      assert.deepEqual(await store.enlist(owner, dead, 2), []);
      await store.remove(dead);
      for (const key of [one, two]) {
        assert.deepEqual(await store.enlist(owner, key, 2), []);
        await sleep(5);
      }
      assert.deepEqual(await store.enlist(owner, one, 2), []); // used again
      await sleep(5);
      assert.deepEqual(await store.enlist(owner, three, 2), [two]);
      assert.deepEqual(await store.enlist(owner, three, 2), []);
    },
  );

  check("what lives can be listed, up to a bound", async ({ store }) => {
    const created = Array.from({ length: 20 }, newKey);
    for (const key of created) await store.create(key, recordWith({}), times);
    const all = new Set(await store.keys(10_000));
    assert.ok(created.every((key) => all.has(key)));
    assert.equal((await store.keys(7)).length, 7);
  });
}

test("Redis: replicas tell each other where they are, until they are gone", { skip }, async () => {
  const [{ store: one, told }, { store: other }] = [await openRedisStore("both:"), await openRedisStore("both:")];
  one.announce("r1", "http://127.0.0.1:1");
  await eventually("the other knows", async () => (await other.addressOf("r1")) === "http://127.0.0.1:1");
  await one.withdraw("r1");
  assert.equal(await other.addressOf("r1"), undefined);
  one.publish({ type: "cancelled", key: "k", request: '"7"' });
  await eventually("it is heard", () => told.some((event) => event.type === "cancelled" && event.request === '"7"'));
});

test("Redis: a dump of it holds nothing of use, and no byte of a record can be changed", { skip }, async () => {
  const { store } = await openRedisStore("dump:");
  const key = newKey();
  const record = recordWith({
    subscriptions: new Map([["secret-uri://1", { backend: "secret-backend", original: "secret-uri://1" }]]),
    legs: new Map([["b", { place: "p", sessionId: "secret-backend-session", protocolVersion: "2025-11-25", capabilities: {} }]]),
  });
  await store.create(key, record, times);
  await store.enlist("opaque-owner", key, 32);
  await using client = new OpenRedis(redis?.url ?? "");
  const dump = await client.dump("dump:*");
  for (const word of ["secret", record.subject, record.issuer, "clientInfo", record.binding.tag, record.binding.salt])
    assert.ok(!dump.includes(word), `${word} is in ${dump}`);

  const name = `dump:s:${key}`;
  const fields = await client.redis.hgetall(name);
  let flips = 0;
  for (const [field, value] of Object.entries(fields)) {
    for (let at = 0; at < value.length; at++) {
      const code = value.charCodeAt(at);
      for (const other of [code ^ 1, code ^ 32, code === 57 ? 56 : code + 1]) {
        if (other === code) continue;
        await client.redis.hset(name, field, value.slice(0, at) + String.fromCharCode(other) + value.slice(at + 1));
        assert.equal(await store.read(key), undefined, `${field} at ${at}`);
        flips++;
      }
    }
    await client.redis.hset(name, field, value);
  }
  assert.ok(flips > 1_000);
  assert.ok(await store.read(key), "unchanged, it is read");

  // A record is good under its own key alone, and an older one is not good for a newer version.
  for (const [field, value] of Object.entries(fields)) await client.redis.hset("dump:s:other", field, value);
  assert.equal(await store.read("other"), undefined);
});

test("Redis: while it is away everything says so at once, and it is used again when it is back", { skip }, async () => {
  await using server = await startRedis();
  const { store } = await openRedisStore("vmcp:", server.url);
  await store.create("k", recordWith({}), times);
  server.kill("SIGKILL");
  await server.ended;
  const startedMs = performance.now();
  for (const work of [
    () => store.read("k"),
    () => store.create("l", recordWith({}), times),
    () => store.touch("k", 1_000),
    () => store.remove("k"),
    () => store.keys(1),
    () => store.enlist("o", "k", 1),
  ])
    await assert.rejects(work(), StoreUnavailableError);
  assert.ok(performance.now() - startedMs < 1_500);
  await server.restart();
  await eventually("it is used again", () =>
    store.create("l", recordWith({}), times).then(
      () => true,
      () => false,
    ),
  );
});

test("Redis: one that hangs is noticed within a second", { skip }, async () => {
  await using server = await startRedis();
  const { store } = await openRedisStore("vmcp:", server.url);
  server.kill("SIGSTOP");
  const startedMs = performance.now();
  await assert.rejects(store.read("k"), StoreUnavailableError);
  assert.ok(performance.now() - startedMs < 1_000);
  server.kill("SIGCONT");
  await eventually("it is used again", () =>
    store.read("k").then(
      () => true,
      () => false,
    ),
  );
});

/** What an intruder sees. */
class OpenRedis implements AsyncDisposable {
  readonly redis: Redis;
  constructor(url: string) {
    this.redis = new Redis(url);
  }
  async dump(pattern: string): Promise<string> {
    const names = await this.redis.keys(pattern);
    const values = await Promise.all(
      names.map(async (name) => {
        const type = await this.redis.type(name);
        return type === "hash"
          ? this.redis.hgetall(name)
          : type === "zset"
            ? this.redis.zrange(name, "0", "-1")
            : this.redis.get(name);
      }),
    );
    return JSON.stringify([names, values]);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.redis.disconnect();
  }
}

function newKey(): string {
  return randomBytes(16).toString("base64url").slice(0, 22);
}

function recordWith(state: Partial<SessionRecord["state"]>): SessionRecord {
  return {
    virtualServer: "team",
    issuer: "https://issuer.example",
    subject: "ada@example.org",
    binding: { mode: "identity", keyId: "k1", salt: "c2FsdHNhbHRzYWx0c2E", tag: "dGFndGFndGFndGFndGFndGFndGFndGFndGFndGFndGE" },
    epoch: { revision: 7, storeUid: "s" },
    protocolVersion: "2025-11-25",
    clientInfo: '{"name":"c"}',
    capabilities: "{}",
    state: { ...emptyState, ...state },
  };
}
