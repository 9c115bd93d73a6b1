// Sessions as one replica and several see them, over memory and a real Redis.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { pino } from "pino";
import { whyMissing } from "../../test/support/debian.ts";
import { eventually } from "../../test/support/eventually.ts";
import { startRedis } from "../../test/support/redis.ts";
import type { Identity } from "../incoming-auth/identity.ts";
import { createKey, type Keys, oneKey } from "../mcp/seal.ts";
import { readRedisAddress } from "../redis/address.ts";
import { createBinder } from "./binding.ts";
import { createMemoryStore } from "./memory-store.ts";
import { withEntry } from "./record.ts";
import { type RecordStore, StoreUnavailableError } from "./record-store.ts";
import { createRedisStore } from "./redis-store.ts";
import { type Session, SessionEndedError } from "./session.ts";
import { type Claim, createSessions, type Sessions, type SessionsOptions } from "./sessions.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const skip = await whyMissing("redis-server", "redis-server");
const redis = skip ? undefined : stack.use(await startRedis());
const keys = oneKey(randomBytes(32));

const as = (subject: string, more: Partial<Identity> = {}): Claim => ({
  virtualServer: "team",
  identity: { issuer: "i", subject, isAnonymous: false, ...more },
});
const [ada, bob] = [as("ada"), as("bob")];

interface Replica {
  readonly sessions: Sessions;
  /** How often the store was asked for a record. */
  reads(): number;
  readonly log: string[];
}

type Options = Partial<Omit<SessionsOptions, "binder">> & { readonly binding?: "identity" | "token" };
let count = 0;

function newReplica(makeStore: (hear: Sessions["hear"]) => RecordStore, { binding = "identity", ...options }: Options): Replica {
  const log: string[] = [];
  let reads = 0;
  const store = makeStore((event) => sessions.hear(event));
  const counted = {
    ...store,
    read: (key: string) => {
      reads++;
      return store.read(key);
    },
  };
  const sessions: Sessions = createSessions({
    store: counted,
    keys,
    binder: createBinder({ keys: options.keys ?? keys, mode: binding }),
    idleMs: 60_000,
    sessionsMax: 100,
    epoch: () => ({ revision: 1, storeUid: "s" }),
    isRevoked: () => false,
    log: pino({ level: "debug" }, { write: (line: string) => void log.push(line) }),
    ...options,
  });
  stack.use(sessions);
  return { sessions, reads: () => reads, log };
}

const inMemory = (options: Options = {}) => newReplica(() => createMemoryStore(), options);

/** Replicas that share a Redis, and nothing with those of other tests. */
async function inRedis(howMany: number, options: Options = {}, url = redis?.url ?? ""): Promise<Replica[]> {
  const prefix = `t${count++}:`;
  const log = pino({ level: "silent" });
  const ring = options.keys ?? keys;
  const replicas = Array.from({ length: howMany }, (_, i) =>
    newReplica(
      (onEvent) => createRedisStore({ address: readRedisAddress(url), prefix, keys: ring, replica: `replica${i}`, onEvent, log }),
      options,
    ),
  );
  for (const { sessions } of replicas)
    await eventually("Redis is there", () =>
      sessions.list().then(
        () => true,
        () => false,
      ),
    );
  return replicas;
}

const facts = { protocolVersion: "2025-11-25", clientInfo: "{}", capabilities: '{"roots":{}}' } as const;

async function open({ sessions }: Replica, caller = ada): Promise<Session> {
  const session = await sessions.open({ ...caller, ...facts });
  assert.ok(session);
  return session;
}

const isThere = async ({ sessions }: Replica, id: string, caller = ada) => (await sessions.find(id, caller)) !== undefined;

