// Sessions as operators see them: which client is on which proxy, and what is revoked.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";

const stack = new AsyncDisposableStack();
let mesh: Mesh;

before(async () => {
  const script = { tools: [plainTool("hello")], calls: { hello: () => textResult("hello") } };
  const backend = stack.use(await startBackend(script));
  mesh = stack.use(await startMesh(2));
  const { code, stderr } = await mesh.apply([virtualServer("team", { backends: [httpBackend("one", backend.url)] })]);
  assert.equal(code, 0, stderr);
});
after(() => stack.disposeAsync());

test("sessions of both proxies are listed with their proxy, by keys that give no id away", async () => {
  await using first = await openClient(await endpoint(0));
  await using second = await openClient(await endpoint(1));
  assert.equal(await second.call("one_hello"), "hello");
  const { code, stdout, stderr } = await mesh.ctl("session", "list", "-o", "json");
  assert.deepEqual([code, stderr], [0, ""]);
  const listed = new Map((JSON.parse(stdout).sessions as Listed[]).map((session) => [session.key, session]));
  assert.equal(listed.size, 2);
  for (const [client, proxy] of [
    [first, "proxy-1"],
    [second, "proxy-2"],
  ] as const) {
    const session = listed.get(keyOf(client.sessionId));
    assert.deepEqual(
      [session?.proxies, session?.virtualServer, session?.clientName, session?.clientVersion],
      [[proxy], "team", "test-client", "1.0.0"],
    );
    assert.ok(!stdout.includes(client.sessionId));
  }
  const elsewhere = await mesh.ctl("session", "list", "--virtual-server", "nope", "-o", "name");
  assert.equal(elsewhere.stdout, "");
});

test("a revocation by the beginning of a key is acknowledged by every proxy, well within 2 s", async () => {
  await using client = await openClient(await endpoint(0));
  const key = keyOf(client.sessionId);
  const { code, stdout, stderr } = await mesh.ctl("session", "revoke", "--reason", "test", "--", key.slice(0, 10));
  assert.equal(code, 0, stderr);
  assert.match(stdout, new RegExp(`^session ${key} revoked, revocations/r\\d+\n$`));
  const said = /^2\/2 proxies acknowledged \S+ in (\d+) ms$/m.exec(stderr);
  assert.ok(said, stderr);
  assert.ok(Number(said[1]) < 2_000, said[0]);
  const { stdout: kept } = await mesh.ctl("get", "revocations");
  assert.match(kept, new RegExp(`session ${key} .* test$`, "m"));
});

interface Listed {
  readonly key: string;
  readonly proxies: readonly string[];
  readonly virtualServer: string;
  readonly clientName: string;
  readonly clientVersion: string;
}

function keyOf(sessionId: string): string {
  return createHash("sha256").update(sessionId).digest("base64url").slice(0, 22);
}

async function endpoint(proxy: number): Promise<string> {
  const address = mesh.proxies[proxy]?.address;
  await eventually(`${address} is ready`, async () => (await fetch(`${address}/readyz`)).status === 200);
  return `${address}/team/mcp`;
}
