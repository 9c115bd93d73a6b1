import assert from "node:assert/strict";
import { createHook } from "node:async_hooks";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type BreakerSettings, createBreaker } from "./breaker.ts";
import { BackendError } from "./errors.ts";

const defaults: BreakerSettings = { enabled: true, failureThreshold: 5, openMs: 60_000 };
const timeoutMs = 1_000;

const unavailable = () => new BackendError("unavailable", "unknown", "away");
const busy = () => new BackendError("refused", "not_executed", "answered HTTP 429", undefined, { asksForLess: true });

/** A breaker on a clock that stands until a test moves it, and calls that end when a test says so. */
function setUp(settings: Partial<BreakerSettings> = {}, random: () => number = () => 0) {
  const clock = { ms: 1_000_000 };
  const stalls = { lastMs: -1, begin: () => undefined, end: () => undefined, stalledSince: (ms: number) => stalls.lastMs >= ms };
  const states: string[] = [];
  const breaker = createBreaker({
    settings: { ...defaults, ...settings },
    nowMs: () => clock.ms,
    random,
    stalls,
    onChange: ({ state }) => states.push(state),
  });

  /** A call that is under way, or the error that it was shed with. */
  async function begin(deadlineMs = timeoutMs) {
    const end = Promise.withResolvers<string>();
    let hasBegun = false;
    const ended = breaker.run(deadlineMs, () => {
      hasBegun = true;
      return end.promise;
    });
    const outcome = ended.then(
      () => undefined,
      (error: unknown) => error as BackendError,
    );
    if (!hasBegun) return { shed: (await outcome) as BackendError };
    return {
      shed: undefined,
      async works() {
        end.resolve("done");
        assert.equal(await outcome, undefined);
      },
      async fails(error: Error = unavailable()) {
        end.reject(error);
        assert.equal(await outcome, error);
      },
    };
  }

  /** Begins a call that must not be shed. */
  async function admitted(deadlineMs?: number) {
    const call = await begin(deadlineMs);
    assert.equal(call.shed, undefined, "it was shed");
    return call as Exclude<typeof call, { shed: BackendError }>;
  }

  async function isShed(): Promise<BackendError> {
    const { shed } = await begin();
    assert.ok(shed, "it was let through");
    assert.deepEqual([shed.code, shed.outcome], ["shed", "not_executed"]);
    return shed;
  }

  const works = async (ms = 0) => {
    const call = await admitted();
    clock.ms += ms;
    await call.works();
  };
  const fails = async (error?: Error) => (await admitted()).fails(error);
  const times = async (many: number, act: () => Promise<unknown>) => {
    for (let i = 0; i < many; i++) await act();
  };
  const opened = async () => {
    await times(settings.failureThreshold ?? 5, () => fails());
    assert.equal(breaker.state, "open");
  };
  /** Open, and its first pause is over. */
  const paused = async () => {
    await opened();
    clock.ms += 1_000;
  };
  return { breaker, clock, stalls, states, begin, admitted, isShed, works, fails, times, opened, paused };
}

// --- What counts

for (const [what, error, opens] of [
  ["could not be reached", unavailable(), true],
  ["did not answer in time", new BackendError("timeout", "unknown", ""), true],
  ["answered garbage", new BackendError("bad_answer", "unknown", ""), true],
  ["wants another credential", new BackendError("unauthorized", "not_executed", ""), false],
  ["had no credential to be shown", new BackendError("no_credential", "not_executed", ""), false],
  ["refused the request", new BackendError("refused", "not_executed", ""), false],
  ["asked for less", busy(), false],
  ["asked for less when it was discovered", new BackendError("unavailable", "not_executed", "", busy()), false],
  ["lost its session", new BackendError("session_gone", "not_executed", ""), false],
  ["asked what nobody answered", new BackendError("unanswered", "unknown", ""), false],
  ["was not asked by ourselves", new BackendError("shed", "not_executed", ""), false],
  ["lost its client", new Error("the client went away"), false],
  ["met a fault of ours", new TypeError("x is not a function"), false],
] as const) {
  test(`a backend that ${what} ${opens ? "opens" : "does not open"} the breaker`, async () => {
    const { breaker, fails, times } = setUp();
    await times(5, () => fails(error));
    assert.equal(breaker.state, opens ? "open" : "closed");
  });
}

