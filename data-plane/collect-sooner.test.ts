import assert from "node:assert/strict";
import { test } from "node:test";
import { collectSooner } from "./collect-sooner.ts";

test("garbage is collected sooner beyond the bound, for as long as that helps", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let rss = 100;
  const said: boolean[] = [];
  using _guard = collectSooner({ beyondBytes: 150, periodMs: 10, rssBytes: () => rss, setSooner: (is) => void said.push(is) });
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
