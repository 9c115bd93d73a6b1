// One control plane, two proxies: changes arrive, are acknowledged or refused, and clients hear of them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient } from "../support/client.ts";
import { httpBackend, stdioBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";
import { stdioServer } from "../support/processes.ts";

const stack = new AsyncDisposableStack();
let mesh: Mesh;
let one: Backend;
let two: Backend;

before(async () => {
  const script = { tools: [plainTool("hello")], calls: { hello: () => textResult("hello") } };
  one = stack.use(await startBackend(script));
  two = stack.use(await startBackend(script));
  mesh = stack.use(await startMesh(2));
  const { code, stderr } = await mesh.apply([team([httpBackend("one", one.url)])]);
  assert.equal(code, 0, stderr);
});
after(() => stack.disposeAsync());

test("a changed virtual server is acknowledged by both proxies within a second, and open sessions are told", async () => {
  await using first = await openClient(await endpoint(0));
  await using second = await openClient(await endpoint(1));
  for (const client of [first, second]) {
    await eventually("the first tool", async () => (await client.toolNames()).includes("one_hello"));
    client.notifications.length = 0;
  }
  const { code, stdout, stderr } = await mesh.apply([team([httpBackend("one", one.url), httpBackend("two", two.url)])]);
  assert.equal(code, 0, stderr);
  const said = /2\/2 proxies acknowledged \S+ in (\d+) ms/.exec(stdout + stderr);
  assert.ok(said, stdout + stderr);
  assert.ok(Number(said[1]) < 1_000, said[0]);
  for (const client of [first, second]) {
    await eventually("list_changed", () => client.notifications.includes("notifications/tools/list_changed"));
    await eventually("the new tool", async () => (await client.toolNames()).includes("two_hello"));
    assert.equal(await client.call("two_hello"), "hello");
  }
});

test("a snapshot that a proxy can't apply is refused with a reason, goes no further, and the old one keeps serving", async () => {
  const broken = stdioBackend("broken", stdioServer("memory"), { TOKEN: "env:VMCP_TEST_IS_NOT_SET" });
  const { code, stdout, stderr } = await mesh.apply([team([httpBackend("one", one.url), broken])]);
  assert.equal(code, 1, stdout + stderr);
  assert.match(stderr, /0\/2 proxies acknowledged \S+, 1 refused it; 1 keeps what was live until there is another revision/);
  assert.match(stderr, /proxy-1 refused[\s\S]*VMCP_TEST_IS_NOT_SET/);

  const status = await mesh.ctl("proxy", "status");
  assert.match(status.stdout, /proxy-1.*NACKED/);
  assert.match(status.stdout, /proxy-2.*HELD/);
  assert.match(status.stdout, /VMCP_TEST_IS_NOT_SET/);
  const rollout = await mesh.ctl("rollout", "status");
  assert.equal(rollout.code, 1, rollout.stderr);
  assert.match((await mesh.ctl("proxy", "status", "-o", "json")).stdout, /"description": ".*VMCP_TEST_IS_NOT_SET/);
  assert.match(rollout.stdout, /HALTED +0\/2 +0 +1 +1 .* proxy-1 /);
  for (const proxy of [0, 1]) {
    await using client = await openClient(await endpoint(proxy));
    assert.equal(await client.call("one_hello"), "hello");
  }

  const repaired = await mesh.apply([team([httpBackend("one", one.url)])]);
  assert.equal(repaired.code, 0, repaired.stderr);
  const after = await mesh.ctl("proxy", "status");
  assert.match(after.stdout, /proxy-1.*SYNCED/);
  assert.doesNotMatch(after.stdout, /NACKED|HELD/);
  const complete = await mesh.ctl("rollout", "status", "-o", "json");
  assert.deepEqual([complete.code, JSON.parse(complete.stdout).state], [0, "ROLLOUT_STATE_COMPLETE"]);
});

test("one control plane serves several virtual servers, each under its name", async () => {
  const other = virtualServer("other", { backends: [httpBackend("two", two.url)] });
  const { code, stderr } = await mesh.apply([other]);
  assert.equal(code, 0, stderr);
  const address = mesh.proxies[0]?.address;
  await using client = await openClient(`${address}/other/mcp`);
  await eventually("its tool", async () => (await client.toolNames()).join() === "two_hello");
  // With two, nobody can say which one `/mcp` is.
  assert.equal((await fetch(`${address}/mcp`, { method: "POST" })).status, 404);
  assert.equal((await mesh.ctl("delete", "virtualserver", "other")).code, 0);
  await eventually("it is gone", async () => (await fetch(`${address}/other/mcp`)).status === 404);
});

test("proxies keep serving while the control plane is away", async () => {
  mesh.controlPlane.kill("SIGSTOP");
  try {
    await using client = await openClient(await endpoint(0));
    assert.equal(await client.call("one_hello"), "hello");
  } finally {
    mesh.controlPlane.kill("SIGCONT");
  }
});

const team = (backends: object[]) => virtualServer("team", { backends });

async function endpoint(proxy: number): Promise<string> {
  const address = mesh.proxies[proxy]?.address;
  await eventually(`${address} is ready`, async () => (await fetch(`${address}/readyz`)).status === 200);
  return `${address}/team/mcp`;
}
