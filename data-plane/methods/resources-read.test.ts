import assert from "node:assert/strict";
import { test } from "node:test";
import { type Handler, plainTool, startBackend } from "../../test/support/backend.ts";
import { type DirectCalls, directCalls } from "../../test/support/direct-call.ts";
import { methods } from "./registry.ts";

const linking =
  (uri: string): Handler =>
  () =>
    JSON.stringify({ content: [{ type: "resource_link", uri, name: "n" }] });
const contents =
  (text: string): Handler =>
  ({ params }) =>
    JSON.stringify({ contents: [{ uri: params.uri, text }] });
const everyUri = (text: string) => ({ methods: { "resources/read": contents(text), "resources/subscribe": () => "{}" } });

async function ask(calls: DirectCalls, method: string, params: Record<string, unknown>): Promise<string> {
  return String(await methods.get(method)?.(calls.call(method, params)));
}

test("a URI that was handed out but never listed is read from the backend that handed it out last", async () => {
  const script = { tools: [plainTool("link")], calls: { link: linking("x:1") } };
  await using a = await startBackend({
    ...script,
    tools: [plainTool("link-a")],
    calls: { "link-a": linking("x:1") },
    ...everyUri("of a"),
  });
  await using b = await startBackend({
    ...script,
    tools: [plainTool("link-b")],
    calls: { "link-b": linking("x:1") },
    ...everyUri("of b"),
  });
  await using calls = await directCalls({ a: a.url, b: b.url });
  assert.match(await ask(calls, "resources/read", { uri: "x:1" }), /-32002/);
  for (const name of ["a", "b", "a"]) {
    await ask(calls, "tools/call", { name: `link-${name}` });
    assert.match(await ask(calls, "resources/read", { uri: "x:1" }), new RegExp(`of ${name}`));
  }
});

test("what a backend lists, or makes by a template, stays its own, whoever hands it out", async () => {
  const listing = { resources: ['{"uri":"x:1","name":"n"}'], resourceTemplates: ['{"uriTemplate":"y:{id}","name":"n"}'] };
  await using owner = await startBackend({ ...listing, ...everyUri("of the owner") });
  const hand: Handler = () => JSON.stringify({ content: ["x:1", "y:1", "z:1"].map((uri) => ({ type: "resource_link", uri })) });
  await using other = await startBackend({ tools: [plainTool("hand")], calls: { hand }, ...everyUri("of the other") });
  await using calls = await directCalls({ owner: owner.url, other: other.url });
  await ask(calls, "tools/call", { name: "hand" });
  assert.match(await ask(calls, "resources/read", { uri: "x:1" }), /of the owner/);
  assert.match(await ask(calls, "resources/read", { uri: "y:1" }), /of the owner/);
  assert.match(await ask(calls, "resources/read", { uri: "z:1" }), /of the other/);
});

test("prompts and resources hand URIs out too", async () => {
  await using backend = await startBackend({
    resources: ['{"uri":"dir:/","name":"n"}'],
    prompts: ['{"name":"p"}'],
    gets: { p: () => '{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"x:1","text":""}}}]}' },
    reads: { "dir:/": () => '{"contents":[{"uri":"dir:/f","text":""}]}', "dir:/f": contents("f"), "x:1": contents("x") },
  });
  await using calls = await directCalls({ a: backend.url });
  await ask(calls, "prompts/get", { name: "p" });
  await ask(calls, "resources/read", { uri: "dir:/" });
  assert.match(await ask(calls, "resources/read", { uri: "x:1" }), /"text":"x"/);
  assert.match(await ask(calls, "resources/read", { uri: "dir:/f" }), /"text":"f"/);
});

test("a URI that was handed out can be subscribed to", async () => {
  await using backend = await startBackend({ tools: [plainTool("link")], calls: { link: linking("x:1") }, ...everyUri("") });
  await using other = await startBackend();
  await using calls = await directCalls({ a: backend.url, b: other.url });
  assert.match(await ask(calls, "resources/subscribe", { uri: "x:1" }), /-32002/);
  await ask(calls, "tools/call", { name: "link" });
  assert.match(await ask(calls, "resources/subscribe", { uri: "x:1" }), /"result":\{\}/);
  assert.deepEqual(calls.session.state.subscriptions.get("x:1"), { backend: "a", original: "x:1" });
});
