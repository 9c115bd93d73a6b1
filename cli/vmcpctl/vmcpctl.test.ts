// The real program against a real control plane and real proxies.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { declared, runCtl as run, startCtlMesh as start } from "../../test/support/ctl-mesh.ts";

const program = join(import.meta.dirname, "../vmcpctl.ts");

test("help comes without a control plane", async () => {
  const { code, stdout } = await run({ args: ["--help"], server: "127.0.0.1:1" });
  assert.equal(code, 0);
  assert.match(stdout, /vmcpctl apply -f/);
});

test("apply says what it did, and again that nothing changes", async () => {
  await using mesh = await start();
  const first = await mesh.run(["apply", "-f", "-"], declared);
  assert.deepEqual(
    [first.code, first.stdout],
    [0, "groups/tools created\ngroups/tools/backends/fetch created\nvirtualServers/dev created\n"],
  );
  assert.match(first.stderr, /3 create, 0 update, 0 delete; affects no proxy\nr1-[0-9a-f]{12}\nno proxy is connected/);
  const again = await mesh.run(["apply", "-f", "-"], declared);
  assert.equal(again.code, 0);
  assert.match(again.stderr, /nothing changes/);
});

test("apply waits until the proxies acknowledged, and shows what changed", async () => {
  await using mesh = await start();
  await mesh.proxy("one");
  await mesh.proxy("two");
  const { code, stderr } = await mesh.run(["apply", "-f", "-"], declared);
  assert.equal(code, 0);
  assert.match(stderr, /2\/2 proxies acknowledged r1-[0-9a-f]{12} in \d+ ms/);
  const changed = await mesh.run(["apply", "-f", "-"], declared.replace("127.0.0.1:9/mcp", "127.0.0.1:9/other"));
  assert.match(changed.stdout, /^- url: http:\/\/127.0.0.1:9\/mcp$/m);
  assert.match(changed.stdout, /^\+ url: http:\/\/127.0.0.1:9\/other$/m);
  assert.match(changed.stderr, /2\/2 proxies acknowledged r2-/);
  const status = await mesh.run(["proxy", "status"]);
  assert.match(status.stdout, /^one .*SYNCED {2}r2-.* r2-/m);
});

test("a refused snapshot is exit code 1 with the proxy, the resource and the reason, and stays in proxy status", async () => {
  await using mesh = await start();
  await mesh.proxy("edge");
  await mesh.run(["apply", "-f", "-"], declared);
  const stdio = declared.replace("url: http://127.0.0.1:9/mcp", "command: some-server");
  const { code, stderr } = await mesh.run(["apply", "-f", "-"], stdio);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /0\/1 proxy acknowledged r2-\w+, 1 refused it\nedge refused r2-\w+:\n {2}groups\/tools\/backends\/fetch: .*stdio/,
  );
  const status = await mesh.run(["proxy", "status"]);
  assert.match(status.stdout, /^edge .*NACKED {2}r1-\w+ {2}r2-/m);
  assert.match(status.stdout, /edge refused r2-\w+:\n {2}groups\/tools\/backends\/fetch: /);
  const healed = await mesh.run(["apply", "-f", "-"], declared);
  assert.equal(healed.code, 0, healed.stderr);
});

test("a dry run and a diff change nothing; diff exits 0, 1 or more", async () => {
  await using mesh = await start();
  const planned = await mesh.run(["apply", "--dry-run", "-f", "-"], declared);
  assert.match(planned.stdout, /virtualServers\/dev created \(dry run\)/);
  assert.equal((await mesh.run(["get", "vs", "-o", "name"])).stdout, "");
  assert.equal((await mesh.run(["diff", "-f", "-"], declared)).code, 1);
  await mesh.run(["apply", "-f", "-"], declared);
  assert.equal((await mesh.run(["diff", "-f", "-"], declared)).code, 0);
  assert.equal((await mesh.run(["diff", "-f", "-"], "kind: Nonsense\n")).code, 65);
  assert.equal((await run({ args: ["diff", "-f", "-"], stdin: declared, server: "127.0.0.1:1" })).code, 69);
});

