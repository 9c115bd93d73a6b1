// The quick start that users of the original know, step by step, over three running servers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, send } from "../support/client.ts";
import { freePort, runVmcp, startEverything, startVmcp, temporaryDirectory } from "../support/processes.ts";

test("validate, serve, curl, connect: the quick start works as written", async () => {
  await using github = await startBackend({
    tools: [plainTool("create_issue"), plainTool("list_repos")],
    calls: { create_issue: ({ params }) => textResult(`created ${JSON.stringify(params.arguments)}`) },
  });
  await using fetcher = await startBackend({ tools: [plainTool("fetch")], calls: { fetch: () => textResult("fetched") } });
  await using everything = await startEverything();
  await using directory = await temporaryDirectory();

  // Step 3, with the backends named, since nothing discovers them here.
  await directory.write(
    "vmcp-config.yaml",
    `name: "my-vmcp"
groupRef: "my-team"
backends:
  - name: github-mcp
    url: ${github.url}
    transport: streamable-http
  - name: fetch-mcp
    url: ${fetcher.url}
    transport: streamable-http
  - name: everything
    url: ${everything.url}
    transport: streamable-http
incomingAuth:
  type: anonymous
outgoingAuth:
  source: inline
  default:
    type: unauthenticated
aggregation:
  conflictResolution: prefix
  conflictResolutionConfig:
    prefixFormat: "{workload}_"
`,
  );

  // Step 4
  const validated = await runVmcp(["validate", "--config", "vmcp-config.yaml"], { cwd: directory.path });
  assert.equal(validated.code, 0, validated.stderr);
  assert.match(validated.stdout, /my-vmcp/);

  // Step 5; on the documented port unless somebody has it.
  const isFree = await send("http://127.0.0.1:4483/").then(
    () => false,
    () => true,
  );
  const flags = [...(isFree ? [] : ["--port", String(await freePort())]), "--admin-listen", "127.0.0.1:0"];
  await using vmcp = await startVmcp(["serve", "--config", "vmcp-config.yaml", ...flags], { cwd: directory.path });
  if (isFree) assert.equal(vmcp.address, "http://127.0.0.1:4483");

  // Step 6
  assert.equal((await send(`${vmcp.address}/health`)).body.trim(), '{"status":"ok"}');

  // Step 7
  await using client = await openClient(`${vmcp.address}/mcp`);
  const names = await client.toolNames();
  for (const name of ["github-mcp_create_issue", "github-mcp_list_repos", "fetch-mcp_fetch", "everything_echo"]) {
    assert.ok(names.includes(name), `${name} in ${names}`);
  }
  assert.equal(await client.call("github-mcp_create_issue", { title: "é" }), 'created {"title":"é"}');
  assert.equal(await client.call("fetch-mcp_fetch"), "fetched");
  assert.equal(await client.call("everything_echo", { message: "hi" }), "Echo: hi");
});

test("validate refuses a broken file with exit code 65 and shows the line", async () => {
  await using directory = await temporaryDirectory();
  const path = await directory.write("broken.yaml", "name: x\ngroupRef: g\nincomingAuth:\n  type: anonymus\n");
  const { code, stdout, stderr } = await runVmcp(["validate", "-c", path]);
  assert.equal(code, 65);
  assert.match(stdout + stderr, /broken\.yaml:4:\d+/);
  assert.match(stdout + stderr, /anonymous/);
});

test("serve does not start with a broken file", async () => {
  await using directory = await temporaryDirectory();
  const path = await directory.write("broken.yaml", "name: x\n");
  const { code, stderr } = await runVmcp(["serve", "-c", path, "--port", "0", "--admin-listen", "127.0.0.1:0"]);
  assert.equal(code, 65);
  assert.match(stderr, /groupRef/);
  assert.doesNotMatch(stderr, /\n\s+at /);
});