test("failures in a row open it, however slowly they come; a success in between starts anew", async () => {
  const { breaker, clock, fails, works, times } = setUp({ failureThreshold: 3 });
  await times(2, () => fails());
  await works();
  for (let i = 0; i < 2; i++) {
    await fails();
    clock.ms += 3_600_000;
  }
  assert.equal(breaker.state, "closed");
  await fails();
  assert.equal(breaker.state, "open");
});

test("what counts neither way does not part failures in a row", async () => {
  const { breaker, fails, times } = setUp({ failureThreshold: 3 });
  await times(2, () => fails());
  await fails(busy());
  await fails();
  assert.equal(breaker.state, "open");
});

for (const [what, calls, opens] of [
  ["half of 20 calls", `${"fs".repeat(9)}sf`, true],
  ["one less than half of 20", `${"fs".repeat(9)}ss`, false],
  ["all of 19, though not in a row", `${"ffffs".repeat(3)}ffff`, false],
  ["half of 21 and one less", `${"fs".repeat(10)}s`, false],
  ["more than half of 21", `${"fs".repeat(7)}${"ffs".repeat(2)}f`, true],
  ["half of 20, and 100 more that say nothing", `${"n".repeat(100)}${"fs".repeat(9)}sf`, true],
  ["10, and 10 that say nothing", "fn".repeat(10), false],
] as const) {
  test(`failures that are ${what} ${opens ? "open it" : "do not"}`, async () => {
    const { breaker, works, fails } = setUp({ failureThreshold: 1_000 });
    for (const call of calls) {
      assert.equal(breaker.state, "closed");
      await (call === "s" ? works() : fails(call === "n" ? busy() : undefined));
    }
    assert.equal(breaker.state, opens ? "open" : "closed");
  });
}

test("failures of more than 10 s ago are forgotten", async () => {
  const { breaker, clock, works, fails, times } = setUp({ failureThreshold: 1_000 });
  await times(10, () => works());
  await times(9, () => fails());
  clock.ms += 10_000;
  await fails();
  assert.equal(breaker.state, "closed");
  await times(18, () => fails());
  assert.equal(breaker.state, "closed");
  await fails();
  assert.equal(breaker.state, "open");
});

for (const [what, slow, fast, opens] of [
  ["16 of 20", 16, 4, true],
  ["15 of 20", 15, 5, false],
  ["19 of 19", 19, 0, false],
] as const) {
  test(`calls that took more than 0.8 of their deadline, ${what}, ${opens ? "open it" : "do not"}`, async () => {
    const { breaker, clock, admitted } = setUp();
    const calls = await Promise.all(Array.from({ length: slow + fast }, () => admitted()));
    for (const call of calls.slice(0, fast)) await call.works();
    clock.ms += 801;
    for (const call of calls.slice(fast)) await call.works();
    assert.equal(breaker.state, opens ? "open" : "closed");
  });
}

test("calls that took 0.8 of their deadline are not slow yet", async () => {
  const { breaker, works, times } = setUp();
  await times(40, () => works(800));
  assert.equal(breaker.state, "closed");
});

test("once closed it knows nothing of the slow calls before", async () => {
  const { breaker, clock, admitted, works, times } = setUp();
  const calls = await Promise.all(Array.from({ length: 20 }, () => admitted()));
  clock.ms += 900;
  for (const call of calls) await call.works();
  assert.equal(breaker.state, "open");
  clock.ms += 1_000;
  await times(3, () => works());
  clock.ms += 5_000;
  await works(900);
  assert.equal(breaker.state, "closed");
});

test("what failed or was slow while this process stood still says nothing", async () => {
  const { breaker, clock, stalls, admitted } = setUp();
  const calls = await Promise.all(Array.from({ length: 60 }, () => admitted()));
  clock.ms += 2_000;
  stalls.lastMs = clock.ms;
  for (const call of calls.slice(0, 30)) await call.fails(new BackendError("timeout", "unknown", ""));
  for (const call of calls.slice(30)) await call.works();
  assert.equal(breaker.state, "closed");
  clock.ms += 1; // what begins after it counts
  for (let i = 0; i < 5; i++) await (await admitted()).fails();
  assert.equal(breaker.state, "open");
});

// --- Open

test("while it is open no call is made, and the error says since when and until when", async () => {
  const { clock, opened, isShed } = setUp();
  await opened();
  assert.deepEqual((await isShed()).leftAlone, { sinceMs: 0, retryAfterMs: 1_000 });
  clock.ms += 999;
  assert.deepEqual((await isShed()).leftAlone, { sinceMs: 999, retryAfterMs: 1 });
});