test("what get prints as YAML is what apply takes", async () => {
  await using mesh = await start();
  await mesh.run(["apply", "-f", "-"], declared);
  const printed = await Promise.all(["g", "be", "vs"].map(async (kind) => (await mesh.run(["get", kind, "-o", "yaml"])).stdout));
  const { code, stderr } = await mesh.run(["apply", "-f", "-"], printed.join("---\n"));
  assert.equal(code, 0, stderr);
  assert.match(stderr, /nothing changes/);
});

test("get finds by kind, short kind, and full name, in every format", async () => {
  await using mesh = await start();
  await mesh.run(["apply", "-f", "-"], declared);
  assert.match((await mesh.run(["get", "vs"])).stdout, /^NAME +BACKENDS.*\ndev +group tools +prefix +anonymous +r1 /);
  assert.match((await mesh.run(["get", "g"])).stdout, /\ntools +1 +r1 /);
  assert.match((await mesh.run(["get", "be"])).stdout, /\ngroups\/tools\/backends\/fetch +streamable-http +- .*127\.0\.0\.1:9/);
  assert.equal((await mesh.run(["get", "groups/tools/backends/fetch", "-o", "name"])).stdout, "groups/tools/backends/fetch\n");
  assert.equal(JSON.parse((await mesh.run(["get", "be", "fetch", "-o", "json"])).stdout).name, "groups/tools/backends/fetch");
  assert.equal(JSON.parse((await mesh.run(["get", "vs", "-o", "json"])).stdout).resources.length, 1);
  assert.match(
    (await mesh.run(["describe", "vs", "dev"])).stdout,
    /Revision: +r1[\s\S]*kind: VirtualServer[\s\S]*backends\/fetch/,
  );
});

test("deleting: what is in use stays, force takes the members too", async () => {
  await using mesh = await start();
  await mesh.run(["apply", "-f", "-"], declared);
  const refused = await mesh.run(["delete", "g", "tools"]);
  assert.deepEqual([refused.code, refused.stdout], [1, ""]);
  assert.match(refused.stderr, /groups\/tools\/backends\/fetch/);
  assert.equal((await mesh.run(["delete", "vs/dev"])).stdout, "virtualServers/dev deleted\n");
  const forced = await mesh.run(["delete", "g", "tools", "--force", "-o", "name"]);
  assert.equal(forced.stdout, "groups/tools\ngroups/tools/backends/fetch\n");
});

