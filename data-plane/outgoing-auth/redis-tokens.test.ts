// Two replicas and a real Redis, which hangs, dies, and is written to by others.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { whyMissing } from "../../test/support/debian.ts";
import { eventually } from "../../test/support/eventually.ts";
import { askRedis, type RedisServer, startRedis } from "../../test/support/redis.ts";
import { startTokenServer } from "../../test/support/token-server.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { oneKey } from "../mcp/seal.ts";
import { readRedisAddress } from "../redis/address.ts";
import { Secret } from "../secrets.ts";
import { createRedisTokens } from "./redis-tokens.ts";
import { createCredentials } from "./registry.ts";
import { createTokenCache, type SharedToken } from "./token-cache.ts";
import { createTokenMetrics } from "./token-metrics.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const skip = await whyMissing("redis-server", "redis-server");
const log = pino({ level: "silent" });
const secret = randomBytes(32);

async function setUp(replicas = 2, redis?: RedisServer) {
  const server = stack.use(await startTokenServer());
  const { url } = redis ?? stack.use(await startRedis());
  const clock = { ms: Date.now() };
  const proxies = Array.from({ length: replicas }, () => {
    const options = { log, keys: oneKey(Buffer.from(secret)), redis: { address: readRedisAddress(url) }, nowMs: () => clock.ms };
    const credentials = stack.use(createCredentials(options));
    const tokenExchange = { tokenUrl: server.url, audience: "files" };
    const recipient = { resource: "r", backend: "files", url: "http://127.0.0.1:1", virtualServer: "v", incomingAuth: undefined };
    const credential = credentials.of(create(OutgoingAuthStrategySchema, { type: "token_exchange", tokenExchange }), recipient);
    return { show: async (who: Caller) => credential.show(who), credential, counters: () => credentials.metrics.snapshot()[0] };
  });
  return { server, port: Number(new URL(url).port), clock, proxies };
}

function caller(subject: string): Caller {
  return {
    identity: { issuer: "https://idp", subject, isAnonymous: false },
    token: { secret: new Secret(`subject-of-${subject}`), digest: `digest-of-${subject}`, expiresAtMs: Date.now() + 1e7 },
    scopes: new Set(),
  };
}

/** Callers until the proxies reach Redis: what they obtain before, they keep to themselves. */
async function connected(proxies: Awaited<ReturnType<typeof setUp>>["proxies"], port: number): Promise<void> {
  const [first, ...others] = proxies;
  let tries = 0;
  await eventually("all share tokens", async () => {
    const probe = caller(`probe${tries++}`);
    const shown = await first?.show(probe);
    await eventually("it is written", async () => (await places(port)).length > 0, 100);
    return (await Promise.all(others.map((other) => other.show(probe)))).every((list) => list[1] === shown?.[1]);
  });
  await askRedis(port, ["FLUSHALL"]);
}

const places = async (port: number) => (await askRedis(port, ["KEYS", "vmcp:t:*"])) as string[];
const tokens = async (port: number) => (await places(port)).filter((place) => !place.endsWith(":lock"));

test("what one replica obtained the others show", { skip }, async () => {
  const { server, port, proxies } = await setUp();
  await connected(proxies, port);
  const [one, other] = proxies as [(typeof proxies)[0], (typeof proxies)[0]];
  const before = server.requests.length;
  const shown = await one.show(caller("ada"));
  await eventually("it is written, and the lock released", async () => (await places(port)).length === 1);
  assert.deepEqual([...(await other.show(caller("ada")))], [...shown]);
  assert.equal(server.requests.length, before + 1);
  assert.ok((other.counters()?.redisHits ?? 0) > 0);
  const [place = ""] = await tokens(port);
  const leftMs = Number(await askRedis(port, ["PTTL", place]));
  assert.ok(leftMs > 3_500_000 && leftMs <= 3_570_000, `ends in ${leftMs} ms`);
});

