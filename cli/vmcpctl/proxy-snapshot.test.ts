// `vmcpctl proxy describe|diff`, `wait`, and a watch that goes on, as programs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { declared, runCtl, startCtlMesh } from "../../test/support/ctl-mesh.ts";
import { eventually } from "../../test/support/eventually.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";

test("proxy diff shows what a proxy would get, and exits 0, 1 or more", async () => {
  await using mesh = await startCtlMesh();
  await mesh.run(["apply", "-f", "-"], declared);
  await mesh.proxy("edge");
  const same = await mesh.run(["proxy", "diff", "edge"]);
  assert.deepEqual([same.code, same.stdout], [0, ""]);
  assert.match(same.stderr, /^edge runs (r1-\w+), and should run \1: nothing differs\n$/);
  // The proxy may not start programs, so it refuses this and keeps what it has.
  await mesh.run(["apply", "-f", "-"], declared.replace("url: http://127.0.0.1:9/mcp", "command: some-server"));
  const refused = await mesh.run(["proxy", "diff", "edge"]);
  assert.equal(refused.code, 1);
  assert.equal(
    refused.stdout,
    "groups/tools/backends/fetch (update)\n+ command: some-server\n- transport: streamable-http\n+ transport: stdio\n- url: http://127.0.0.1:9/mcp\n",
  );
  assert.match(refused.stderr, /^edge runs r1-\w+, and should run r2-\w+: 1 resource\n$/);
  assert.equal((await mesh.run(["proxy", "diff", "edge", "-o", "name"])).stdout, "groups/tools/backends/fetch\n");
  assert.equal((await mesh.run(["proxy", "diff", "none"])).code, 2);

  const { code, stdout } = await mesh.run(["proxy", "describe", "edge"]);
  assert.equal(code, 0);
  assert.match(stdout, /^Name: +edge\n[\s\S]*^State: +NACKED\n[\s\S]*^Runs: +r1-\w+\n[\s\S]*^Differs in: +1 resource$/m);
  assert.match(stdout, /^virtualServers\/dev +VirtualServerConfig +[0-9a-f]{12}$/m);
  assert.match(stdout, /^edge refused r2-\w+:\n {2}groups\/tools\/backends\/fetch: .*stdio/m);
  const json = JSON.parse((await mesh.run(["proxy", "describe", "edge", "-o", "json"])).stdout);
  assert.deepEqual(
    json.resources.map(({ name }: { name: string }) => name),
    ["groups/tools/backends/fetch", "virtualServers/dev"],
  );
});

test("wait returns when something is so, and gives up in time", async () => {
  await using mesh = await startCtlMesh();
  const created = mesh.run(["wait", "vs/dev", "--for=create"]);
  const programmed = mesh.run(["wait", "vs/dev", "--for=condition=Programmed"]);
  await mesh.run(["apply", "-f", "-"], declared);
  await mesh.proxy("edge");
  assert.deepEqual(await created, { code: 0, stdout: "dev create\n", stderr: "" });
  assert.equal((await programmed).code, 0);
  for (const [args, wanted] of [
    [["proxy/edge", "--for=condition=Synced"], 0],
    [["proxies", "--for=revision=r1"], 0],
    [["backend/tools/fetch", "--for=revision=1"], 0],
    [["proxy/edge", "--for=revision=9", "--timeout=300ms"], 75],
    [["proxy/none", "--for=condition=Synced", "--timeout=300ms"], 75],
    [["vs/dev", "--for=delete", "--timeout=300ms"], 75],
    [["vs/dev", "--for=condition=Happy"], 64],
    [["vs/dev", "--for=condition=Synced"], 64],
    [["vs", "--for=create"], 64],
    [["tools", "--for=create"], 64],
  ] as const) {
    const { code, stderr } = await mesh.run(["wait", ...args]);
    assert.equal(code, wanted, `${args.join(" ")}: ${stderr}`);
  }
  const gone = mesh.run(["wait", "vs", "dev", "--for=delete"]);
  await mesh.run(["delete", "vs", "dev"]);
  assert.equal((await gone).code, 0);
});

test("waiting for what a proxy refuses fails with its reason", async () => {
  await using mesh = await startCtlMesh();
  await mesh.run(["apply", "-f", "-"], declared);
  await mesh.proxy("edge");
  await mesh.run(["apply", "--no-wait", "-f", "-"], declared.replace("url: http://127.0.0.1:9/mcp", "command: some-server"));
  const { code, stderr } = await mesh.run(["wait", "backend/tools/fetch", "--for=condition=Programmed"]);
  assert.equal(code, 1);
  assert.match(stderr, /edge refused r2-\w+:\n {2}groups\/tools\/backends\/fetch: .*stdio/);
});

test("a watch goes on where it was when the control plane was away, and misses nothing", async () => {
  await using folder = await temporaryDirectory();
  const store = join(folder.path, "vmcp.db");
  const first = await startCtlMesh({ store });
  const { server } = first;
  await first.run(["apply", "-f", "-"], declared);
  const program = join(import.meta.dirname, "../vmcpctl.ts");
  const child = spawn(process.execPath, [program, "watch"], { env: { ...process.env, VMCP_SERVER: server, NO_COLOR: "1" } });
  try {
    let [shown, said] = ["", ""];
    child.stdout.on("data", (chunk) => (shown += chunk));
    child.stderr.on("data", (chunk) => (said += chunk));
    await eventually("what is there", () => /ADDED +r1 +virtualServers\/dev\n/.test(shown));
    await first[Symbol.asyncDispose]();
    await eventually("it says so", () => said.includes("the control plane is away; going on after r1"));
    await using again = await startCtlMesh({ store, listen: server });
    await again.run(["delete", "vs", "dev"]);
    await eventually("what came after", () => /DELETED +r2 +virtualServers\/dev\n$/.test(shown), 20_000);
    assert.equal(shown.match(/ADDED/g)?.length, 3);
    const late = await runCtl({ args: ["watch", "--revision", "99"], server });
    assert.equal(late.code, 1);
    child.kill("SIGINT");
    assert.equal(await new Promise((resolve) => child.once("close", resolve)), 130);
  } finally {
    child.kill("SIGKILL");
  }
});