test("a broken file is exit code 65 with every problem, and nothing is applied", async () => {
  await using mesh = await start();
  const folder = await mkdtemp(join(tmpdir(), "vmcpctl-"));
  try {
    await writeFile(join(folder, "a.yaml"), declared);
    await writeFile(join(folder, "b.yaml"), "kind: Backend\ngroup: tools\nname: x\nurll: http://127.0.0.1:9/mcp\n");
    const { code, stderr } = await mesh.run(["apply", "-f", folder]);
    assert.equal(code, 65);
    assert.match(stderr, /b\.yaml:4:1: .*urll/);
    assert.equal((await mesh.run(["get", "g", "-o", "name"])).stdout, "");
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("watch shows what is there and what comes, until interrupted", async () => {
  await using mesh = await start();
  await mesh.run(["apply", "-f", "-"], declared);
  const child = spawn(process.execPath, [program, "watch", "vs", "-o", "name"], {
    env: { ...process.env, VMCP_SERVER: mesh.server },
  });
  const lines = child.stdout[Symbol.asyncIterator]();
  assert.equal(String((await lines.next()).value), "virtualServers/dev\n");
  await mesh.run(["delete", "vs", "dev"]);
  assert.equal(String((await lines.next()).value), "virtualServers/dev\n");
  child.kill("SIGINT");
  assert.equal(await new Promise((resolve) => child.once("close", resolve)), 130);
});

for (const [what, args, wanted] of [
  ["an unknown kind", ["get", "teapots"], 64],
  ["an unknown option", ["get", "vs", "--nope"], 64],
  ["a missing name", ["delete", "vs"], 64],
  ["no number of a revision", ["rollout", "undo", "--to-revision", "first"], 64],
  ["a missing file", ["apply", "-f", "nowhere.yaml"], 65],
  ["nobody at the address", ["get", "vs"], 69],
] as const) {
  test(`${what} is exit code ${wanted}, one message, no stack`, async () => {
    const { code, stdout, stderr } = await run({ args, server: "127.0.0.1:1" });
    assert.deepEqual([code, stdout], [wanted, ""]);
    assert.doesNotMatch(stderr, /\n\s+at /);
    assert.notEqual(stderr, "");
  });
}

test("what does not exist is exit code 1, as JSON when JSON was asked for", async () => {
  await using mesh = await start();
  const { code, stderr } = await mesh.run(["get", "vs", "none", "-o", "json"]);
  assert.equal(code, 1);
  assert.deepEqual(JSON.parse(stderr), { error: { exitCode: 1, message: 'there is no "virtualServers/none"' } });
});

test("rollout history shows commits and what one changed; undo shows, does, and waits", async () => {
  await using mesh = await start();
  await mesh.proxy("one");
  await mesh.run(["apply", "-f", "-", "--reason", "the first"], declared);
  await mesh.run(["apply", "-f", "-"], declared.replace("127.0.0.1:9/mcp", "127.0.0.1:9/other"));
  const history = await mesh.run(["rollout", "history"]);
  assert.match(
    history.stdout,
    /^REVISION +AGE +ACTOR +CHANGES +REASON\nr2 +\d+s +claimed:\S+@\S+ +1 +vmcpctl apply\nr1 .* 3 +the first\n$/,
  );
  const one = await mesh.run(["rollout", "history", "--revision", "r2"]);
  assert.match(one.stdout, /^Revision: +r2\n[\s\S]*^groups\/tools\/backends\/fetch \(update\)[\s\S]*^\+ url: .*other$/m);

  const planned = await mesh.run(["rollout", "undo", "--dry-run"]);
  assert.match(planned.stdout, /^\+ url: .*:9\/mcp$[\s\S]*fetch updated \(dry run\)/m);
  assert.match(planned.stderr, /^back to r1: 1 update\n$/);
  const undone = await mesh.run(["rollout", "undo", "--reason", "it was better"]);
  assert.equal(undone.code, 0, undone.stderr);
  assert.match(undone.stderr, /back to r1: 1 update; r3-\w+\n1\/1 proxy acknowledged r3-/);
  assert.match((await mesh.run(["get", "be", "fetch", "-o", "yaml"])).stdout, /url: http:\/\/127.0.0.1:9\/mcp/);
  assert.match((await mesh.run(["rollout", "history", "-o", "json"])).stdout, /"reason": "roll back to r1: it was better"/);
  assert.match((await mesh.run(["rollout", "undo", "--to-revision", "3"])).stderr, /back to r3: nothing changes/);
  const unknown = await mesh.run(["rollout", "undo", "--to-revision", "9"]);
  assert.deepEqual([unknown.code, unknown.stdout], [1, ""]);
  assert.match(unknown.stderr, /can't go back to revision 9/);
});

test("audit lists, verifies and exports the trail", async () => {
  await using mesh = await start();
  await mesh.run(["apply", "-f", "-"], declared);
  await mesh.run(["delete", "vs", "dev"]);
  const list = await mesh.run(["audit", "list"]);
  assert.match(
    list.stdout,
    /^ID +TIME .*\n2 .*DeleteResource +allowed +r2 +virtualServers\/dev .*\n1 .*ApplyResources +allowed +r1 +groups\/tools \+2 /,
  );
  const { code, stdout } = await mesh.run(["audit", "verify"]);
  assert.equal(code, 0);
  assert.match(stdout, /^whole: lines 1 to 2, the last is [0-9a-f]{64}\n$/);
  const lines = (await mesh.run(["audit", "export"])).stdout.trim().split("\n");
  const hashes = lines.map((line) => createHash("sha256").update(JSON.parse(line).entry).digest("hex"));
  assert.deepEqual(
    hashes,
    lines.map((line) => JSON.parse(line).hash),
  );
  assert.equal(JSON.parse(JSON.parse(lines[1] ?? "").entry).previous, hashes[0]);
});

test("a control plane that runs from a file says where to change things", async () => {
  await using mesh = await start({ readOnlyReason: "edit vmcp.yaml" });
  const { code, stderr } = await mesh.run(["apply", "-f", "-"], declared);
  assert.deepEqual([code, stderr], [1, "3 create, 0 update, 0 delete; affects no proxy\nvmcpctl: edit vmcp.yaml\n"]);
});
