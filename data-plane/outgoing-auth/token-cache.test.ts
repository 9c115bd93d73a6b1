import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createTokenCache, type Way } from "./token-cache.ts";
import { TokenRequestError } from "./token-endpoint.ts";
import { createTokenMetrics } from "./token-metrics.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());

function setUp(heldMax = 100) {
  const clock = { ms: 1_000_000 };
  const cache = stack.use(createTokenCache({ nowMs: () => clock.ms, heldMax }));
  const counters = createTokenMetrics().of({ strategy: "s", virtualServer: "v", backend: "b" });
  let obtained = 0;
  const way = (key: string, change: Partial<Way> = {}): Way => ({
    ...{ key, endsMs: Number.POSITIVE_INFINITY, counters },
    obtain: async () => ({ text: `${key}-${++obtained}`, endsMs: clock.ms + 3_600_000 }),
    ...change,
  });
  return { clock, cache, way, counters };
}

test("a token is not shown in its last 30 s", async () => {
  const { clock, cache, way } = setUp();
  await cache.get(way("a"));
  clock.ms += 3_570_000 - 1;
  assert.equal(cache.find("a")?.token, "a-1");
  clock.ms += 1;
  assert.equal(cache.find("a"), undefined);
  assert.equal((await cache.get(way("a"))).token, "a-2");
});

test("beyond its bound it forgets what was not used for longest, and whoever still has it learns so", async () => {
  const { cache, way } = setUp();
  const first = await cache.get(way("k0"));
  for (let i = 1; i < 100; i++) await cache.get(way(`k${i}`));
  assert.ok(cache.find("k0"));
  const second = await cache.get(way("k1"));
  second.isUsed = false;
  await cache.get(way("k100"));
  assert.ok(cache.find("k0"), "it was used");
  assert.equal(cache.find("k1"), undefined);
  assert.equal(second.isGone, true);
  assert.equal(first.isGone, false);
  for (let i = 0; i < 500; i++) {
    await cache.get(way(`other${i}`));
    for (const key of ["k0", `other${i}`]) cache.find(key);
  }
  const left = Array.from({ length: 500 }, (_, i) => cache.find(`other${i}`)).filter(Boolean);
  assert.ok(left.length <= 100 && left.length >= 99, `${left.length} are left`);
});

test("what fails otherwise than foreseen is a failure of ours, and says nothing", async () => {
  const { cache, way, counters } = setUp();
  const broken = way("a", { obtain: async () => Promise.reject(new Error("s3cret")) });
  await assert.rejects(cache.get(broken), { name: "TokenRequestError", message: "a token could not be had", fault: "temporary" });
  assert.deepEqual(counters.failed, { internal: 1 });
  assert.equal((await cache.get(way("a"))).token, "a-1");
});

test("a refusal is believed for its own key only", async () => {
  const { cache, way, counters } = setUp();
  let asked = 0;
  const refusal = new TokenRequestError("no", { failure: "refused_caller" });
  const refused = way("a", {
    obtain() {
      asked++;
      return Promise.reject(refusal);
    },
  });
  for (let i = 0; i < 3; i++) await assert.rejects(cache.get(refused), refusal);
  assert.equal(asked, 1);
  assert.equal(counters.negativeHits, 2);
  await cache.get(way("b"));
});

test("a refresh that fails is not held against the next caller", async () => {
  const { clock, cache, way } = setUp();
  const held = await cache.get(way("a"));
  clock.ms += 3_570_000 - 1;
  const refusal = new TokenRequestError("no", { failure: "refused_caller" });
  cache.refresh(held, way("a", { obtain: async () => Promise.reject(refusal) }));
  await new Promise((resolve) => setImmediate(resolve));
  clock.ms += 1;
  assert.equal((await cache.get(way("a"))).token, "a-2");
});

test("a refusal of a token that is not the one at hand changes nothing", async () => {
  const { clock, cache, way } = setUp();
  await cache.get(way("a"));
  clock.ms += 5_000;
  assert.equal(await cache.refused(way("a"), "older"), true);
  assert.ok(cache.find("a"));
  assert.equal(await cache.refused(way("never seen"), "older"), true);
});