for (const [openMs, chance, pauses] of [
  [60_000, 0, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 40_000, 40_000]],
  [60_000, 0.5, [1_250, 2_500, 5_000, 10_000, 20_000, 40_000, 50_000]],
  [60_000, 1 - Number.EPSILON, [1_500, 3_000, 6_000, 12_000, 24_000, 48_000, 60_000, 60_000]],
  [6_000, 1 - Number.EPSILON, [1_500, 3_000, 6_000, 6_000]],
  [1_000, 1 - Number.EPSILON, [1_000, 1_000]],
] as const) {
  test(`up to ${openMs / 1_000} s and with a chance of ${chance.toFixed(1)} it pauses for ${pauses.join(", ")} ms`, async () => {
    const { clock, breaker, opened, isShed, fails } = setUp({ openMs }, () => chance);
    await opened();
    for (const pause of pauses) {
      clock.ms = Math.ceil(clock.ms + pause - 2);
      await isShed();
      clock.ms += 2;
      await fails();
      assert.equal(breaker.state, "open");
    }
  });
}

test("how long it has been left alone is counted from when it first opened", async () => {
  const { clock, paused, fails, isShed } = setUp();
  await paused();
  await fails();
  clock.ms += 500;
  assert.deepEqual((await isShed()).leftAlone, { sinceMs: 1_500, retryAfterMs: 1_500 });
});

// --- Half-open

test("after the pause one call is let through at a time", async () => {
  const { breaker, paused, admitted, isShed } = setUp();
  await paused();
  await admitted();
  assert.equal(breaker.state, "half_open");
  assert.deepEqual((await isShed()).leftAlone, { sinceMs: 1_000, retryAfterMs: 1_000 });
});

test("calls are let through twice as many at a time with each success, once a second, until it closes after 5 s", async () => {
  const { breaker, clock, paused, admitted, isShed, works, times } = setUp();
  await paused();
  await works();
  for (const width of [2, 4, 8, 16, 32]) {
    const calls = await Promise.all(Array.from({ length: width }, () => admitted()));
    await isShed();
    for (const call of calls) await call.works();
    await times(3, works); // more of them are no faster way
    assert.equal(breaker.state, "half_open");
    clock.ms += 1_000;
  }
  await Promise.all(Array.from({ length: 100 }, () => admitted()));
  assert.equal(breaker.state, "closed");
});

test("time alone lets no more through: the calls must have worked", async () => {
  const { clock, paused, works, admitted, isShed } = setUp();
  await paused();
  await works();
  clock.ms += 60_000;
  await admitted();
  await admitted();
  await isShed();
});

test("two successes do not close it, however long ago; the third does", async () => {
  const { breaker, clock, paused, works, times } = setUp();
  await paused();
  await times(2, () => works());
  clock.ms += 60_000;
  await works();
  assert.equal(breaker.state, "closed");
});

test("three successes do not close it before 5 s have passed", async () => {
  const { breaker, clock, paused, works, times } = setUp();
  await paused();
  await times(10, () => works());
  clock.ms += 4_999;
  await works();
  assert.equal(breaker.state, "half_open");
  clock.ms += 1;
  await works();
  assert.equal(breaker.state, "closed");
});

for (const [what, successes] of [
  ["first", 0],
  ["later", 7],
] as const) {
  test(`a failure of a ${what} call opens it again, for longer`, async () => {
    const { breaker, clock, paused, works, fails, times, isShed } = setUp();
    await paused();
    await times(successes, () => works());
    await fails();
    assert.equal(breaker.state, "open");
    clock.ms += 1_999;
    await isShed();
    clock.ms += 1;
    await works();
  });

  test(`a ${what} call that is answered with 429 opens it again, for longer`, async () => {
    const { breaker, clock, paused, works, fails, times, isShed } = setUp();
    await paused();
    await times(successes, () => works());
    await fails(busy());
    assert.equal(breaker.state, "open");
    clock.ms += 1_999;
    await isShed();
  });
}

test("what says nothing keeps it half-open, and lets the next call try", async () => {
  const { breaker, paused, fails, times, admitted, isShed } = setUp();
  await paused();
  await times(10, () => fails(new BackendError("unauthorized", "not_executed", "")));
  assert.equal(breaker.state, "half_open");
  await admitted();
  await isShed(); // still one at a time
});

