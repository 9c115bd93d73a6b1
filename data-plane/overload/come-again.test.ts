import assert from "node:assert/strict";
import { test } from "node:test";
import { createComeAgain } from "./come-again.ts";

test("a few are told 1 to 3 seconds, and read from at once", () => {
  for (const [random, seconds] of [
    [0, 1],
    [0.5, 2],
    [0.999, 3],
  ] as const) {
    const comeAgain = createComeAgain({ random: () => random });
    assert.deepEqual(comeAgain.refused({}, 1_000), { afterSeconds: seconds, unreadMs: 0 });
  }
});

test("many are told up to 30 seconds, each time another", () => {
  const comeAgain = createComeAgain();
  const told = new Set(Array.from({ length: 5_000 }, () => comeAgain.refused({}, 1_000).afterSeconds));
  assert.ok(Math.min(...told) >= 1 && Math.max(...told) <= 30 && told.size > 20);
});

test("only a connection that came too soon is not read from, never longer than it was told to wait", () => {
  const comeAgain = createComeAgain({ perSecond: 100 });
  const [impatient, shared] = [{}, {}];
  comeAgain.saw(impatient, "ada");
  for (const caller of ["ada", "bob", "ada"]) comeAgain.saw(shared, caller);
  let unread = 0;
  for (let i = 0; i < 1_000; i++) {
    assert.equal(comeAgain.refused({}, 1_000).unreadMs, 0);
    assert.equal(comeAgain.refused(shared, 1_000).unreadMs, 0);
    const { afterSeconds, unreadMs } = comeAgain.refused(impatient, 1_000);
    assert.ok(unreadMs <= afterSeconds * 1_000 && unreadMs <= 2_000);
    if (unreadMs > 0) unread++;
  }
  assert.ok(unread > 900);
  assert.equal(comeAgain.refused(impatient, 60_000).unreadMs, 0, "the flood is over");
});
