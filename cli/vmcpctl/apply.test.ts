// `vmcpctl diff` and `apply`: what is shown before, what is asked, and what is done.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { type CtlMesh, declared, startCtlMesh } from "../../test/support/ctl-mesh.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";

const script = "/usr/bin/script";
const noTerminal = existsSync(script) ? false : "needs script(1)";

const changed = declared
  .replace(":9/mcp", ":9/other")
  .replace("prefix", "priority, conflictResolutionConfig: { priorityOrder: [fetch] }");

test("diff shows fields before and after, the sum, and whom it concerns", async () => {
  await using mesh = await startCtlMesh();
  await mesh.run(["apply", "-f", "-"], declared);
  await mesh.proxy("one");
  const { code, stdout, stderr } = await mesh.run(["diff", "-f", "-"], changed);
  assert.deepEqual([code, stderr], [1, "0 create, 2 update, 0 delete; affects 1 proxy\n"]);
  assert.equal(
    stdout,
    [
      "groups/tools/backends/fetch (update)",
      "- url: http://127.0.0.1:9/mcp",
      "+ url: http://127.0.0.1:9/other",
      "virtualServers/dev (update)",
      "- aggregation.conflictResolution: prefix",
      "+ aggregation.conflictResolution: priority",
      "+ aggregation.conflictResolutionConfig:",
      "+   priorityOrder:",
      "+     - fetch",
      "",
    ].join("\n"),
  );
  const same = await mesh.run(["diff", "-f", "-"], declared);
  assert.deepEqual([same.code, same.stdout, same.stderr], [0, "", "nothing changes\n"]);
});

test("diff speaks JSON, and names", async () => {
  await using mesh = await startCtlMesh();
  const json = await mesh.run(["diff", "-f", "-", "-o", "json"], declared);
  assert.deepEqual(
    [json.code, JSON.parse(json.stdout).diffs.map(({ action }: { action: string }) => action)],
    [1, ["create", "create", "create"]],
  );
  const names = await mesh.run(["diff", "-f", "-", "-o", "name"], declared);
  assert.equal(names.stdout, "groups/tools\ngroups/tools/backends/fetch\nvirtualServers/dev\n");
});

test("a change that means nothing to proxies affects none", async () => {
  await using mesh = await startCtlMesh();
  await mesh.run(["apply", "-f", "-"], declared);
  await mesh.proxy("one");
  const { stdout, stderr } = await mesh.run(["diff", "-f", "-"], "kind: Group\nname: tools\ndescription: for people\n");
  assert.deepEqual(
    [stdout, stderr],
    ["groups/tools (update)\n+ description: for people\n", "0 create, 1 update, 0 delete; affects no proxy\n"],
  );
});

test("no diff shows a secret, neither one in the file nor one that is stored", async () => {
  await using mesh = await startCtlMesh();
  const secret = (value: string) =>
    declared.replace(
      "{ type: unauthenticated }",
      `{ type: header_injection, headerInjection: { headerName: X-Key, headerValue: ${value} } }`,
    );
  await mesh.run(["apply", "-f", "-"], secret("canary-one"));
  for (const args of [
    ["diff"],
    ["diff", "-o", "json"],
    ["apply", "--dry-run"],
    ["apply", "--dry-run", "-o", "yaml"],
    ["apply"],
  ]) {
    const { stdout, stderr } = await mesh.run([...args, "-f", "-"], secret(`canary-${args.length}`));
    assert.doesNotMatch(stdout + stderr, /canary/, args.join(" "));
    assert.match(stdout, /headerValue.*\*\*\*|\*\*\*|dry run/);
  }
});

test("what would be pruned is shown, and deleted only with --yes where nobody can be asked", async () => {
  await using mesh = await startCtlMesh();
  await mesh.run(["apply", "-f", "-"], declared);
  const rest = "kind: Group\nname: tools\n";
  const shown = await mesh.run(["diff", "--prune", "-f", "-"], rest);
  assert.deepEqual([shown.code, shown.stderr], [1, "0 create, 0 update, 2 delete; affects no proxy\n"]);
  assert.match(
    shown.stdout,
    /^groups\/tools\/backends\/fetch \(delete\)\n- name: fetch\n[\s\S]*^virtualServers\/dev \(delete\)$/m,
  );
  const refused = await mesh.run(["apply", "--prune", "-f", "-"], rest);
  assert.equal(refused.code, 64);
  assert.match(refused.stderr, /this deletes 2, and nobody can be asked here: add --yes/);
  assert.match((await mesh.run(["get", "vs", "-o", "name"])).stdout, /virtualServers\/dev/);
  const done = await mesh.run(["apply", "--prune", "--yes", "-f", "-"], rest);
  assert.equal(done.stdout, "groups/tools unchanged\ngroups/tools/backends/fetch deleted\nvirtualServers/dev deleted\n");
  assert.equal((await mesh.run(["get", "vs", "-o", "name"])).stdout, "");
});

test("where a person can be asked, only a yes applies", { skip: noTerminal }, async () => {
  await using mesh = await startCtlMesh();
  await using folder = await temporaryDirectory();
  const file = await folder.write("declared.yaml", declared);
  const refused = await atTerminal(mesh, ["apply", "-f", file], "n\n");
  assert.match(refused, /3 create, 0 update, 0 delete; affects no proxy\s+apply this\? \[y\/N\] [\s\S]*nothing was changed/);
  assert.equal((await mesh.run(["get", "g", "-o", "name"])).stdout, "");
  const done = await atTerminal(mesh, ["apply", "-f", file], "y\n");
  assert.match(done, /virtualServers\/dev created/);
  const unasked = await atTerminal(mesh, ["apply", "--yes", "-f", await folder.write("changed.yaml", changed)], "");
  assert.doesNotMatch(unasked, /apply this/);
  assert.match(unasked, /virtualServers\/dev updated/);
});

/** Everything that a terminal shows; what is typed comes after the question. */
async function atTerminal(mesh: CtlMesh, args: readonly string[], typed: string): Promise<string> {
  const program = join(import.meta.dirname, "../vmcpctl.ts");
  const command = [process.execPath, program, ...args].map((word) => `'${word}'`).join(" ");
  const child = spawn(script, ["-qec", command, "/dev/null"], {
    env: { ...process.env, VMCP_SERVER: mesh.server, NO_COLOR: "1" },
  });
  let shown = "";
  child.stdout.on("data", (chunk) => {
    shown += chunk;
    if (shown.includes("[y/N]") && child.stdin.writable) child.stdin.end(typed);
  });
  const late = setTimeout(() => child.kill(), 20_000);
  await new Promise((resolve) => child.once("close", resolve));
  clearTimeout(late);
  return stripVTControlCharacters(shown);
}
