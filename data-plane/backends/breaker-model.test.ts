// 100,000 random lives of a breaker against a page that says what it should do. The page keeps every end of every call in a list, has no
// opossum, and no clock but the numbers it is given. A seed that fails is in the message; `seed` below runs it alone.
import assert from "node:assert/strict";
import { once } from "node:events";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { type BreakerSettings, createBreaker } from "./breaker.ts";
import { BackendError } from "./errors.ts";

type End = "success" | "failure" | "neutral" | "429";

/** What a breaker should do. */
function createModel(settings: BreakerSettings, random: () => number) {
  let state = "closed";
  let life = 0;
  let ends: { second: number; isFailure: boolean; isSlow: boolean }[] = [];
  let inRow = 0;
  let opened = 0;
  let openedMs = 0;
  let untilMs = 0;
  let firstMs = 0;
  let worked = 0;
  let probes: { startMs: number; timeoutMs: number; life: number }[] = [];
  const to = (next: string) => {
    state = next;
    life++;
    probes = [];
    worked = 0;
  };
  const open = (ms: number) => {
    opened++;
    openedMs = ms;
    untilMs = ms + Math.min(1000 * 2 ** (opened - 1), settings.openMs / 1.5) * (1 + random() / 2);
    to("open");
  };
  const close = () => {
    [ends, inRow, opened] = [[], 0, 0];
    to("closed");
  };
  const giveUp = (ms: number) => {
    const due = Math.min(...probes.map((probe) => probe.startMs + probe.timeoutMs + 250));
    if (ms >= due) open(due);
  };
  const isProven = (ms: number) => worked >= 3 && ms - firstMs >= 5000;
  return {
    get state() {
      return state;
    },
    begin(ms: number, timeoutMs: number) {
      if (state === "half_open") giveUp(ms);
      if (state === "open" && ms < untilMs) return undefined;
      if (state === "open") to("half_open");
      if (state === "half_open" && isProven(ms)) close();
      const call = { startMs: ms, timeoutMs, life };
      if (state === "closed") return call;
      if (probes.length >= (worked === 0 ? 1 : 2 ** Math.min(worked, 1 + Math.floor((ms - firstMs) / 1000)))) return undefined;
      probes.push(call);
      return call;
    },
    end(call: (typeof probes)[number], ms: number, end: End) {
      if (state === "half_open") giveUp(ms);
      if (call.life !== life) return;
      if (state === "half_open") {
        probes = probes.filter((probe) => probe !== call);
        if (end === "failure" || end === "429") open(ms);
        else if (end === "success") {
          if (worked++ === 0) firstMs = ms;
          if (isProven(ms)) close();
        }
        return;
      }
      if (end === "neutral" || end === "429") return;
      const isFailure = end === "failure";
      const second = Math.floor(ms / 1000);
      inRow = isFailure ? inRow + 1 : 0;
      ends.push({ second, isFailure, isSlow: ms - call.startMs > 0.8 * call.timeoutMs });
      const recent = ends.filter((one) => one.second > second - 10);
      const share = (is: "isFailure" | "isSlow") => recent.filter((one) => one[is]).length / recent.length;
      const says = recent.length >= 20;
      if (inRow >= settings.failureThreshold || (says && (share("isSlow") >= 0.8 || (isFailure && share("isFailure") >= 0.5))))
        open(ms);
    },
    retryNow(ms: number, leastMs: number) {
      if (state === "open") untilMs = Math.min(untilMs, openedMs + leastMs);
      if ((state === "open" && ms >= untilMs) || (state === "half_open" && worked === 0)) to("half_open");
    },
    configure(next: BreakerSettings) {
      settings = next;
    },
  };
}

Error.stackTraceLimit = 0; // most of the time would go into the traces of calls that are shed

const errors = {
  failure: new BackendError("unavailable", "unknown", "away"),
  neutral: new BackendError("unauthorized", "not_executed", "who are you"),
  "429": new BackendError("refused", "not_executed", "busy", undefined, { asksForLess: true }),
};

const seed: number | undefined = undefined;
const lives = 100_000;
const changes = ["closed open", "open half_open", "half_open open", "half_open closed"];

