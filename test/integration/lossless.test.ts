// What a backend sends is what the client gets, and the other way round: no member is lost, no number respelled.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Backend, rawError, startBackend } from "../support/backend.ts";
import { openRawSession, type RawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { parseExactly } from "../support/json.ts";
import { serve } from "../support/serve.ts";

// Members that no schema knows, numbers that a double can't hold, spellings that a parser would change.
const odd = `"x-odd":{"big":9007199254740993,"one":1.0,"huge":1e400,"minus":-0,"né":"\\u00e9☃😀","nested":[{"deep":[null,true]}]}`;
const icons = `"icons":[{"src":"data:image/png;base64,AAAA","mimeType":"image/png","sizes":["48x48"],"theme":"dark",${odd}}]`;
const annotations = `"annotations":{"title":"T","readOnlyHint":true,${odd}}`;
const schema = `{"type":"object","$schema":"https://json-schema.org/draft/2020-12/schema","properties":{"n":{"type":"integer","maximum":18446744073709551615,${odd}}},"additionalProperties":false}`;

const tool = `{"name":"odd","title":"Ödd","description":"dé","inputSchema":${schema},"outputSchema":${schema},${annotations},${icons},"_meta":{"a/b":1.0,${odd}},"execution":{"taskSupport":"forbidden"},${odd}}`;
const resource = `{"uri":"odd://ré/1","name":"odd","title":"R","size":9007199254740993,"annotations":{"audience":["user"],"priority":0.10,"lastModified":"2025-01-01T00:00:00Z"},${icons},"_meta":{${odd}},${odd}}`;
const template = `{"uriTemplate":"odd://t/{id}","name":"oddt","title":"T","mimeType":"text/plain",${icons},"_meta":{${odd}},${odd}}`;
const prompt = `{"name":"oddp","title":"P","description":"d","arguments":[{"name":"a","title":"A","required":true,${odd}}],${icons},"_meta":{${odd}},${odd}}`;

const callResult = `{"content":[{"type":"text","text":"t","annotations":{"priority":1.0},"_meta":{${odd}},${odd}},{"type":"audio","data":"AA==","mimeType":"audio/wav"},{"type":"resource_link","uri":"odd://ré/1","name":"l"},{"type":"future","of":[1.50]}],"structuredContent":{"n":18446744073709551615,"z":1,"a":[1.0],${odd}},"isError":false,"_meta":{"k":1E2,${odd}},${odd}}`;
const errorText = `{"code":-32099,"message":"nö","data":{"retry":9007199254740993,${odd}},${odd}}`;
const readResult = `{"contents":[{"uri":"odd://ré/1","mimeType":"text/plain","text":"☃","_meta":{${odd}},${odd}}],"_meta":{${odd}},${odd}}`;
const getResult = `{"description":"d","messages":[{"role":"user","content":{"type":"text","text":"x",${odd}},${odd}}],"_meta":{${odd}},${odd}}`;
const completeResult = `{"completion":{"values":["á"],"total":9007199254740993,"hasMore":false,${odd}},${odd}}`;
const progress = `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":TOKEN,"progress":0.10,"total":9007199254740993,"message":"é",${odd}}}`;

const stack = new AsyncDisposableStack();
let backend: Backend;
let session: RawSession;

before(async () => {
  backend = stack.use(
    await startBackend({
      tools: [tool, tool.replace('"odd"', '"failing"'), tool.replace('"odd"', '"talking"')],
      resources: [resource],
      resourceTemplates: [template],
      prompts: [prompt],
      calls: {
        odd: () => callResult,
        failing: () => rawError(errorText),
        talking: ({ notify, message }) => {
          const token = (message.params._meta as { progressToken: unknown }).progressToken;
          notify(progress.replace("TOKEN", JSON.stringify(token)));
          return callResult;
        },
      },
      reads: { "odd://ré/1": () => readResult },
      gets: { oddp: () => getResult },
      methods: { "completion/complete": () => completeResult },
    }),
  );
  const vmcp = stack.use(await serve({ backends: [httpBackend("b", backend.url)] }));
  session = await openRawSession(vmcp.url);
  await eventually("the tools are listed", async () => (await session.result("tools/list")).includes("b_odd"));
});
after(() => stack.disposeAsync());

for (const [method, sent, renamed] of [
  ["tools/list", tool, tool.replace('"name":"odd"', '"name":"b_odd"')],
  ["resources/list", resource, resource],
  ["resources/templates/list", template, template],
  ["prompts/list", prompt, prompt.replace('"name":"oddp"', '"name":"b_oddp"')],
] as const) {
  test(`${method} keeps every member and every spelling`, async () => {
    const message = parseExactly(await session.result(method)) as { result: Record<string, unknown[]> };
    const items = Object.values(message.result).find(Array.isArray) ?? [];
    assert.deepEqual(items[0], parseExactly(renamed), `sent ${sent}`);
  });
}

for (const [what, method, params, wanted] of [
  ["a tool's result", "tools/call", `{"name":"b_odd","arguments":{}}`, `"result":${callResult}`],
  ["a tool's error", "tools/call", `{"name":"b_failing","arguments":{}}`, `"error":${errorText}`],
  ["a resource", "resources/read", `{"uri":"odd://ré/1"}`, `"result":${readResult}`],
  ["a prompt", "prompts/get", `{"name":"b_oddp"}`, `"result":${getResult}`],
  [
    "a completion",
    "completion/complete",
    `{"ref":{"type":"ref/prompt","name":"b_oddp"},"argument":{"name":"a","value":"x"}}`,
    `"result":${completeResult}`,
  ],
] as const) {
  test(`${what} arrives byte for byte`, async () => {
    const answer = await session.result(method, params);
    assert.ok(answer.includes(wanted), `${answer}\nlacks\n${wanted}`);
  });
}

test("an answer carries the id as the client wrote it", async () => {
  for (const id of ["9007199254740993", '"é\\u00e9"', "0", "-1"]) {
    const answer = await session.ask("ping", undefined, id);
    assert.ok(answer.body.includes(`"id":${id}`), answer.body);
    const called = await session.ask("tools/call", `{"name":"b_odd","arguments":{}}`, id);
    assert.ok(called.body.includes(`"id":${id}`), called.body);
  }
});

test("what the client sends arrives byte for byte", async () => {
  const args = `{"n":18446744073709551615,"f":1.0,${odd}}`;
  const meta = `{"custom/key":{"big":9007199254740993},"n":1.0}`;
  await session.result("tools/call", `{"name":"b_odd","arguments":${args},"_meta":${meta},${odd}}`);
  const body = backend.bodies("tools/call").at(-1) ?? "";
  assert.ok(body.includes(`"arguments":${args}`), body);
  assert.ok(body.includes(odd), body);
  const { params } = parseExactly(body) as { params: { name: string; _meta: Record<string, unknown> } };
  assert.equal(params.name, "odd");
  const wanted = parseExactly(meta) as Record<string, unknown>;
  for (const [key, value] of Object.entries(wanted)) assert.deepEqual(params._meta[key], value);
});

test("progress arrives on the call's own stream, under the client's token, with its numbers", async () => {
  const answer = await session.ask("tools/call", `{"name":"b_talking","arguments":{},"_meta":{"progressToken":"mé-1"}}`, "77");
  assert.match(String(answer.headers["content-type"]), /^text\/event-stream/);
  const [first, last] = answer.messages;
  assert.deepEqual(parseExactly(first ?? ""), parseExactly(progress.replace("TOKEN", '"mé-1"')));
  assert.ok(last?.includes(`"result":${callResult}`), last);
  assert.equal(answer.messages.length, 2);
});
