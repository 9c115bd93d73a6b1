// Several processes over one store, which is sometimes away, and a server that gives each refresh token once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { eventually } from "../../test/support/eventually.ts";
import { createUserTokenSource } from "./user-token-source.ts";
import { createMemoryTokens, StoreDownError, type UserToken, type UserTokens } from "./user-tokens.ts";

const hourMs = 3_600_000;

function setUp({ processes = 1, isSlow = false } = {}) {
  const clock = { ms: 1_000_000 };
  const nowMs = () => clock.ms;
  const kept = createMemoryTokens({ nowMs });
  const faults = { isDown: false, writes: 0 };
  const asked = <T>(work: () => Promise<T>): Promise<T> => (faults.isDown ? Promise.reject(new StoreDownError()) : work());
  const store: UserTokens = {
    ...kept,
    read: (key) => asked(() => kept.read(key)),
    lock: (key) => asked(() => kept.lock(key)),
    write: (key, token) => (faults.writes-- > 0 ? Promise.reject(new StoreDownError()) : asked(() => kept.write(key, token))),
  };
  const used: string[] = [];
  let last = 0;
  const fresh = (): UserToken => ({
    ...{ access: `access${++last}`, refresh: `refresh${last}`, issuer: "i", clientId: "c" },
    ...{ obtainedMs: clock.ms, endsMs: clock.ms + hourMs },
  });
  async function renew({ refresh }: UserToken & { readonly refresh: string }): Promise<UserToken> {
    used.push(refresh);
    if (isSlow) await sleep(5);
    return fresh();
  }
  const sources = Array.from({ length: processes }, () => createUserTokenSource({ store, nowMs, isOurs: () => true, renew }));
  const one = sources[0] as (typeof sources)[0];
  const show = async (source = one) => source.find("ada", () => "key") ?? source.get("ada", "key");
  return { clock, kept, faults, used, sources, one, show, fresh };
}

test("no refresh token is used twice, however calls fall", async () => {
  const gap = fc.integer({ min: 0, max: 1.2 * hourMs });
  const calls = fc.array(fc.record({ who: fc.integer({ min: 0, max: 2 }), gap, many: fc.integer({ min: 1, max: 4 }) }));
  await fc.assert(
    fc.asyncProperty(calls, async (rounds) => {
      const { clock, used, sources, one, show, fresh } = setUp({ processes: 3, isSlow: true });
      await one.put("ada", "key", fresh());
      for (const { who, gap: ms, many } of rounds) {
        clock.ms += ms;
        const all = await Promise.all(Array.from({ length: many }, (_, i) => show(sources[(who + i) % 3])));
        assert.ok(all.every((headers) => headers !== undefined));
      }
      await sleep(10); // what goes on meanwhile
      assert.equal(new Set(used).size, used.length);
    }),
    { numRuns: 40 },
  );
});

test("what was got while the store was away is not lost", async () => {
  const { clock, kept, faults, used, one, show, fresh } = setUp();
  await one.put("ada", "key", fresh());
  clock.ms += hourMs;
  faults.writes = 2;
  assert.equal((await show())?.[1], "Bearer access2");
  assert.equal((await kept.read("key"))?.access, "access1");
  clock.ms += hourMs;
  assert.equal((await show())?.[1], "Bearer access3", "with the token that only we have");
  assert.deepEqual(used, ["refresh1", "refresh2"]);
  await eventually("it is kept", async () => (await kept.read("key"))?.access === "access3");
});

test("while the store is away what is at hand is shown, and nobody is called signed out", async () => {
  const { clock, faults, one, show, fresh } = setUp();
  await one.put("ada", "key", fresh());
  faults.isDown = true;
  clock.ms += 0.9 * hourMs;
  assert.equal((await show())?.[1], "Bearer access1");
  clock.ms += hourMs;
  await assert.rejects(show(), StoreDownError);
  faults.isDown = false;
  assert.equal((await show())?.[1], "Bearer access2");
});

test("nothing is kept: the user has to sign in", async () => {
  const { show, one } = setUp();
  assert.equal(await show(), undefined);
  assert.equal(await one.refused("ada", "key", ["authorization", "Bearer x"]), false);
});

test("a token without a refresh token is over when it ends, or when it is refused", async () => {
  const { clock, kept, one, show, fresh } = setUp();
  const token = { ...fresh(), refresh: undefined };
  await one.put("ada", "key", token);
  const shown = await show();
  assert.ok(shown);
  clock.ms += 60_000;
  assert.equal(await one.refused("ada", "key", shown), false);
  assert.equal(await kept.read("key"), undefined);
  await one.put("ada", "key", { ...fresh(), refresh: undefined });
  clock.ms += hourMs - 20_000;
  assert.equal(await show(), undefined, "in its last moments it is shown no more");
});
