// What is particular to ToolHive's server: who may be believed to be it, its words, and its faults.
import assert from "node:assert/strict";
import { chmod, rename, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { pino } from "pino";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { type FakeToolhive, type Fault, startToolhive } from "../../test/support/toolhive.ts";
import type { Sighting } from "./provider.ts";
import { createToolhiveProvider } from "./toolhive.ts";
import { toolhivePaths } from "./toolhive-paths.ts";

const log = pino({ level: "silent" });

async function open(isSocket = false) {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const fake = stack.use(await startToolhive({ directory: path, isSocket }));
  const owned = stack.move();
  return { fake, path, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** What is seen first; with `pause`, what is seen after it. */
async function see(fake: FakeToolhive, answerMs = 500, pause?: () => Promise<unknown>): Promise<Sighting> {
  const abort = new AbortController();
  const provider = createToolhiveProvider({ log, serverFile: fake.serverFile, pollMs: 20, answerMs });
  let isFirst = true;
  try {
    for await (const sighting of provider.watch(abort.signal)) {
      if (!pause || !isFirst) return sighting;
      isFirst = false;
      await pause();
    }
  } finally {
    abort.abort();
  }
  throw new Error("nothing was seen");
}

const fails = (fake: FakeToolhive, message: RegExp) => assert.rejects(see(fake), { name: "ProviderError", message });

for (const [what, spoil, message] of [
  ["is readable by others", ({ fake }) => chmod(fake.serverFile, 0o644), /open to other users \(mode 0644\)/],
  ["lies where others may write", ({ fake }) => chmod(join(fake.serverFile, ".."), 0o777), /open to other users \(mode 0777\)/],
  [
    "is a symbolic link",
    async ({ fake, path }) => {
      await rename(fake.serverFile, join(path, "elsewhere.json"));
      await symlink(join(path, "elsewhere.json"), fake.serverFile);
    },
    /symbolic link/,
  ],
  ["names another machine", ({ fake }) => fake.announce({ url: "http://192.0.2.1:80" }), /not on this machine/],
  [
    "names a machine that sounds like this one",
    ({ fake }) => fake.announce({ url: "http://127.0.0.1.example:80" }),
    /not on this/,
  ],
  ["names https", ({ fake }) => fake.announce({ url: "https://127.0.0.1:80" }), /not http:\/\/127/],
  ["names a path", ({ fake }) => fake.announce({ url: "http://127.0.0.1:80/other" }), /not http:\/\/127/],
  ["names a socket that is none", ({ fake }) => fake.announce({ url: `unix://${fake.serverFile}` }), /no socket/],
  ["names a socket by a relative path", ({ fake }) => fake.announce({ url: "unix://a.sock" }), /absolute/],
  ["names a socket through ..", ({ fake }) => fake.announce({ url: "unix:///tmp/../a.sock" }), /absolute/],
  ["names a pipe", ({ fake }) => fake.announce({ url: "npipe://thv" }), /not supported/],
  ["has no nonce", ({ fake }) => fake.announce({ nonce: "" }), /no url and nonce/],
  ["has another nonce than the server", ({ fake }) => fake.announce({ nonce: "f".repeat(32) }), /not the ToolHive server/],
  ["is no JSON", ({ fake }) => writeFile(fake.serverFile, "{"), /no JSON/],
  ["is a list", ({ fake }) => writeFile(fake.serverFile, "[]"), /no url and nonce/],
  ["is huge", ({ fake }) => writeFile(fake.serverFile, " ".repeat(70_000)), /at most/],
] as const satisfies [string, (world: { fake: FakeToolhive; path: string }) => Promise<unknown>, RegExp][]) {
  test(`a server file that ${what} is not followed`, async () => {
    await using world = await open();
    await spoil(world);
    const before = world.fake.requests;
    await fails(world.fake, message);
    assert.ok(world.fake.requests - before <= 1, "nothing but its health was asked");
  });
}

test("a server file that is not there says so", async () => {
  const provider = createToolhiveProvider({ log, serverFile: "/nonexistent/server.json" });
  await assert.rejects(Array.fromAsync(provider.watch(AbortSignal.timeout(1_000))), { message: /no ToolHive server runs/ });
});

for (const [fault, message] of [
  ["down", /does not answer \(ECONNREFUSED\), though its process lives/],
  ["hung", /does not answer in time/],
  ["malformed", /no JSON/],
  ["nonsense", /without a list/],
  ["endless", /more than 8388608 bytes/],
  ["unauthorized", /wants a sign-in \(401\)/],
  ["unhealthy", /container runtime .* is down/],
  ["wrong-nonce", /not the ToolHive server/],
] as const satisfies [Fault, RegExp][]) {
  test(`a server that is ${fault} is no empty answer`, async () => {
    await using world = await open();
    await world.fake.behave(fault);
    await fails(world.fake, message);
  });
}

test("a dead process is told from one that does not answer", async () => {
  await using world = await open();
  await world.fake.announce({ pid: 2 ** 22 + 1 });
  await world.fake.behave("down");
  await fails(world.fake, /and its process is gone/);
});

test("another program that listens on the socket's path is not believed", async () => {
  await using world = await open(true);
  await world.fake.behave("down");
  const other = createServer((socket) => socket.end("HTTP/1.1 204 No Content\r\n\r\n"));
  const socketPath = join(world.path, "thv.sock");
  await new Promise<void>((resolve) => other.listen(socketPath, resolve));
  await fails(world.fake, /not the ToolHive server/);
  other.close();
});

test("slow is not failed, and null is empty", async () => {
  await using world = await open();
  await world.fake.behave("slow");
  assert.deepEqual((await see(world.fake, 2_000)).workloads, []);
  await world.fake.behave("null-lists");
  assert.deepEqual(await see(world.fake), { workloads: [], groups: [], problems: [] });
});

test("workloads are mapped as the original maps them", async () => {
  await using world = await open();
  const at = (port: number, path: string) => `http://127.0.0.1:${port}${path}`;
  world.fake.set([
    { name: "plain", group: "team", url: at(1, "/mcp"), labels: { tier: "a" } },
    { name: "sse", group: "team", url: at(2, "/sse#sse"), transport_type: "stdio", proxy_mode: "sse" },
    { name: "no-mode", group: "team", url: at(3, "/sse"), transport_type: "sse", proxy_mode: "" },
    { name: "remote", url: at(4, "/v1/api"), remote: true },
    { name: "stopped", group: "team", url: at(5, "/mcp"), status: "stopped" },
    { name: "retrying", group: "team", url: at(6, "/mcp"), status: "auth_retrying" },
    { name: "nowhere", group: "team", url: "", status: "starting" },
    { name: "moved-out", group: "team", url: at(1, "/mcp"), status: "stopped" },
  ]);
  const { workloads, problems } = await see(world.fake);
  const rows = workloads.map(({ group, name, url, transport, isRunning }) => [group, name, url, transport, isRunning]);
  assert.deepEqual(rows, [
    ["team", "plain", at(1, "/mcp"), "streamable-http", true],
    ["team", "sse", at(2, "/sse"), "sse", true],
    ["team", "no-mode", at(3, "/sse"), "sse", true],
    ["default", "remote", at(4, "/v1/api"), "streamable-http", true],
    ["team", "stopped", at(5, "/mcp"), "streamable-http", false],
    ["team", "retrying", at(6, "/mcp"), "streamable-http", true],
  ]);
  assert.deepEqual(workloads[0]?.metadata, { tier: "a", workload_status: "running" });
  assert.deepEqual(problems, [
    'workload "nowhere" is left out: it has no address yet',
    'workload "moved-out" is left out: it is stopped, and "plain" has its address',
  ]);
});

test("one that is stopped and lost its address keeps the one it had", async () => {
  await using world = await open();
  world.fake.set([{ name: "a", group: "g", url: "http://127.0.0.1:1/mcp" }]);
  const after = await see(world.fake, 500, async () => world.fake.set([{ name: "a", group: "g", url: "", status: "stopped" }]));
  assert.deepEqual(
    after.workloads.map(({ url, isRunning }) => [url, isRunning]),
    [["http://127.0.0.1:1/mcp", false]],
  );
});

test("a server that comes back elsewhere is found by its file, when it is looked at again", async () => {
  await using directory = await temporaryDirectory();
  await using first = await startToolhive({ directory: directory.path });
  first.set([{ name: "a", group: "g", url: "http://127.0.0.1:1/mcp" }]);
  await see(first);
  await first.behave("down");
  await using second = await startToolhive({ directory: directory.path });
  second.set([{ name: "b", group: "g", url: "http://127.0.0.1:1/mcp" }]);
  assert.deepEqual(
    (await see(second)).workloads.map(({ name }) => name),
    ["b"],
  );
});

test("its files are where each system keeps such files", async () => {
  const serverFileOf = (env: Record<string, string>, platform: NodeJS.Platform) =>
    toolhivePaths(env, platform, "/home/u").serverFile;
  assert.equal(serverFileOf({}, "linux"), "/home/u/.local/state/toolhive/server/server.json");
  assert.equal(serverFileOf({ XDG_STATE_HOME: "/s" }, "linux"), "/s/toolhive/server/server.json");
  assert.equal(serverFileOf({}, "darwin"), "/home/u/Library/Application Support/toolhive/server/server.json");
  assert.equal(toolhivePaths({ XDG_DATA_HOME: "/d" }, "linux", "/home/u").statuses, "/d/toolhive/statuses");
});
