import assert from "node:assert/strict";
import { test } from "node:test";
import { parseKind, parseResourceKind, parseTarget } from "./kinds.ts";

for (const [text, kind] of [
  ["vs", "virtualServers"],
  ["virtualServers", "virtualServers"],
  ["WL", "backends"],
  ["px", "proxies"],
  ["resources", "resources"],
  ["revocation", "revocations"],
] as const) {
  test(`"${text}" is ${kind}`, () => assert.equal(parseKind(text), kind));
}

for (const [first, second, kind, name] of [
  ["vs", undefined, "virtualServers", undefined],
  ["vs", "dev", "virtualServers", "dev"],
  ["vs/dev", undefined, "virtualServers", "dev"],
  ["virtualServers/dev", undefined, "virtualServers", "dev"],
  ["groups/g/backends/b", undefined, "backends", "g/b"],
  ["be", "g/b", "backends", "g/b"],
  ["revocations/r7", undefined, "revocations", "r7"],
] as const) {
  test(`"${first} ${second ?? ""}" means ${kind} ${name ?? "all"}`, () =>
    assert.deepEqual(parseTarget(first, second), { kind, name }));
}

test("an unknown kind is a usage error with a guess", () => {
  assert.throws(() => parseKind("virtalserver"), { exitCode: 64, message: /did you mean "virtualservers?"/ });
});

test("what is observed can't be deleted", () => {
  assert.throws(() => parseResourceKind("tools"), { exitCode: 64 });
});
