import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually } from "../test/support/eventually.ts";
import { collectSooner } from "./collect-sooner.ts";

test("garbage is collected sooner beyond the bound, for as long as that helps", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let rss = 100;
  const said: boolean[] = [];
  using _guard = collectSooner({
    ...{ beyondBytes: 150, periodMs: 10, rssBytes: () => rss },
    setSooner: (is) => void said.push(is),
    sessions: () => 0,
  });
  t.mock.timers.tick(50);
  assert.deepEqual(said, []);
  rss = 200;
  t.mock.timers.tick(30);
  assert.deepEqual(said, [true]);
  rss = 120;
  t.mock.timers.tick(10);
  assert.deepEqual(said, [true, false]);

  rss = 200; // and stays so: that much lives
  t.mock.timers.tick(110);
  assert.deepEqual(said.slice(2), [true, false]);
  t.mock.timers.tick(300);
  assert.equal(said.length, 4, "it is left alone for a while");
  t.mock.timers.tick(20);
  assert.equal(said.length, 5);
});

test("garbage is collected when most of many sessions have ended", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let sessions = 5_000;
  let collected = 0;
  using _guard = collectSooner({ periodMs: 10, sessions: () => sessions, collect: () => void collected++ });
  t.mock.timers.tick(50);
  sessions = 1_300;
  t.mock.timers.tick(50);
  assert.equal(collected, 0, "many of them are still here");
  for (sessions = 1_200; sessions > 200; sessions -= 100) t.mock.timers.tick(10);
  assert.equal(collected, 0, "more of them are ending");
  t.mock.timers.tick(20);
  assert.equal(collected, 1);
  t.mock.timers.tick(1_000);
  assert.equal(collected, 6, "some more while they say goodbye");
  sessions = 900; // and gone again: few
  t.mock.timers.tick(10);
  sessions = 0;
  t.mock.timers.tick(200);
  assert.equal(collected, 6);
});

test("V8 collects when it is told to", async () => {
  const before = new WeakRef({ some: "thing" });
  await new Promise(setImmediate); // what a WeakRef names is kept until the turn ends
  let sessions = 1_000;
  using _guard = collectSooner({ periodMs: 1, sessions: () => sessions });
  await new Promise((resolve) => setTimeout(resolve, 20));
  sessions = 0;
  await eventually("it is gone", () => before.deref() === undefined);
});
