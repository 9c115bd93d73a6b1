import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { createLookout } from "./breaker-lookout.ts";
import { BackendError } from "./errors.ts";

const gone = () => new BackendError("unavailable", "unknown", "away");

/** A lookout over answers that a test chooses, on timers that a test moves. */
function setUp(t: TestContext) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const seen = { looks: 0, returns: 0, isWanted: true, answer: (): Promise<void> => Promise.resolve() };
  const lookout = createLookout({
    look: () => {
      seen.looks++;
      return seen.answer();
    },
    isWanted: () => seen.isWanted,
    onReturn: () => seen.returns++,
    random: () => 0.5, // 1,250 ms
    sleep: (ms, signal) =>
      new Promise<void>((resolve, reject) => {
        setTimeout(resolve, ms);
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      }),
  });
  t.after(() => lookout[Symbol.dispose]());
  const pass = async (ms: number) => {
    for (let left = ms; left > 0; left -= 50) {
      t.mock.timers.tick(50);
      for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
    }
  };
  return { lookout, seen, pass };
}

test("it looks every 1 to 1.5 s, and tells once that a backend came back", async (t) => {
  const { lookout, seen, pass } = setUp(t);
  seen.answer = () => Promise.reject(gone());
  lookout.start(true);
  lookout.start(false); // it is one lookout, however often it is started
  await pass(1_200);
  assert.equal(seen.looks, 0);
  await pass(1_250 * 4);
  assert.deepEqual([seen.looks, seen.returns], [4, 0]);
  seen.answer = () => Promise.resolve();
  await pass(1_250 * 3);
  assert.deepEqual([seen.looks, seen.returns], [7, 1]);
});

test("a backend that answers all the time has not come back", async (t) => {
  const { lookout, seen, pass } = setUp(t);
  lookout.start(false);
  await pass(1_300 * 3);
  assert.deepEqual([seen.looks, seen.returns], [3, 0]);
});

test("a look that hangs is given up after 1 s, and does not hold up the next", async (t) => {
  const { lookout, seen, pass } = setUp(t);
  seen.answer = () => new Promise(() => undefined);
  lookout.start(false);
  await pass(1_300);
  seen.answer = () => Promise.resolve();
  await pass(1_250);
  assert.deepEqual([seen.looks, seen.returns], [2, 1]);
});

for (const [what, error, returns] of [
  ["wants another credential", new BackendError("unauthorized", "not_executed", ""), 1],
  ["refuses the question", new BackendError("refused", "not_executed", ""), 1],
  ["asks for less", new BackendError("refused", "not_executed", "", undefined, { asksForLess: true }), 0],
  ["answers garbage", new BackendError("bad_answer", "unknown", ""), 0],
] as const) {
  test(`a backend that ${what} ${returns ? "is back" : "is not back"}`, async (t) => {
    const { lookout, seen, pass } = setUp(t);
    seen.answer = () => Promise.reject(error);
    lookout.start(true);
    await pass(1_300);
    assert.deepEqual([seen.looks, seen.returns], [1, returns]);
  });
}

test("it ends when it can't look, when it is not wanted, and when it is disposed, and begins again when it is started", async (t) => {
  const { lookout, seen, pass } = setUp(t);
  seen.answer = () => Promise.reject(new BackendError("no_credential", "not_executed", ""));
  lookout.start(true);
  await pass(5_000);
  assert.equal(seen.looks, 1);
  seen.isWanted = false;
  lookout.start(true);
  await pass(5_000);
  assert.equal(seen.looks, 1);
  seen.isWanted = true;
  lookout.start(true);
  await pass(1_300);
  assert.equal(seen.looks, 2);
  lookout.start(true);
  lookout[Symbol.dispose]();
  lookout.start(true);
  await pass(5_000);
  assert.equal(seen.looks, 2);
});
