import assert from "node:assert/strict";
import { test } from "node:test";
import { nearest } from "./nearest.ts";

const words = ["prefix", "priority", "manual", "best_effort", "streamable-http", "oidc"];

const cases: [seen: string, meant: string | undefined][] = [
  ["prefxi", "prefix"],
  ["Prefix", "prefix"],
  ["bestEffort", "best_effort"],
  ["streamable_http", "streamable-http"],
  ["priorty", "priority"],
  ["odic", "oidc"],
  ["automatic", undefined],
  ["", undefined],
  ["x".repeat(100_000), undefined],
];

for (const [seen, meant] of cases)
  test(`${seen.slice(0, 20)} means ${meant ?? "nothing known"}`, () => assert.equal(nearest(seen, words), meant));