// In a thread of its own, because the test runner's tracking of every promise would take three times as long as all the rest.
if (isMainThread) {
  const { test } = await import("node:test");
  test("100,000 random lives are as the model has them", async () => {
    const [seen] = (await once(new Worker(import.meta.filename), "message")) as [ReadonlyMap<string, number>];
    // It is worth something only if it goes everywhere, many times.
    for (const change of changes)
      assert.ok((seen.get(change) ?? 0) >= (seed === undefined ? 1_000 : 0), `${change}: ${seen.get(change)}`);
  });
} else {
  const seen = new Map<string, number>();
  for (let one = seed ?? 1; one <= (seed ?? lives); one++) await live(one, seen);
  parentPort?.postMessage(seen);
}

async function live(seed: number, seen: Map<string, number>): Promise<void> {
  const random = randomFrom(seed);
  const below = (n: number) => Math.floor(random() * n);
  const oneOf = <T>(...all: T[]) => all[below(all.length)] as T;
  const settingsOf = (): BreakerSettings => ({
    enabled: true,
    failureThreshold: oneOf(1, 3, 5, 1_000),
    openMs: oneOf(1_000, 5_000, 60_000),
  });
  let settings = settingsOf();
  const clock = { ms: 5_000 + below(2_000) };
  const stalls = { begin: () => undefined, end: () => undefined, stalledSince: () => false };
  const breaker = createBreaker({ settings, nowMs: () => clock.ms, random: randomFrom(seed * 7), stalls });
  const model = createModel(settings, randomFrom(seed * 7));
  const running: { end: PromiseWithResolvers<void>; ended: Promise<unknown>; expected: ReturnType<typeof model.begin> }[] = [];
  const steps: (string | number)[] = []; // when and what, in turn
  let state = "closed";

  const same = () => {
    if (breaker.state !== model.state) assert.fail(`seed ${seed}: is ${breaker.state}, not ${model.state}, after ${steps}`);
    if (model.state === state) return;
    const change = `${state} ${model.state}`;
    seen.set(change, (seen.get(change) ?? 0) + 1);
    state = model.state;
  };

  async function begin(): Promise<void> {
    const timeoutMs = oneOf(200, 1_000, 5_000);
    steps.push(clock.ms, "begin");
    const expected = model.begin(clock.ms, timeoutMs);
    const end = Promise.withResolvers<void>();
    let hasBegun = false;
    const ended = breaker
      .run(timeoutMs, () => {
        hasBegun = true;
        return end.promise;
      })
      .catch((error: unknown) => error);
    if (hasBegun !== (expected !== undefined)) assert.fail(`seed ${seed}: ${hasBegun ? "admitted" : "shed"} after ${steps}`);
    if (hasBegun) running.push({ end, ended, expected });
    else assert.equal(((await ended) as BackendError).code, "shed");
    same();
  }

  async function end(at: number, how: End): Promise<void> {
    const [call] = running.splice(at, 1);
    if (!call?.expected) return;
    steps.push(clock.ms, how);
    model.end(call.expected, clock.ms, how);
    if (how === "success") call.end.resolve();
    else call.end.reject(errors[how]);
    await call.ended;
    same();
  }

  let health = oneOf(0.05, 0.4, 0.6, 0.95);
  const outcome = (): End => (random() < 0.1 ? oneOf("neutral", "429") : random() < health ? "success" : "failure");
  const maxMs = oneOf(10, 200, 1_500);
  for (let left = 15 + below(35); left > 0; left--) {
    const what = below(20);
    if (what < 4) await begin();
    else if (what < 7) await end(below(running.length), outcome());
    else if (what < 17) {
      await begin();
      clock.ms += below(maxMs);
      await end(running.length - 1, outcome());
    } else if (what < 18) {
      clock.ms += below(12_000);
      health = oneOf(0.05, 0.4, 0.6, 0.95, 1);
    } else if (what < 19) {
      const leastMs = oneOf(0, 1_000);
      breaker.retryNow(leastMs);
      model.retryNow(clock.ms, leastMs);
      same();
    } else if (state === "closed") {
      settings = settingsOf();
      breaker.configure(settings);
      model.configure(settings);
    }
  }
  breaker[Symbol.dispose]();
}

function randomFrom(seed: number): () => number {
  let state = seed % 4_294_967_296;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
