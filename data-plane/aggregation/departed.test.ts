import assert from "node:assert/strict";
import { test } from "node:test";
import type { Backend } from "../backends/backend.ts";
import { createDeparted } from "./departed.ts";
import type { Route, View } from "./view.ts";

const viewOf = (routes: readonly (readonly [string, string])[]): View => {
  const tools = new Map(routes.map(([name, backend]): [string, Route] => [name, { backend, original: name }]));
  const none = new Map<string, Route>();
  return { tools, prompts: none, resources: none, templates: none } as unknown as View;
};

const backend = (name: string, inFlight = 0) => ({ name, inFlight }) as Backend;

test("names of a backend that left are known for five minutes, those of others are not", () => {
  let nowMs = 1_000;
  const departed = createDeparted({ nowMs: () => nowMs });
  const views = [
    viewOf([
      ["a_x", "a"],
      ["b_x", "b"],
    ]),
    viewOf([["a_more", "a"]]),
  ];
  departed.note([backend("a")], views);
  assert.deepEqual(departed.routeOf("tools", "a_x"), { backend: "a", original: "a_x" });
  assert.equal(departed.routeOf("tools", "a_more")?.backend, "a");
  assert.equal(departed.routeOf("prompts", "a_x"), undefined);
  assert.equal(departed.routeOf("tools", "b_x"), undefined);
  nowMs += 5 * 60_000 - 1;
  assert.ok(departed.routeOf("tools", "a_x"));
  nowMs += 1;
  assert.equal(departed.routeOf("tools", "a_x"), undefined);
});

test("5,000 names are remembered, the newest", () => {
  const departed = createDeparted({ nowMs: () => 0 });
  for (let n = 0; n < 10; n++)
    departed.note([backend(`b${n}`)], [viewOf(Array.from({ length: 1_000 }, (_, i) => [`b${n}_${i}`, `b${n}`]))]);
  const known = Array.from({ length: 10 }, (_, n) => departed.routeOf("tools", `b${n}_0`) !== undefined);
  assert.deepEqual(known, [false, false, false, false, false, true, true, true, true, true]);
});

test("a backend that left is known while it has calls", () => {
  const departed = createDeparted();
  const busy = { name: "a", inFlight: 1 };
  departed.note([busy as Backend, backend("b")], []);
  assert.equal(departed.draining("a"), busy);
  assert.equal(departed.draining("b"), undefined);
  busy.inFlight = 0;
  assert.equal(departed.draining("a"), undefined);
});
