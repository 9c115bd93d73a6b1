// A backend leaves: calls in flight there end with their answers, questions to the client and all, and new ones are told that it is gone.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { askInSession, kinds } from "../support/asking-tools.ts";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, openRawSession } from "../support/client.ts";
import { configText, httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { serve } from "../support/serve.ts";
import { able, ask, callTool, statelessVersion } from "../support/stateless-client.ts";

const rounds = [{ who: kinds.elicitation.question }];

/** A gateway in front of one backend that stays and one that leaves. */
async function setUp() {
  await using stack = new AsyncDisposableStack();
  const isOver = new AbortController();
  stack.defer(() => isOver.abort());
  const stays = stack.use(await startBackend({ tools: [plainTool("hello")], calls: { hello: () => textResult("hello") } }));
  const leaves: Backend = stack.use(
    await startBackend({
      tools: [plainTool("ask"), plainTool("hello")],
      prompts: ['{"name":"p"}'],
      resources: ['{"uri":"note://1","name":"n"}'],
      calls: { ask: askInSession(() => leaves, isOver.signal), hello: () => textResult("hello") },
    }),
  );
  const [staying, leaving] = [httpBackend("stays", stays.url), httpBackend("leaves", leaves.url)];
  const vmcp = stack.use(await serve({ backends: [staying, leaving] }));
  const lister = await openRawSession(vmcp.url);
  const lists = async (name: string) => (await lister.result("tools/list")).includes(name);
  await eventually("both are listed", async () => (await lists("leaves_ask")) && (await lists("stays_hello")));
  const owned = stack.move();
  return {
    ...{ url: vmcp.url, leaves, lister },
    async leave(): Promise<void> {
      await vmcp.edit(configText({ backends: [staying] }));
      await eventually("it has left", async () => !(await lists("leaves_ask")));
    },
    async comeBack(): Promise<void> {
      await vmcp.edit(configText({ backends: [staying, leaving] }));
      await eventually("it is back", () => lists("leaves_ask"));
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

test("what it had is answered with its name and that nothing ran, in sessions and without; the rest is unknown", async () => {
  await using world = await setUp();
  const { url, lister, leaves } = world;
  await callTool(url, "leaves_hello");
  await world.leave();
  const before = leaves.bodies("tools/call").length;
  const gone = { reason: "backend_gone", backend: "leaves", outcome: "not_executed" };
  const message = 'backend "leaves" is gone, the call was not executed: it is no longer part of this server';
  for (const [method, params] of [
    ["tools/call", { name: "leaves_hello" }],
    ["prompts/get", { name: "leaves_p" }],
    ["resources/read", { uri: "note://1" }],
    ["resources/subscribe", { uri: "note://1" }],
    ["completion/complete", { ref: { type: "ref/prompt", name: "leaves_p" }, argument: { name: "a", value: "" } }],
  ] as const) {
    const { error } = JSON.parse(await lister.result(method, JSON.stringify(params)));
    assert.deepEqual([error?.data, error?.message], [gone, message], method);
  }
  const without = await callTool(url, "leaves_hello");
  assert.deepEqual([without.error?.data, without.error?.message], [gone, message], without.body);
  // Also to who has come since.
  const newcomer = await openRawSession(url);
  assert.match(await newcomer.result("tools/call", '{"name":"leaves_hello"}'), /"backend_gone"/);
  assert.match(await newcomer.result("tools/call", '{"name":"leaves_never"}'), /"code":-32602,"message":"unknown tool/);
  assert.equal(leaves.bodies("tools/call").length, before);

  await world.comeBack();
  assert.match(await lister.result("tools/call", '{"name":"leaves_hello"}'), /"text":"hello"/);
  assert.match(await lister.result("tools/call", '{"name":"leaves_never"}'), /unknown tool/);
});

test("a call in a session that waits for its client ends with the answer, though the backend has left meanwhile", async () => {
  await using world = await setUp();
  await using client = await openClient(world.url, { elicitation: {} });
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<void>();
  client.client.setRequestHandler(ElicitRequestSchema, async () => {
    asked.resolve();
    await answer.promise;
    return { action: "accept", content: { name: "Ada" } };
  });
  const calling = client.call("leaves_ask", { rounds });
  await asked.promise;
  await world.leave();
  assert.notEqual(world.leaves.sessions().length, 0, "it was not waited for");
  answer.resolve();
  assert.deepEqual(JSON.parse(await calling), [kinds.elicitation.answer]);
  await eventually("then its sessions are ended", () => world.leaves.sessions().length === 0);
});

test(`the same for a caller without a session (${statelessVersion})`, async () => {
  await using world = await setUp();
  const options = { capabilities: able };
  const params = { name: "leaves_ask", arguments: { rounds } };
  const asked = await ask(world.url, "tools/call", params, options);
  const { requestState, inputRequests = {} } = asked.result;
  assert.equal(asked.result.resultType, "input_required", asked.body);
  await world.leave();
  const inputResponses = Object.fromEntries(Object.keys(inputRequests).map((key) => [key, kinds.elicitation.answer]));
  const retry = { ...params, requestState, inputResponses };
  const done = await ask(world.url, "tools/call", retry, options);
  assert.deepEqual(JSON.parse(done.text || "0"), [kinds.elicitation.answer], done.body);
  const again = await ask(world.url, "tools/call", params, options);
  assert.equal(again.error?.data?.reason, "backend_gone", again.body);
  await eventually("then its sessions are ended", () => world.leaves.sessions().length === 0);
});
