import assert from "node:assert/strict";
import { homedir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { stateDirectoryOf } from "./proxy.ts";

const base = join(process.env.XDG_STATE_HOME || join(homedir(), ".local/state"), "vmcp");
const cases: readonly [what: string, flags: Parameters<typeof stateDirectoryOf>[0], wanted: string | undefined][] = [
  ["the one that is named", { stateDir: "/var/lib/vmcp", port: 4483 }, "/var/lib/vmcp"],
  ["none, when that is said", { stateDir: "none", id: "edge-1", port: 4483 }, undefined],
  ["one by the proxy's name", { id: "edge-1", port: 0 }, join(base, "edge-1")],
  ["one by its port, without a name", { port: 4483 }, join(base, "port-4483")],
  ["no way out of the base by a name", { id: "../../etc", port: 0 }, join(base, "..%2F..%2Fetc")],
  ["none for a proxy that has another name with each start", { port: 0 }, undefined],
  ["one, when the variable is set to nothing", { stateDir: "", id: "a", port: 0 }, join(base, "a")],
];
for (const [what, flags, wanted] of cases) {
  test(`where snapshots are kept: ${what}`, () => assert.equal(stateDirectoryOf(flags), wanted));
}
