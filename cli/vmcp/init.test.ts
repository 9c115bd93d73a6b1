import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loadConfig } from "../../control-plane/index.ts";
import type { VirtualServer } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { type InitOptions, init } from "./init.ts";

async function run(options: InitOptions) {
  let stdout = "";
  let stderr = "";
  const code = await init(options, {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
  });
  return { code, stdout, stderr };
}

function server(text: string): VirtualServer {
  const { resources, problems } = loadConfig(text, { file: "init.yaml" });
  assert.deepEqual(
    problems.filter(({ severity }) => severity !== "warning"),
    [],
  );
  const spec = resources[0]?.spec;
  assert.equal(spec?.case, "virtualServer");
  return spec.value;
}

const folder = () => mkdtempSync(join(tmpdir(), "vmcp-init-"));

function mcpJson(servers: unknown): string {
  const path = join(folder(), "mcp.json");
  writeFileSync(path, JSON.stringify({ mcpServers: servers }));
  return path;
}

test("the starter file is valid", async () => {
  const { code, stdout } = await run({ group: "platform team" });
  assert.equal(code, 0);
  const { name, groupRef, backends } = server(stdout);
  assert.deepEqual([name, groupRef, backends.length], ["platform-team-vmcp", "platform team", 0]);
});

test("the example of backends in its comments is valid too", async () => {
  const { stdout } = await run({});
  const text = stdout.replace(/# backends:[\s\S]*?\n\n/, (block) => block.replaceAll(/^# /gm, ""));
  assert.deepEqual(
    server(text).backends.map(({ name }) => name),
    ["github", "files"],
  );
});

test("servers of a desktop client become backends", async () => {
  const from = mcpJson({
    files: { command: "npx", args: ["-y", "server-files", "/tmp"], env: { LOG: "debug" }, cwd: "/tmp" },
    remote: { type: "http", url: "https://example.com/mcp" },
    old: { type: "sse", url: "http://localhost:9/sse" },
  });
  const { backends } = server((await run({ from })).stdout);
  assert.deepEqual(
    backends.map(({ name, transport, url, command, args, env, cwd }) => ({ name, transport, url, command, args, env, cwd })),
    [
      {
        name: "files",
        transport: "stdio",
        url: "",
        command: "npx",
        args: ["-y", "server-files", "/tmp"],
        env: { LOG: "debug" },
        cwd: "/tmp",
      },
      { name: "remote", transport: "streamable-http", url: "https://example.com/mcp", command: "", args: [], env: {}, cwd: "" },
      { name: "old", transport: "sse", url: "http://localhost:9/sse", command: "", args: [], env: {}, cwd: "" },
    ],
  );
});

test("secrets are not copied, and each gets a variable of its own", async () => {
  const from = mcpJson({
    a: { command: "a", env: { API_KEY: "hunter2-a", PLAIN: "sk-hunter2", SHARED: "$".concat("{HOME}") } },
    b: { command: "b", env: { API_KEY: "hunter2-b" } },
    c: { command: "c", env: { API_KEY: "hunter2-a" } },
    d: { url: "https://example.com/mcp", headers: { Authorization: "Bearer hunter2" } },
  });
  const { stdout, stderr } = await run({ from });
  assert.doesNotMatch(stdout + stderr, /hunter2/);
  assert.deepEqual(
    server(stdout).backends.map(({ env }) => env),
    [
      { API_KEY: "env:API_KEY", PLAIN: "env:PLAIN", SHARED: "env:HOME" },
      { API_KEY: "env:B_API_KEY" },
      { API_KEY: "env:API_KEY" },
      {},
    ],
  );
  assert.match(stderr, /export B_API_KEY/);
  assert.match(stdout, /headerName: "Authorization", headerValueEnv: D_AUTHORIZATION/);
});

test("odd names and entries do not spoil the file", async () => {
  const from = mcpJson({
    "My Server": { command: "a" },
    "my server!": { command: "b" },
    "My-Server": { command: "c" },
    "日本語\n- name: x": { command: "d", args: ["line\nbreak", "#", "*x", "\u2028"] },
    off: { command: "e", disabled: true },
    credentials: { url: "http://user:hunter2@example.com" },
    nothing: {},
    number: 5,
  });
  const { stdout, stderr } = await run({ from });
  assert.deepEqual(
    server(stdout).backends.map(({ name }) => name),
    ["My-Server", "my-server", "My-Server-2", "name-x"],
  );
  assert.deepEqual(server(stdout).backends[3]?.args, ["line\nbreak", "#", "*x", "\u2028"]);
  assert.match(stderr, /credentials is left out: its url/);
  assert.doesNotMatch(stdout + stderr, /hunter2/);
});

test("only servers that can't be used leave no backends", async () => {
  const { stdout } = await run({ from: mcpJson({ off: { command: "x", disabled: true } }) });
  assert.equal(server(stdout).backends.length, 0);
});

for (const [what, content] of [
  ["no JSON", "{"],
  ["no servers", "{}"],
  ["an empty map", '{"mcpServers":{}}'],
  ["a list", "[]"],
] as const) {
  test(`a file with ${what} is refused in one line`, async () => {
    const path = join(folder(), "mcp.json");
    writeFileSync(path, content);
    const { code, stdout, stderr } = await run({ from: path });
    assert.deepEqual([code, stdout, stderr.trim().split("\n").length], [65, "", 1]);
  });
}

test("a missing file and a bad group name are refused", async () => {
  assert.equal((await run({ from: "/nowhere/mcp.json" })).code, 65);
  assert.equal((await run({ group: "My Team" })).code, 64);
});

test("a file is written whole, for its owner only, and never over another without force", async () => {
  const directory = folder();
  const output = join(directory, "vmcp.yaml");
  assert.equal((await run({ output })).code, 0);
  assert.equal(statSync(output).mode & 0o777, 0o600);
  const first = readFileSync(output, "utf8");
  const again = await run({ output, group: "other" });
  assert.equal(again.code, 73);
  assert.match(again.stderr, /--force/);
  assert.equal(readFileSync(output, "utf8"), first);
  assert.equal((await run({ output, group: "other", force: true })).code, 0);
  assert.match(readFileSync(output, "utf8"), /other-vmcp/);
  assert.deepEqual(readdirSync(directory), ["vmcp.yaml"]);
});
