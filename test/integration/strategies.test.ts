// Three real servers with the same tool names, merged by each strategy, on two proxies.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openClient, openRawSession } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";
import { startSdkBackend } from "../support/sdk-backend.ts";

const stack = new AsyncDisposableStack();
const ownTools = ["note", "notes", "search"];
let mesh: Mesh;

before(async () => {
  const names = ["github", "jira", "slack"];
  const servers = await Promise.all(names.map(async (name) => httpBackend(name, stack.use(await startSdkBackend(name)).url)));
  mesh = stack.use(await startMesh(2));
  const renamed = (workload: string, prefix: string) => ({
    workload,
    overrides: Object.fromEntries(
      ownTools.map((name) => [name, { name: `${prefix}_${name}`, description: `${name} of ${workload}` }]),
    ),
  });
  const documents = Object.entries({
    prefix: { conflictResolution: "prefix", conflictResolutionConfig: { prefixFormat: "{workload}_" } },
    priority: { conflictResolution: "priority", conflictResolutionConfig: { priorityOrder: ["jira", "github", "slack"] } },
    manual: { conflictResolution: "manual", tools: [renamed("github", "gh"), renamed("slack", "sl")] },
  }).map(([name, aggregation]) => virtualServer(name, { backends: servers, aggregation }));
  const { code, stderr } = await mesh.apply(documents);
  assert.equal(code, 0, stderr);
});
after(() => stack.disposeAsync());

for (const [strategy, wanted, call, answer] of [
  [
    "prefix",
    ["github", "jira", "slack"].flatMap((server) => ownTools.map((tool) => `${server}_${tool}`)),
    "slack_search",
    "slack found x",
  ],
  ["priority", ownTools, "search", "jira found x"],
  [
    "manual",
    [...ownTools, ...["gh", "sl"].flatMap((prefix) => ownTools.map((tool) => `${prefix}_${tool}`))],
    "gh_search",
    "github found x",
  ],
] as const) {
  test(`${strategy}: names are as declared and calls reach the right server`, async () => {
    await using client = await openClient(await endpoint(strategy, 0));
    await eventually("all tools are listed", async () => (await client.toolNames()).length === wanted.length);
    assert.deepEqual((await client.toolNames()).sort(), [...wanted].sort());
    assert.equal(await client.call(call, { query: "x" }), answer);
  });

  test(`${strategy}: every list is the same, byte for byte, on two proxies`, async () => {
    for (const method of ["tools/list", "resources/list", "resources/templates/list", "prompts/list"]) {
      await eventually(`${method} is equal on both`, async () => {
        const [one, two] = await Promise.all([listOf(strategy, 0, method), listOf(strategy, 1, method)]);
        return one === two;
      });
    }
    const tools = await listOf(strategy, 0, "tools/list");
    for (const name of wanted) assert.ok(tools.includes(`"${name}"`), `${name} in ${tools}`);
  });
}

for (const [strategy, prompts] of [
  ["prefix", ["github_greet", "jira_greet", "slack_greet"]],
  ["priority", ["greet"]],
] as const) {
  test(`${strategy}: prompts follow the same rules as tools`, async () => {
    await using client = await openClient(await endpoint(strategy, 0));
    const list = await client.client.listPrompts();
    assert.deepEqual(list.prompts.map(({ name }) => name).sort(), prompts);
    const { messages } = await client.client.getPrompt({ name: prompts.at(-1) ?? "" });
    const wanted = strategy === "prefix" ? "Greet from slack" : "Greet from jira";
    assert.deepEqual(messages[0]?.content, { type: "text", text: wanted });
  });
}

test("resources of every server are listed and read, and instructions say whose they are", async () => {
  await using client = await openClient(await endpoint("prefix", 1));
  const { resources } = await client.client.listResources();
  assert.deepEqual(
    resources.map(({ uri }) => uri).sort(),
    ["github", "jira", "slack"].map((name) => `doc://${name}/readme`),
  );
  const { contents } = await client.client.readResource({ uri: "doc://jira/readme" });
  assert.deepEqual(contents, [{ uri: "doc://jira/readme", text: "I am jira" }]);
  for (const name of ["github", "jira", "slack"]) {
    assert.match(client.client.getInstructions() ?? "", new RegExp(`${name}[\\s\\S]*Use ${name} wisely`));
  }
});

test("vmcpctl get tools says for each name which server it is and what decided", async () => {
  await eventually("the proxies have reported", async () => {
    const { code, stdout } = await mesh.ctl("get", "tools", "--virtual-server", "prefix", "-o", "json");
    return code === 0 && stdout.includes('"slack_search"') && stdout.includes('"prefix"');
  });
});

async function endpoint(virtualServerName: string, proxy: number): Promise<string> {
  const address = mesh.proxies[proxy]?.address;
  await eventually(`${address} is ready`, async () => (await fetch(`${address}/readyz`)).status === 200);
  return `${address}/${virtualServerName}/mcp`;
}

async function listOf(virtualServerName: string, proxy: number, method: string): Promise<string> {
  const session = await openRawSession(await endpoint(virtualServerName, proxy));
  const result = await session.result(method, undefined, "1");
  await session.delete();
  return result;
}
