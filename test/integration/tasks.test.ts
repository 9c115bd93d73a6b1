// Tools that only run as tasks: a client that knows nothing of tasks calls them like any other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { InMemoryTaskMessageQueue, InMemoryTaskStore } from "@modelcontextprotocol/sdk/experimental/tasks";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { startBackend } from "../support/backend.ts";
import { openClient } from "../support/client.ts";
import { httpBackend, stdioBackend } from "../support/config.ts";
import { openDualClient } from "../support/dual-client.ts";
import { eventually } from "../support/eventually.ts";
import { startEverything, stdioServer } from "../support/processes.ts";
import { serve } from "../support/serve.ts";

const name = "simulate-research-query";
const exposed = `e_${name}`;

test("a real task tool over HTTP: listed and called as a plain one", async () => {
  await using everything = await startEverything();
  await using gateway = await serve({ backends: [httpBackend("e", everything.url)] });
  await using direct = await openClient(everything.url);
  await using through = await openClient(gateway.url);
  assert.deepEqual(through.client.getServerCapabilities()?.tasks, undefined);
  const tools = async ({ client }: typeof direct) => (await client.listTools()).tools;
  const { execution, ...wanted } = (await tools(direct)).find((tool) => tool.name === name) ?? assert.fail();
  assert.deepEqual(execution, { taskSupport: "required" });
  const seen = (await tools(through)).find((tool) => tool.name === exposed);
  assert.deepEqual(seen, { ...wanted, name: exposed });
  assert.match(await through.call(exposed, { topic: "gateways" }), /# Research Report: gateways/);
});

test("a real task that asks its client: the question arrives, the answer counts", async () => {
  await using everything = await startEverything();
  await using gateway = await serve({ backends: [httpBackend("e", everything.url)] });
  // It has tasks of its own, and must not take the question for one of them.
  const client = new Client(
    { name: "asked", version: "1.0.0" },
    {
      capabilities: { elicitation: {} },
      taskStore: new InMemoryTaskStore(),
      taskMessageQueue: new InMemoryTaskMessageQueue(),
    },
  );
  const questions: string[] = [];
  client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
    questions.push(params.message);
    return { action: "accept", content: { interpretation: "snake" } };
  });
  const transport = new StreamableHTTPClientTransport(new URL(gateway.url));
  await client.connect(transport as Transport); // the SDK's own types disagree under exactOptionalPropertyTypes
  await client.listTools();
  const result = await client.callTool({ name: exposed, arguments: { topic: "python", ambiguous: true } });
  await client.close();
  assert.match(JSON.stringify(result.content), /Research Report: python \(snake\)/);
  assert.equal(questions.length, 1);
});

test("a real task that asks a client without a session: the question is its answer, and it calls again", async () => {
  await using everything = await startEverything();
  await using gateway = await serve({ backends: [httpBackend("e", everything.url)] });
  const questions: string[] = [];
  await using client = await openDualClient(gateway.url, {
    era: "stateless",
    onElicit: ({ message }) => {
      questions.push(message);
      return { action: "accept", content: { interpretation: "snake" } };
    },
  });
  assert.match(await client.call(exposed, { topic: "gateways" }), /# Research Report: gateways/);
  assert.match(await client.call(exposed, { topic: "python", ambiguous: true }), /Research Report: python \(snake\)/);
  assert.equal(questions.length, 1);
});

test("a real task tool over stdio", async () => {
  await using gateway = await serve({ backends: [stdioBackend("e", stdioServer("everything"))] });
  await using client = await openClient(gateway.url);
  await eventually("the tools are listed", async () => (await client.toolNames()).includes(exposed));
  assert.match(await client.call(exposed, { topic: "pipes" }), /# Research Report: pipes/);
});

test("a client that cancels its call cancels the task", async () => {
  const initialize = JSON.stringify({
    protocolVersion: "2025-11-25",
    capabilities: { tools: {}, tasks: { cancel: {}, requests: { tools: { call: {} } } } },
    serverInfo: { name: "scripted", version: "1.0.0" },
  });
  const state = JSON.stringify({ taskId: "t/1", status: "working", pollInterval: 100 });
  await using backend = await startBackend({
    initialize,
    tools: ['{"name":"dig","inputSchema":{"type":"object"},"execution":{"taskSupport":"required"}}'],
    calls: { dig: () => `{"task":${state}}` },
    methods: { "tasks/get": () => state, "tasks/cancel": () => state },
  });
  await using gateway = await serve({ backends: [httpBackend("e", backend.url)] });
  await using client = await openClient(gateway.url);
  await client.toolNames();
  const abort = new AbortController();
  const call = client.client.callTool({ name: "e_dig" }, undefined, { signal: abort.signal });
  void eventually("the task is looked at", () => backend.bodies("tasks/get").length > 0).finally(() => abort.abort("enough"));
  await assert.rejects(call, /enough/);
  await eventually("the task is cancelled", () => backend.bodies("tasks/cancel").length === 1);
  const looks = backend.bodies("tasks/get").length;
  assert.equal(await client.call("e_none").catch(String), "McpError: MCP error -32602: unknown tool: e_none");
  assert.ok(backend.bodies("tasks/get").length <= looks + 1, "nobody looks at it any more");
});