test("a call that never settles is given up 250 ms after its deadline, as a failure of that moment", async () => {
  const { breaker, clock, paused, admitted, isShed } = setUp();
  await paused();
  await admitted(3_000);
  clock.ms += 3_249;
  await isShed();
  assert.equal(breaker.state, "half_open");
  clock.ms += 1;
  assert.equal((await isShed()).leftAlone?.retryAfterMs, 2_000);
  assert.equal(breaker.state, "open");
});

test("a call that never settles, and nobody looked: the pause after it may be over already", async () => {
  const { breaker, clock, paused, admitted } = setUp();
  await paused();
  const hung = await admitted(3_000);
  clock.ms += 3_250 + 2_000;
  await admitted();
  assert.equal(breaker.state, "half_open");
  await hung.works(); // it is none of those that are waited for any more
  assert.equal(breaker.state, "half_open");
});

test("what began before a change of state counts neither way after it", async () => {
  const { breaker, clock, admitted, opened, isShed, works, times } = setUp();
  const early = await Promise.all(Array.from({ length: 40 }, () => admitted()));
  await opened();
  for (const call of early.slice(0, 10)) await call.works();
  assert.equal(breaker.state, "open");
  clock.ms += 1_000;
  const probe = await admitted();
  for (const call of early.slice(10, 20)) await call.works();
  await isShed(); // none of them made room for more
  await probe.works();
  for (const call of early.slice(20, 30)) await call.fails();
  assert.equal(breaker.state, "half_open");
  clock.ms += 5_000;
  await times(3, () => works());
  assert.equal(breaker.state, "closed");
  for (const call of early.slice(30)) await call.fails();
  assert.equal(breaker.state, "closed");
});

test("once closed it knows nothing of the failures before, and its next pause is the first again", async () => {
  const { breaker, clock, works, fails, times, isShed } = setUp({ failureThreshold: 1_000 });
  await times(20, () => fails());
  clock.ms += 1_000;
  await times(3, () => works());
  clock.ms += 5_000;
  await works();
  assert.equal(breaker.state, "closed");
  await times(18, () => fails());
  assert.equal(breaker.state, "closed");
  await fails(); // the 20th call, counting the one that closed it
  assert.equal(breaker.state, "open");
  assert.equal((await isShed()).leftAlone?.retryAfterMs, 1_000);
});

// --- From outside

test("a backend that was seen to be back is tried at once, one call at a time, and closes by its calls alone", async () => {
  const { breaker, clock, opened, admitted, isShed, works, times, fails } = setUp();
  await opened();
  breaker.retryNow();
  assert.equal(breaker.state, "half_open");
  const hung = await admitted();
  await isShed();
  breaker.retryNow(); // whatever became of that one, it began when the backend was away
  const probe = await admitted();
  await hung.fails();
  await probe.works();
  breaker.retryNow();
  await times(3, () => works());
  clock.ms += 5_000;
  await works();
  assert.equal(breaker.state, "closed");
  breaker.retryNow();
  assert.equal(breaker.state, "closed");
  await times(5, () => fails());
  assert.equal(breaker.state, "open");
});

test("a backend that may have been seen before its last failure is tried 1 s after that", async () => {
  const { breaker, clock, paused, fails, isShed, admitted } = setUp();
  await paused();
  await fails();
  breaker.retryNow(1_000);
  clock.ms += 999;
  await isShed();
  clock.ms += 1;
  await admitted();
  const late = setUp();
  await late.paused();
  await late.fails();
  late.clock.ms += 1_500;
  late.breaker.retryNow(1_000);
  assert.equal(late.breaker.state, "half_open");
});

test("one that is not to try calls is refused unless the breaker is closed", async () => {
  const { breaker, clock, opened } = setUp();
  assert.equal(breaker.refusal(), undefined);
  await opened();
  assert.deepEqual(breaker.refusal()?.leftAlone, { sinceMs: 0, retryAfterMs: 1_000 });
  clock.ms += 2_000;
  assert.equal(breaker.refusal()?.code, "shed");
  breaker.retryNow();
  assert.equal(breaker.refusal()?.leftAlone?.retryAfterMs, 1_000);
});

test("new settings keep what is known: failures in a row, that it is open, and for how long at most", async () => {
  const { breaker, clock, fails, works, times, isShed } = setUp({ failureThreshold: 10 });
  await times(4, () => fails());
  breaker.configure({ ...defaults, failureThreshold: 5 });
  await fails();
  assert.equal(breaker.state, "open");
  clock.ms += 1_000;
  await fails();
  breaker.configure({ ...defaults, failureThreshold: 1, openMs: 1_500 });
  assert.equal((await isShed()).leftAlone?.retryAfterMs, 1_500);
  clock.ms += 1_500;
  await works();
  assert.equal(breaker.state, "half_open");
});

