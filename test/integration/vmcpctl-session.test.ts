// `vmcpctl session`: the real program against a real control plane, and proxies that say what the script says.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { pino } from "pino";
import { type ControlPlaneOptions, startControlPlane } from "../../control-plane/index.ts";
import { connectFakeProxy, type FakeProxy } from "../../control-plane/push/fake-proxy.ts";
import type { SessionInfoSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { eventually } from "../support/eventually.ts";

const log = pino({ level: "silent" });
const program = join(import.meta.dirname, "../../cli/vmcpctl.ts");

const keyOf = (word: string) => word.padEnd(22, "0");
const nowMs = Date.now();
const sessions: MessageInitShape<typeof SessionInfoSchema>[] = [
  {
    ...{ key: keyOf("alice-1"), virtualServer: "dev", subject: "alice", issuer: "https://idp", streams: 1, calls: 2 },
    ...{ clientName: "inspector", clientVersion: "1.2", protocolVersion: "2025-11-25" },
    ...{ createTime: timestampFromMs(nowMs - 3_600_000 * 3), lastUseTime: timestampFromMs(nowMs - 5_000) },
  },
  { key: keyOf("alice-2"), virtualServer: "dev", subject: "alice", lastUseTime: timestampFromMs(nowMs - 60_000) },
  { key: keyOf("bobbob"), virtualServer: "ops", subject: "bob", lastUseTime: timestampFromMs(nowMs - 90_000) },
];

test("session list shows who is there, narrowed, and in every format", async () => {
  await using mesh = await start();
  await using _proxy = await mesh.proxy("one");
  const { code, stdout, stderr } = await mesh.run(["session", "list"]);
  assert.deepEqual([code, stderr], [0, ""]);
  const [headings, first, ...others] = stdout.trimEnd().split("\n");
  assert.match(headings ?? "", /^KEY +SERVER +SUBJECT +ISSUER +CLIENT +PROTOCOL +AGE +IDLE +STREAMS +CALLS +PROXIES$/);
  assert.match(first ?? "", /^alice-10+ +dev +alice +https:\/\/idp +inspector 1\.2 +2025-11-25 +3h +\d+s +1 +2 +one$/);
  assert.equal(others.length, 2);
  const ofBob = await mesh.run(["session", "list", "--subject", "bob", "--virtual-server", "ops", "-o", "name"]);
  assert.equal(ofBob.stdout, `${keyOf("bobbob")}\n`);
  const asJson = JSON.parse((await mesh.run(["session", "list", "-o", "json"])).stdout);
  assert.deepEqual(asJson.sessions[0].proxies, ["one"]);
  const few = await mesh.run(["session", "list", "--limit", "1", "-o", "yaml"]);
  assert.match(few.stdout, /^sessions:\n {2}- key: alice-1/);
  assert.match(few.stderr, /there are more than these 1/);
});

test("session list names the proxies that do not answer, and those that can't", async () => {
  await using mesh = await start();
  await using _proxy = await mesh.proxy("one");
  await using _silent = await mesh.proxy("silent", { answers: false });
  await using _old = await mesh.proxy("old", { features: [] });
  const { code, stdout, stderr } = await mesh.run(["session", "list", "-o", "name"]);
  assert.deepEqual([code, stdout.split("\n").length], [0, 4]);
  assert.equal(stderr, "no answer from silent; what only they know is not here\nof a version that can't be asked: old\n");
});

test("session revoke takes the beginning of a key, makes a revocation and waits for the proxies", async () => {
  await using mesh = await start({ readOnlyReason: "edit vmcp.yaml" });
  await using _proxy = await mesh.proxy("one");
  const { code, stdout, stderr } = await mesh.run(["session", "revoke", "bobbob", "--reason", "laptop lost"]);
  assert.deepEqual([code, stdout], [0, `session ${keyOf("bobbob")} revoked, revocations/r1\n`]);
  assert.match(stderr, /^1\/1 proxy acknowledged r1-[0-9a-f]{12} in \d+ ms\n$/);
  const shown = await mesh.run(["get", "revocations"]);
  assert.match(shown.stdout, /^NAME +REVOKES +EPOCH +AGE +REASON\nr1 +session bobbob0+ +r1 +\d+s +laptop lost\n$/);
  const asYaml = await mesh.run(["get", "revocations", "r1", "-o", "yaml"]);
  assert.equal(asYaml.stdout, `kind: Revocation\nname: r1\nreason: laptop lost\nsession: ${keyOf("bobbob")}\n`);
  const applied = await mesh.run(["apply", "-f", "-"], asYaml.stdout);
  assert.equal(applied.code, 65);
  assert.match(applied.stderr, /vmcpctl session revoke/);
  assert.equal((await mesh.run(["delete", "revocations/r1"])).stdout, "revocations/r1 deleted\n");
});

test("a proxy that lost its control plane is named: it serves on, and does not know", async () => {
  await using mesh = await start();
  {
    await using _gone = await mesh.proxy("gone");
  }
  await using _proxy = await mesh.proxy("one");
  await eventually("it is seen to be gone", async () => (await mesh.run(["proxy", "status"])).stdout.includes("DISCONNECTED"));
  const { code, stderr } = await mesh.run(["session", "revoke", "--all"]);
  assert.equal(code, 0);
  assert.match(stderr, /^not connected: gone; .*\n1\/1 proxy acknowledged r1-/);
});

test("whole keys work while no proxy is there, also one that begins with -", async () => {
  await using mesh = await start();
  const keys = [`-${"k".repeat(21)}`, "k".repeat(22)];
  const { code, stdout, stderr } = await mesh.run(["session", "revoke", ...keys, "-o", "json"]);
  assert.equal(code, 0, stderr);
  assert.deepEqual(
    JSON.parse(stdout).revocations.map(({ name }: { name: string }) => name),
    ["revocations/r1", "revocations/r2"],
  );
  assert.match(stderr, /^no proxy is connected; r2-\w+ goes to those that come\n$/);
  const shown = await mesh.run(["get", "revocations"]);
  assert.match(shown.stdout, /session k{22} .*\n.*session -k{21} /);
});

test("sessions are revoked by subject, all of a virtual server, or all", async () => {
  await using mesh = await start();
  await mesh.declare("dev");
  for (const [args, wanted] of [
    [["--subject", "alice"], "sessions of alice revoked, revocations/r2\n"],
    [["--subject", "alice", "--issuer", "https://idp"], "sessions of alice from https://idp revoked, revocations/r3\n"],
    [["--all", "--virtual-server", "dev"], "all sessions of dev revoked, revocations/r4\n"],
    [["--all", "--dry-run"], "all sessions revoked, revocations/r5 (dry run)\n"],
    [["--all", "-o", "name"], "revocations/r5\n"],
  ] as const) {
    const { stdout, stderr } = await mesh.run(["session", "revoke", ...args, "--no-wait"]);
    assert.deepEqual([stdout, stderr], [wanted, ""]);
  }
  assert.match((await mesh.run(["get", "rv"])).stdout, /^r4 +all sessions of dev /m);
  const unknown = await mesh.run(["session", "revoke", "--all", "--virtual-server", "nope"]);
  assert.deepEqual([unknown.code, unknown.stderr], [1, 'vmcpctl: there is no "virtualServers/nope"\n']);
});

test("a beginning that means none or several revokes nothing, and says which", async () => {
  await using mesh = await start();
  await using _proxy = await mesh.proxy("one");
  await using _silent = await mesh.proxy("silent", { answers: false });
  const { code, stderr } = await mesh.run(["session", "revoke", "alice-", "nobody", "k".repeat(22)]);
  assert.equal(code, 1);
  const [several, none] = stderr.trimEnd().split("\n");
  assert.equal(several, `vmcpctl: alice- begins several keys: ${keyOf("alice-1")}, ${keyOf("alice-2")}`);
  assert.match(none ?? "", /^no session has a key that begins with nobody \(no answer from silent; /);
  assert.equal((await mesh.run(["get", "revocations", "-o", "name"])).stdout, "");
  const risky = await mesh.run(["session", "revoke", "bobbob", "--no-wait"]);
  assert.match(risky.stderr, /^bobbob is taken for bobbob0+ \(no answer from silent; /);
});

for (const [what, args, wanted] of [
  ["nothing", [], ["say which sessions: KEY, --subject or --all"]],
  ["too much", ["abcdef", "--subject", "s", "--all", "--issuer", "i"], ["KEY and --subject and --all exclude each other"]],
  [
    "nonsense",
    ["abc", "the key", "--issuer", "i", "--virtual-server", "v"],
    ["--issuer goes with --subject", "--virtual-server goes with --all", '"abc" is no key', '"the key" is no key'],
  ],
  ["nobody", ["--subject", ""], ["--subject is empty"]],
] as const) {
  test(`revoking ${what} is exit code 64 with every reason, before anything is asked`, async () => {
    const { code, stdout, stderr } = await run({ args: ["session", "revoke", ...args], server: "127.0.0.1:1" });
    assert.deepEqual([code, stdout], [64, ""]);
    const lines = stderr.replace("vmcpctl: ", "").trimEnd().split("\n");
    assert.equal(lines.length, wanted.length, stderr);
    wanted.forEach((reason, at) => {
      assert.ok(lines[at]?.startsWith(reason), stderr);
    });
  });
}

test("nobody at the address is exit code 69, and a wrong limit 64", async () => {
  assert.equal((await run({ args: ["session", "list"], server: "127.0.0.1:1" })).code, 69);
  assert.equal((await run({ args: ["session", "list", "--limit", "0"], server: "127.0.0.1:1" })).code, 64);
});

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function start(options: Partial<ControlPlaneOptions> = {}) {
  const plane = await startControlPlane({ listen: "127.0.0.1:0", store: ":memory:", log, ...options });
  return {
    run: (args: readonly string[], stdin = "") => run({ args, stdin, server: plane.address }),
    proxy: (id: string, says = {}) => followingProxy(plane.address, id, says),
    async declare(name: string) {
      const auth = { incomingAuth: { type: "anonymous" }, outgoingAuth: { source: "inline" } };
      const value = { name, groupRef: "g", ...auth, aggregation: { conflictResolution: "prefix" } };
      await plane.replaceAll(
        [create(ResourceSchema, { name: `virtualServers/${name}`, spec: { case: "virtualServer", value } })],
        "test",
      );
    },
    [Symbol.asyncDispose]: () => plane[Symbol.asyncDispose](),
  };
}

/** Acknowledges every snapshot, and answers with the sessions above that are asked for. */
async function followingProxy(address: string, id: string, { answers = true, features = ["sessions-query"] }) {
  const proxy = connectFakeProxy(address, id);
  proxy.hello({ features });
  proxy.ack(await proxy.next());
  const following = follow(proxy, answers);
  return {
    async [Symbol.asyncDispose]() {
      proxy[Symbol.dispose]();
      await following;
    },
  };
}

async function follow(proxy: FakeProxy, answers: boolean): Promise<void> {
  for (;;) {
    const response = await proxy.next().catch((error: Error) => error);
    // Nothing came for a while; any other error is the end of the stream.
    if (response instanceof Error && response.name === "AbortError") continue;
    if (response instanceof Error) return;
    if (response.payload.case !== "sessionsQuery") proxy.ack(response);
    else if (answers) proxy.sessions({ queryId: response.payload.value.id, sessions });
  }
}

async function run({ args, stdin = "", server }: { args: readonly string[]; stdin?: string; server: string }): Promise<Finished> {
  const child = spawn(process.execPath, [program, ...args], { env: { ...process.env, VMCP_SERVER: server, NO_COLOR: "1" } });
  child.stdin.end(stdin);
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), closed]);
  return { code, stdout, stderr };
}
