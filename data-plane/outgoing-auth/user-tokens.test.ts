// One suite for both places where users' tokens are kept.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, describe, test } from "node:test";
import { pino } from "pino";
import { redisPlace, searchFor } from "../../test/support/canary.ts";
import { whyMissing } from "../../test/support/debian.ts";
import { eventually } from "../../test/support/eventually.ts";
import { askRedis, type RedisServer, startRedis } from "../../test/support/redis.ts";
import { oneKey } from "../mcp/seal.ts";
import { readRedisAddress } from "../redis/address.ts";
import { createRedisUserTokens } from "./redis-user-tokens.ts";
import { createMemoryTokens, StoreDownError, type UserToken, type UserTokens, unusedMs, userTokenKey } from "./user-tokens.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const noRedis = await whyMissing("redis-server", "redis-server");
const log = pino({ level: "silent" });
const keys = oneKey(randomBytes(32));

interface Place {
  readonly store: UserTokens;
  readonly clock: { ms: number };
  readonly redis?: RedisServer;
}

async function openRedis(): Promise<Place & { readonly redis: RedisServer }> {
  const redis = stack.use(await startRedis());
  const clock = { ms: Date.now() };
  const address = readRedisAddress(redis.url);
  const store = stack.use(createRedisUserTokens({ address, prefix: "vmcp:", keys, log, nowMs: () => clock.ms }));
  await eventually("it is connected", () =>
    store.read("none").then(
      () => true,
      () => false,
    ),
  );
  return { store, clock, redis };
}

async function openMemory(): Promise<Place> {
  const clock = { ms: Date.now() };
  return { store: createMemoryTokens({ nowMs: () => clock.ms, tokensMax: 3 }), clock };
}

const tokenAt = ({ clock }: Place, change: Partial<UserToken> = {}): UserToken => ({
  ...{ access: "an-access-token", refresh: "a-refresh-token", issuer: "https://as.example", clientId: "gateway" },
  ...{ obtainedMs: clock.ms, endsMs: clock.ms + 60_000, ...change },
});

for (const [name, open, skip] of [
  ["memory", openMemory, false],
  ["Redis", openRedis, noRedis],
] as const)
  describe(`users' tokens in ${name}`, { skip }, () => {
    test("what is written is read, until it is removed, and only as what it was", async () => {
      const place = await open();
      const { store } = place;
      const token = tokenAt(place);
      assert.equal(await store.read("ada"), undefined);
      await store.write("ada", token);
      assert.deepEqual(await store.read("ada"), token);
      assert.equal(await store.read("bob"), undefined);
      await store.remove("ada", { ...token, access: "another" });
      assert.deepEqual(await store.read("ada"), token);
      await store.remove("ada", token);
      assert.equal(await store.read("ada"), undefined);
    });

    test("one has the lock, until it gives it back", async () => {
      const { store } = await open();
      const unlock = await store.lock("ada");
      assert.ok(unlock);
      assert.equal(await store.lock("ada"), undefined);
      assert.ok(await store.lock("bob"));
      await unlock();
      assert.ok(await store.lock("ada"));
    });

    test("something is claimed once", async () => {
      const { store } = await open();
      assert.deepEqual(await Promise.all([store.claim("a", 60_000), store.claim("a", 60_000)]), [true, false]);
      assert.equal(await store.claim("b", 60_000), true);
      assert.equal(await store.claim("a", 60_000), false);
    });
  });

test("in memory, a token that can't be refreshed ends with itself, others 30 days after their last use", async () => {
  const place = await openMemory();
  const { store, clock } = place;
  await store.write("short", tokenAt(place, { refresh: undefined }));
  await store.write("long", tokenAt(place));
  clock.ms += 60_000;
  assert.equal(await store.read("short"), undefined);
  clock.ms += unusedMs - 61_000;
  assert.ok(await store.read("long"));
  clock.ms += unusedMs - 1_000;
  assert.ok(await store.read("long"));
  clock.ms += unusedMs;
  assert.equal(await store.read("long"), undefined);
});

test("in memory, the token unused for longest makes room, and claims are never given up", async () => {
  const place = await openMemory();
  const { store } = place;
  for (const key of ["a", "b", "c"]) await store.write(key, tokenAt(place));
  await store.read("a");
  await store.write("d", tokenAt(place));
  const kept = await Promise.all(["a", "b", "c", "d"].map(async (key) => (await store.read(key)) !== undefined));
  assert.deepEqual(kept, [true, false, true, true]);
  for (const id of ["a", "b", "c"]) assert.ok(await store.claim(id, 1_000));
  await assert.rejects(store.claim("d", 1_000), StoreDownError);
  place.clock.ms += 1_000;
  assert.ok(await store.claim("d", 1_000));
});

test("in Redis, a token lives as long as it is of use, and nothing of it can be read there", { skip: noRedis }, async () => {
  const place = await openRedis();
  const { store, redis } = place;
  const key = userTokenKey(keys, ["https://id.example", "ada-lovelace", "r"]);
  await store.write(key, tokenAt(place));
  await store.write("short", tokenAt(place, { refresh: undefined }));
  const lifeMs = async (of: string) => Number(await askRedis(redis.port, ["PTTL", `vmcp:u:${of}`]));
  assert.ok((await lifeMs(key)) > unusedMs - 60_000);
  assert.ok((await lifeMs("short")) <= 60_000);
  await askRedis(redis.port, ["PEXPIRE", `vmcp:u:${key}`, "5000"]);
  await store.read(key);
  assert.ok((await lifeMs(key)) > unusedMs - 60_000, "it was used");
  const secrets = ["an-access-token", "a-refresh-token", "ada-lovelace", "https://as.example"];
  assert.deepEqual(await searchFor(secrets, [redisPlace("redis", [redis.port])]), []);
});

test("in Redis, a token in another's place, or a bent one, is none", { skip: noRedis }, async () => {
  const place = await openRedis();
  const { store, redis } = place;
  await store.write("ada", tokenAt(place));
  const text = String(await askRedis(redis.port, ["GET", "vmcp:u:ada"]));
  await askRedis(redis.port, ["SET", "vmcp:u:bob", text]);
  assert.equal(await store.read("bob"), undefined);
  await askRedis(redis.port, ["SET", "vmcp:u:ada", `${text.slice(0, -1)}!`]);
  assert.equal(await store.read("ada"), undefined);
});

test("without Redis nobody is called signed out", { skip: noRedis }, async () => {
  const { store, redis } = await openRedis();
  await redis.stop();
  const token = tokenAt({ store, clock: { ms: Date.now() } });
  for (const asked of [store.read("a"), store.write("a", token), store.remove("a", token), store.lock("a"), store.claim("a", 1)])
    await assert.rejects(asked, (error) => error instanceof StoreDownError && error.fault === "temporary");
});