test("when all ask at the same time one exchange is made", { skip }, async () => {
  const { server, port, proxies } = await setUp(4);
  await connected(proxies, port);
  server.delayMs = 150;
  const before = server.requests.length;
  const shown = await Promise.all(proxies.map(({ show }) => show(caller("ada"))));
  assert.equal(new Set(shown.map(([, value]) => value)).size, 1);
  assert.equal(server.requests.length, before + 1);
  await eventually("the lock is released", async () => (await places(port)).length === 1);
});

test("a refresh on one replica is taken over by the others", { skip }, async () => {
  const { server, port, proxies, clock } = await setUp();
  await connected(proxies, port);
  const [one, other] = proxies as [(typeof proxies)[0], (typeof proxies)[0]];
  const ada = caller("ada");
  const old = await one.show(ada);
  await other.show(ada);
  const before = server.requests.length;
  clock.ms += 3_000_000;
  await one.show(ada);
  await eventually("the next is shown", async () => (await one.show(ada))[1] !== old[1]);
  const next = (await one.show(ada))[1];
  await eventually("it is written", async () => (await places(port)).length === 1);
  await other.show(ada);
  await eventually("there too", async () => (await other.show(ada))[1] === next);
  assert.equal(server.requests.length, before + 1);
});

test("a replica that fails leaves the exchange to another at once", { skip }, async () => {
  const { server, port, proxies } = await setUp();
  await connected(proxies, port);
  server.delayMs = 100;
  const before = server.requests.length;
  server.misbehave = ({ number }) => (number === before + 1 ? { status: 500, body: "" } : undefined);
  const startMs = performance.now();
  const outcomes = await Promise.allSettled(proxies.map(({ show }) => show(caller("ada"))));
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  assert.ok(performance.now() - startMs < 1_500);
});

test("a lock whose holder is gone is waited for, and then gone without", { skip }, async () => {
  const redis = stack.use(await startRedis());
  const options = { prefix: "p:", keys: oneKey(secret), log, nowMs: Date.now };
  const shared = stack.use(createRedisTokens({ ...options, address: readRedisAddress(redis.url) }));
  await eventually("there is a connection", async () => typeof (await shared.lock("a")) === "function");
  const cache = createTokenCache({ nowMs: Date.now, shared: Promise.resolve(shared), othersMs: 200 });
  const counters = createTokenMetrics().of({ strategy: "s", virtualServer: "v", backend: "b" });
  const obtain = async () => ({ text: "own", endsMs: Date.now() + 60_000 });
  const startMs = performance.now();
  const held = await cache.get({ key: "a", endsMs: Number.POSITIVE_INFINITY, obtain, counters });
  assert.equal(held.token, "own");
  assert.ok(performance.now() - startMs >= 200);
  assert.equal(await shared.lock("a"), "taken", "it is not released by others");
});

test("a refused token is gone from Redis, and a newer one stays", { skip }, async () => {
  const { server, port, proxies, clock } = await setUp();
  await connected(proxies, port);
  const [one, other] = proxies as [(typeof proxies)[0], (typeof proxies)[0]];
  const [ada, again] = [caller("ada"), caller("ada")];
  const old = await one.show(ada);
  await eventually("it is written", async () => (await places(port)).length === 1);
  await other.show(again);
  clock.ms += 2_000;
  assert.equal(await one.credential.refused(ada, old, undefined), true);
  assert.deepEqual(await tokens(port), []);
  const next = await one.show(ada);
  await eventually("the next is written", async () => (await places(port)).length === 1);
  assert.equal(await other.credential.refused(again, old, undefined), true);
  assert.equal((await tokens(port)).length, 1);
  const before = server.requests.length;
  assert.equal((await other.show(again))[1], next[1]);
  assert.equal(server.requests.length, before);
});

test("Redis holds no token, no caller and no address in clear", { skip }, async () => {
  const { server, port, proxies } = await setUp();
  await connected(proxies, port);
  const [one] = proxies as [(typeof proxies)[0]];
  const shown = await one.show(caller("ada"));
  await eventually("it is written", async () => (await places(port)).length === 1);
  const dump = JSON.stringify(
    await Promise.all((await places(port)).map(async (place) => [place, await askRedis(port, ["GET", place])])),
  );
  const token = shown[1]?.slice(7) ?? "";
  for (const canary of [token, token.slice(10, 40), "ada", "idp", "files", new URL(server.url).port])
    for (const text of [canary, Buffer.from(canary).toString("base64url").slice(0, -2)])
      assert.ok(!dump.includes(text), `${text} is in ${dump}`);
});