const both: [name: string, skip: string | false, make: (options?: Options) => Promise<Replica>][] = [
  ["memory", false, async (options) => inMemory(options)],
  ["Redis", skip, async (options) => (await inRedis(1, options))[0] as Replica],
];
for (const [name, reason, make] of both) {
  const check = (what: string, work: () => Promise<void>) => test(`${name}: ${what}`, { skip: reason }, work);

  check("a session is found by its caller, on its virtual server", async () => {
    const replica = await make();
    const { id, key } = await open(replica);
    assert.ok(await isThere(replica, id));
    assert.equal(await isThere(replica, id, { ...ada, virtualServer: "other" }), false);
    assert.ok(await isThere(replica, id), "a mistake of its own caller does not end it");
    assert.ok(!key.includes(id) && !id.includes(key));
  });

  check("another caller who shows a session gets nothing, and ends it", async () => {
    const replica = await make();
    const { id, key } = await open(replica);
    assert.equal(await isThere(replica, id, bob), false);
    await eventually("it is gone", async () => !(await isThere(replica, id)));
    const line = replica.log.find((one) => one.includes("session.binding_mismatch")) ?? "";
    assert.match(line, new RegExp(`"session":"${key.slice(0, 10)}"`));
    assert.ok(!line.includes(id) && !line.includes("ada") && !line.includes("bob"));
  });

  check("or gets nothing and ends nothing, where the operator chose so", async () => {
    const replica = await make({ endsOnMismatch: false });
    const { id } = await open(replica);
    for (let i = 0; i < 3; i++) assert.equal(await isThere(replica, id, bob), false);
    assert.ok(await isThere(replica, id));
  });

  check("a refreshed token goes on, unless sessions are bound to tokens", async () => {
    for (const [binding, isFound] of [
      ["identity", true],
      ["token", false],
    ] as const) {
      const replica = await make({ binding });
      const { id } = await open(replica, as("ada", { tokenDigest: "first" }));
      assert.ok(await isThere(replica, id, as("ada", { tokenDigest: "first" })));
      assert.equal(await isThere(replica, id, as("ada", { tokenDigest: "second" })), isFound, binding);
    }
  });

  check("a session ends: at once when it is told to, idle, old, or never used", async () => {
    const replica = await make({ idleMs: 1_000, absoluteMs: 2_200, pendingMs: 300 });
    const [ended, idle, used, pending] = [await open(replica), await open(replica), await open(replica), await open(replica)];
    for (const { id } of [ended, idle, used]) assert.ok(await isThere(replica, id));
    await replica.sessions.end(ended);
    assert.ok(ended.hasEnded && !(await isThere(replica, ended.id)));
    const startedMs = performance.now();
    while (performance.now() - startedMs < 1_500) {
      assert.ok(await isThere(replica, used.id));
      await sleep(50);
    }
    assert.equal(await isThere(replica, pending.id), false);
    assert.equal(await isThere(replica, idle.id), false);
    await sleep(800);
    assert.equal(await isThere(replica, used.id), false, "old");
    await eventually("nothing is left", async () => replica.sessions.size === 0);
  });

  check("one caller has so many sessions; the one unused for longest goes, and never another's", async () => {
    const replica = await make({ perCallerMax: 3 });
    const others = await open(replica, bob);
    const own: Session[] = [];
    for (let i = 0; i < 4; i++) {
      own.push(await open(replica));
      await sleep(5);
    }
    assert.deepEqual(await Promise.all(own.map(({ id }) => isThere(replica, id))), [false, true, true, true]);
    assert.ok(await isThere(replica, others.id, bob));
  });

  check("callers that nobody asked who they are have no such bound", async () => {
    const replica = await make({ perCallerMax: 1 });
    const anyone = as("anonymous", { isAnonymous: true });
    const opened = await Promise.all([1, 2, 3].map(() => open(replica, anyone)));
    for (const { id } of opened) assert.ok(await isThere(replica, id, anyone));
  });

  check("what is revoked is ended, and stays so", async () => {
    let revoked = "";
    const replica = await make({ isRevoked: ({ subject }) => subject === revoked });
    const [adas, bobs] = [await open(replica), await open(replica, bob)];
    revoked = "ada";
    replica.sessions.endRevoked();
    revoked = "";
    assert.equal(await isThere(replica, adas.id), false);
    assert.ok(await isThere(replica, bobs.id, bob));
  });

  check("what is listed says whose it is and what it does, and not its id", async () => {
    const replica = await make();
    const session = await open(replica);
    session.calls.set("1", { abort: () => undefined });
    const [listed, ...more] = await replica.sessions.list();
    assert.deepEqual(more, []);
    assert.deepEqual(
      [listed?.key, listed?.subject, listed?.isHeld, listed?.calls, listed?.streams],
      [session.key, "ada", true, 1, 0],
    );
    assert.ok(!JSON.stringify(listed).includes(session.id));
  });

  // In Redis a tenth will do: the code that decides is the same.
  const tries = name === "memory" ? 1_000_000 : 100_000;
  check(`${tries.toLocaleString("en")} made-up ids are refused without a look into the store`, async () => {
    const replica = await make();
    const real = await open(replica);
    await isThere(replica, real.id);
    const before = replica.reads();
    const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const random = randomBytes(40);
    let accepted = 0;
    for (let i = 0; i < tries; i++) {
      const at = i % real.id.length;
      random.writeUInt32LE(i, i % 36);
      const made = i % 2 ? random.toString("base64url") : "";
      const by = letters[(i >> 3) % letters.length] as string;
      const id = i % 2 ? `g1.k1.${made.slice(0, 24)}.${made.slice(24, 40)}` : real.id.slice(0, at) + by + real.id.slice(at + 1);
      if (id === real.id) continue;
      const found = replica.sessions.find(id, ada);
      if (found instanceof Promise ? await found : found) accepted++;
    }
    assert.equal(accepted, 0);
    assert.equal(replica.reads(), before);
  });
}

test("Redis: any replica goes on with a session, and hears what the others made of it", { skip }, async () => {
  const [a, b, c] = (await inRedis(3)) as [Replica, Replica, Replica];
  const onA = await open(a);
  const onB = (await b.sessions.find(onA.id, ada)) as Session;
  assert.deepEqual([onB.capabilities, onB.protocolVersion, onB.clientInfo], [facts.capabilities, facts.protocolVersion, "{}"]);
  await onA.change((state) => ({ ...state, logLevel: '"debug"' }));
  await eventually("B knows", async () => ((await b.sessions.find(onA.id, ada)) as Session).state.logLevel === '"debug"');
  const onC = (await c.sessions.find(onA.id, ada)) as Session;
  assert.equal(onC.state.logLevel, '"debug"');

  await b.sessions.end(onB);
  for (const replica of [a, b, c]) await eventually("it is gone", async () => !(await isThere(replica, onA.id)), 2_000);
  await assert.rejects(
    onA.change((state) => ({ ...state })),
    SessionEndedError,
  );
});

