import assert from "node:assert/strict";
import { test } from "node:test";
import { plainTool, startBackend, textResult } from "../../test/support/backend.ts";
import { directCalls } from "../../test/support/direct-call.ts";
import { callTool } from "./tools-call.ts";

test("a client's wish for a task is not passed on: it was offered none", async () => {
  await using backend = await startBackend({ tools: [plainTool("t")], calls: { t: () => textResult("done") } });
  await using calls = await directCalls({ a: backend.url });
  const params = { name: "t", task: { ttl: 1 }, arguments: { task: 7 }, _meta: { task: {} } };
  assert.match(String(await callTool(calls.call("tools/call", params))), /done/);
  const { task: _, ...plain } = params;
  assert.deepEqual((JSON.parse(backend.bodies("tools/call")[0] as string) as { params: unknown }).params, plain);
});

const definition = '{"name":"t", "execution":{"taskSupport":"required"}, "big":1e400}';
const calls = { t: () => textResult("done") };

test("a tool that only runs as a task is listed and called as a plain one", async () => {
  const initialize = JSON.stringify({
    protocolVersion: "2025-11-25",
    capabilities: { tools: {}, tasks: { requests: { tools: { call: {} } } } },
    serverInfo: { name: "s", version: "1" },
  });
  await using backend = await startBackend({ tools: [definition], calls, initialize });
  await using direct = await directCalls({ a: backend.url });
  const call = direct.call("tools/call", { name: "t" });
  assert.equal(call.view.lists.tools.page(undefined)?.json.toString(), '"tools":[{"name":"t", "big":1e400}]');
  assert.match(String(await callTool(call)), /done/);
  assert.match(backend.bodies("tools/call")[0] as string, /"task":\{"ttl":600000\}/);
});

test("a backend without tasks is called plainly, whatever its tools say of themselves", async () => {
  await using backend = await startBackend({ tools: [definition], calls });
  await using direct = await directCalls({ a: backend.url });
  assert.match(String(await callTool(direct.call("tools/call", { name: "t" }))), /done/);
  assert.doesNotMatch(backend.bodies("tools/call")[0] as string, /task/);
});