test("a value that was changed, or is another key's, is not used", { skip }, async () => {
  const redis = stack.use(await startRedis());
  const address = readRedisAddress(redis.url);
  const nowMs = Date.now;
  const shared = stack.use(createRedisTokens({ address, prefix: "p:", keys: oneKey(secret), log, nowMs }));
  const value: SharedToken = { token: "t", obtainedMs: nowMs(), untilMs: nowMs() + 60_000 };
  await eventually("there is a connection", async () => {
    await shared.write("a", value);
    return typeof (await shared.read("a")) === "object";
  });
  await shared.write("b", { ...value, token: "u" });
  assert.deepEqual(await shared.read("a"), value);
  const [a, b] = (await Promise.all(["p:t:a", "p:t:b"].map((place) => askRedis(redis.port, ["GET", place])))) as [string, string];
  await askRedis(redis.port, ["SET", "p:t:a", b]);
  assert.equal(await shared.read("a"), "none");
  for (let i = 0; i < a.length; i++) {
    const flipped = a.slice(0, i) + String.fromCharCode(a.charCodeAt(i) ^ 1) + a.slice(i + 1);
    await askRedis(redis.port, ["SET", "p:t:a", flipped]);
    assert.equal(await shared.read("a"), "none", `bit of character ${i}`);
  }
  for (const junk of ["", "{}", "s1k1.AAAA"]) {
    await askRedis(redis.port, ["SET", "p:t:a", junk]);
    assert.equal(await shared.read("a"), "none");
  }
  await askRedis(redis.port, ["DEL", "p:t:a"]);
  await askRedis(redis.port, ["LPUSH", "p:t:a", "x"]);
  assert.equal(await shared.read("a"), "unavailable", "a list is no text");
  const other = stack.use(createRedisTokens({ address, prefix: "p:", keys: oneKey(randomBytes(32)), log, nowMs }));
  await eventually("there is a connection", async () => (await other.read("none")) === "none");
  assert.equal(await other.read("b"), "none", "of another secret");
});

test("a lock is one's own for 10 s, and only its holder releases it", { skip }, async () => {
  const redis = stack.use(await startRedis());
  const address = readRedisAddress(redis.url);
  const options = { address, prefix: "p:", keys: oneKey(secret), log, nowMs: Date.now };
  const shared = stack.use(createRedisTokens(options));
  const release = await eventually("there is a connection", async () => {
    const got = await shared.lock("a");
    return typeof got === "function" ? got : undefined;
  });
  assert.equal(await shared.lock("a"), "taken");
  assert.ok(Number(await askRedis(redis.port, ["PTTL", "p:t:a:lock"])) > 9_000);
  await askRedis(redis.port, ["SET", "p:t:a:lock", "another"]);
  await release();
  assert.equal(await shared.lock("a"), "taken");
  await redis.stop();
  await eventually("it is gone", async () => (await shared.lock("a")) === "unavailable");
  await release();
});

test("while Redis hangs or is gone everybody obtains their own, without much delay", { skip }, async () => {
  const redis = stack.use(await startRedis());
  const { port, proxies } = await setUp(2, redis);
  await connected(proxies, port);
  const [one, other] = proxies as [(typeof proxies)[0], (typeof proxies)[0]];
  const shown = await one.show(caller("ada"));
  redis.kill("SIGSTOP");
  const startMs = performance.now();
  await one.show(caller("bob"));
  assert.ok(performance.now() - startMs < 700, `${performance.now() - startMs} ms`);
  assert.deepEqual([...(await one.show(caller("ada")))], [...shown]);
  redis.kill("SIGKILL");
  redis.kill("SIGCONT");
  await redis.ended;
  await Promise.all([one.show(caller("carol")), other.show(caller("carol"))]);
  await redis.restart();
  await connected(proxies, port);
});