test("Redis: changes made at once on several replicas are all kept", { skip }, async () => {
  const replicas = await inRedis(3);
  const { id } = await open(replicas[0] as Replica);
  const sessions = await Promise.all(replicas.map(async ({ sessions: own }) => (await own.find(id, ada)) as Session));
  const link = (uri: string) => (state: Session["state"]) => ({ ...state, links: withEntry(state.links, uri, "b") });
  await Promise.all(sessions.flatMap((session, i) => Array.from({ length: 5 }, (_, n) => session.change(link(`${i}/${n}`)))));
  for (const session of sessions) {
    await session.refresh();
    assert.equal(session.state.links.size, 15);
  }
});

test("Redis: somebody else's session is refused on every replica, and gone on all of them", { skip }, async () => {
  const [a, b, c] = (await inRedis(3)) as [Replica, Replica, Replica];
  const { id } = await open(a);
  for (const replica of [b, c]) assert.ok(await isThere(replica, id));
  assert.equal(await isThere(b, id, bob), false);
  for (const replica of [a, b, c]) await eventually("it is gone", async () => !(await isThere(replica, id)), 2_000);
});

test("Redis: a busy session costs hardly any look into it", { skip }, async () => {
  const [a] = (await inRedis(1, { cacheMs: 400 })) as [Replica];
  const { id } = await open(a);
  const startedMs = performance.now();
  let uses = 0;
  let waits = 0;
  while (performance.now() - startedMs < 1_200) {
    const found = a.sessions.find(id, ada);
    if (found instanceof Promise) waits++;
    assert.ok(await found);
    uses++;
    if (uses % 20 === 0) await sleep(1);
  }
  assert.ok(uses > 1_000 && a.reads() <= 8, `${a.reads()} looks for ${uses} uses`);
  assert.equal(waits, 0);
});

test("Redis: what was ended here stays ended when a copy that had not heard of it takes over", { skip }, async () => {
  const [a] = (await inRedis(1)) as [Replica];
  const session = await open(a);
  const client = new Redis(redis?.url ?? "");
  stack.defer(() => client.disconnect());
  const [name] = await client.keys(`*s:${session.key}`);
  const copy = await client.hgetall(name as string);
  await a.sessions.end(session);
  for (const [field, value] of Object.entries(copy)) await client.hset(name as string, field, value);
  assert.equal(await isThere(a, session.id), false);
});

test("Redis: a key that is retired takes its sessions with it; one that only verifies does not", { skip }, async () => {
  const [one, two] = [createKey("k1", randomBytes(32)), createKey("k2", randomBytes(32))];
  let ring = [one];
  const rotated: Keys = {
    get active() {
      return ring[0] as typeof one;
    },
    find: (id) => ring.find((key) => key.id === id),
  };
  const [a, b] = (await inRedis(2, { keys: rotated, cacheMs: 200 })) as [Replica, Replica];
  const old = await open(a);
  ring = [two, one];
  const session = await open(a);
  assert.match(session.id, /^g1\.k2\./);
  for (const replica of [a, b]) for (const { id } of [old, session]) assert.ok(await isThere(replica, id));
  ring = [two];
  for (const replica of [a, b]) {
    assert.equal(await isThere(replica, old.id), false);
    assert.ok(await isThere(replica, session.id));
  }
});

test("Redis: while it is away what was seen a moment ago is served, and then nothing is assumed", { skip }, async () => {
  await using server = await startRedis();
  const [a, b] = (await inRedis(2, { cacheMs: 600 }, server.url)) as [Replica, Replica];
  const session = await open(a);
  assert.ok(await isThere(b, session.id));
  server.kill("SIGKILL");
  await server.ended;
  assert.ok(await isThere(b, session.id), "it was just seen");
  await sleep(700);
  for (const replica of [a, b]) {
    await assert.rejects(async () => isThere(replica, session.id), StoreUnavailableError);
    await assert.rejects(open(replica), StoreUnavailableError);
  }
  await assert.rejects(a.sessions.end(session), StoreUnavailableError);
  await assert.rejects(
    session.change((state) => ({ ...state, logLevel: '"info"' })),
    StoreUnavailableError,
  );
  const made = `g1.k1.${randomBytes(18).toString("base64url")}.${randomBytes(12).toString("base64url")}`;
  assert.equal(await isThere(a, made), false, "what was never ours is not there, whoever knows");
});

test("a proxy takes so many sessions in hand, and no more while all are in use", async () => {
  const replica = inMemory({ sessionsMax: 2 });
  await open(replica);
  await open(replica);
  assert.equal(await replica.sessions.open({ ...ada, ...facts }), undefined);
});