test("switched off it lets everything through and counts nothing; switched on it begins closed", async () => {
  const { breaker, opened, fails, admitted, times, states } = setUp();
  await opened();
  breaker.configure({ ...defaults, enabled: false });
  assert.equal(breaker.state, "closed");
  const early = await admitted();
  await times(100, () => fails());
  breaker.configure(defaults);
  await times(4, () => fails());
  await early.fails();
  assert.equal(breaker.state, "closed");
  await fails();
  assert.deepEqual(states, ["open", "closed", "open"]);
});

test("one that was disposed runs nothing, and what was under way ends as it would have", async () => {
  const { breaker, admitted, begin } = setUp();
  const calls = await Promise.all(Array.from({ length: 5 }, () => admitted()));
  breaker[Symbol.dispose]();
  for (const call of calls) await call.fails();
  assert.equal((await begin()).shed?.message, "the backend was removed");
});

test("a call that is shed is answered within 5 ms", async () => {
  const { opened, isShed } = setUp();
  await opened();
  await isShed();
  const startedMs = performance.now();
  for (let i = 0; i < 100; i++) await isShed();
  const eachMs = (performance.now() - startedMs) / 100;
  assert.ok(eachMs < 5, `${eachMs} ms`);
});

// --- Many

test("three proxies try a backend that is down for 60 s at most once a second each, and not together", async () => {
  let seed = 1;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const proxies = Array.from({ length: 3 }, () => ({ ...setUp({}, random), triedMs: [] as number[] }));
  // 100 calls a second each; a call takes 10 ms to fail.
  for (let ms = 0; ms < 60_000; ms += 10) {
    for (const { clock, begin, triedMs, breaker } of proxies) {
      const wasClosed = breaker.state === "closed";
      const call = await begin();
      clock.ms += 10;
      if (call.shed) continue;
      if (!wasClosed) triedMs.push(ms);
      await call.fails();
    }
  }
  for (const { triedMs } of proxies) {
    assert.ok(triedMs.length >= 4 && triedMs.length <= 6, `tried at ${triedMs}`);
    for (const [i, ms] of triedMs.entries()) if (i > 0) assert.ok(ms - (triedMs[i - 1] as number) >= 1_000, `${triedMs}`);
  }
  for (let round = 1; round < 5; round++) {
    const together = proxies.map(({ triedMs }) => triedMs[round] as number);
    assert.ok(Math.max(...together) - Math.min(...together) >= 100, `together: ${together}`);
    assert.equal(new Set(together).size, 3, `together: ${together}`);
  }

  // Seen to be back, each lets one call through, and few at a time after it.
  for (const { breaker, begin } of proxies) {
    breaker.retryNow();
    const calls = await Promise.all(Array.from({ length: 100 }, () => begin()));
    assert.equal(calls.filter(({ shed }) => !shed).length, 1);
  }
});

test("10,000 breakers that came and went leave no memory and no timer behind", async () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  let timers = 0;
  const ids = new Set<number>();
  const hook = createHook({
    init(id, type) {
      if (type !== "Timeout") return;
      ids.add(id);
      timers++;
    },
    destroy: (id) => void ids.delete(id),
  });
  const cycle = async (many: number) => {
    for (let i = 0; i < many; i++) {
      const one = setUp({ failureThreshold: 1 });
      await one.works();
      await one.fails();
      if (i % 2) {
        one.clock.ms += 1_000;
        await one.admitted(); // never ends
      }
      one.breaker[Symbol.dispose]();
    }
  };
  const settled = async () => {
    for (let i = 0; i < 3; i++) {
      gc();
      await new Promise(setImmediate);
    }
    return process.memoryUsage().heapUsed;
  };
  await cycle(2_000);
  const before = await settled();
  hook.enable();
  await cycle(10_000);
  const after = await settled();
  hook.disable();
  assert.ok(after - before < 2 * 1024 * 1024, `${((after - before) / 1024 / 1024).toFixed(1)} MB more`);
  assert.ok(timers >= 10_000); // opossum's, while one is open: the hook sees them
  assert.ok(ids.size < 5, `${ids.size} timers are left`);
});
