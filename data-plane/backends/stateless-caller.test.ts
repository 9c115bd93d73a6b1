import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { type BackendScript, type Handler, plainTool, rawError, startBackend, textResult } from "../../test/support/backend.ts";
import { eventually } from "../../test/support/eventually.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import { metaKeys } from "../mcp/stateless.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { createHttpEndpoint } from "./http-endpoint.ts";
import { gateway, type Hear } from "./leg.ts";
import { forStatelessCaller } from "./stateless-caller.ts";

const log = pino({ level: "silent" });
const never = new AbortController().signal;
const envelope = `"${metaKeys.protocolVersion}":"2026-07-28","${metaKeys.clientCapabilities}":{},"${metaKeys.clientInfo}":{"name":"c"}`;

/** A session with a scripted server, as callers without sessions use it. */
async function setUp(t: TestContext, script: BackendScript) {
  const tools = Object.keys(script.calls ?? {}).map((name) => plainTool(name));
  const server = await startBackend({ tools, ...script });
  const endpoint = createHttpEndpoint({ url: server.url, credential: sameForAll([]), log });
  const session = await endpoint.openLeg(gateway, never);
  t.after(async () => {
    await endpoint.close();
    await server[Symbol.asyncDispose]();
  });
  return { server, session, leg: forStatelessCaller(session) };
}

const callOf = (params: string, id = "1", method = "tools/call") => readMessage(request(method, params, id));
const textOf = ({ json }: Message) => json.toString();
function listening() {
  const heard: string[] = [];
  const onMessage: Hear = (said) => void heard.push(textOf(said));
  return { heard, onMessage };
}
const progress = (token: unknown, done: number) =>
  `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":${JSON.stringify(token)},"progress":${done}}}`;
/** The token that a call came with. */
const tokenOf = (params: unknown) => (params as { _meta?: { progressToken?: unknown } })._meta?.progressToken;

test("two callers with the same id and the same token at once each hear and get what is theirs", async (t) => {
  const both = Promise.withResolvers<void>();
  let calls = 0;
  const tool: Handler = async ({ params, notify }) => {
    notify(progress(tokenOf(params), 1));
    if (++calls === 2) both.resolve();
    await both.promise;
    const { who } = params.arguments as { who: string };
    notify(progress(tokenOf(params), who === "a" ? 10 : 20));
    return textResult(who);
  };
  const { server, leg } = await setUp(t, { calls: { tool } });
  const callers = ["a", "b"].map((who) => {
    const { heard, onMessage } = listening();
    const message = callOf(
      `{"name":"tool","arguments":{"who":"${who}"},"_meta":{${envelope},"progressToken":"t\\u00e9"}}`,
      '"same\\/id"',
    );
    return { who, heard, answer: leg.request(message, { signal: never, onMessage }) };
  });
  for (const { who, heard, answer } of callers) {
    assert.equal(
      textOf(await answer),
      `{"jsonrpc":"2.0","id":"same\\/id","result":{"content":[{"type":"text","text":"${who}"}],"resultType":"complete"}}`,
    );
    assert.deepEqual(
      heard,
      [1, who === "a" ? 10 : 20].map(
        (done) => `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t\\u00e9","progress":${done}}}`,
      ),
    );
  }
  const sent = server.requests.flatMap(({ message }) => (message?.method === "tools/call" ? [message] : []));
  assert.equal(new Set(sent.map(({ id }) => id)).size, 2, "the server is asked under different ids");
  assert.equal(new Set(sent.map(({ params }) => tokenOf(params))).size, 2, "and different tokens");
});

test("ids and tokens come back as they were spelled", async (t) => {
  const tool: Handler = ({ params, notify }) => {
    notify(progress(tokenOf(params), 1));
    return textResult("done");
  };
  const { leg } = await setUp(t, { calls: { tool } });
  for (const spelled of ["1", "1.0", "-0", "9007199254740993", '"\\u0061"', '""', '"1"']) {
    const { heard, onMessage } = listening();
    const message = callOf(`{"name":"tool","_meta":{${envelope},"progressToken":${spelled}}}`, spelled);
    const answer = await leg.request(message, { signal: never, onMessage });
    assert.ok(textOf(answer).startsWith(`{"jsonrpc":"2.0","id":${spelled},"result":`), spelled);
    assert.deepEqual(heard, [
      `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":${spelled},"progress":1}}`,
    ]);
  }
});

for (const [what, meta, wanted] of [
  ["under another token", ',"progressToken":"mine"', 1],
  ["when it gave no token", "", 0],
] as const)
  test(`a caller hears of no progress ${what}`, async (t) => {
    const tool: Handler = ({ params, notify }) => {
      for (const token of [tokenOf(params) ?? "x", "mine", 1_000_000, "1"]) notify(progress(token, 1));
      notify('{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}');
      return textResult("done");
    };
    const { leg } = await setUp(t, { calls: { tool } });
    const { heard, onMessage } = listening();
    await leg.request(callOf(`{"name":"tool","_meta":{${envelope}${meta}}}`), { signal: never, onMessage });
    assert.equal(heard.length, wanted);
  });

test("the server gets the call without what belongs to the other era, and otherwise as it was written", async (t) => {
  const { server, leg } = await setUp(t, { calls: { tool: () => textResult("done") } });
  const sent = `{ "name":"tool" ,"arguments":{"n":9007199254740993,"requestState":1},"inputResponses":{},"_meta":{${envelope}, "a/b":1.0},"requestState":"s"}`;
  await leg.request(callOf(sent), { signal: never });
  assert.equal(
    server.bodies("tools/call")[0],
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{ "name":"tool" ,"arguments":{"n":9007199254740993,"requestState":1},"_meta":{"a/b":1.0}}}',
  );
});

test("what the server says and asks meanwhile is handed on as it is", async (t) => {
  const said = [
    '{"jsonrpc":"2.0","id":"q\\u0031","method":"roots/list"}',
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}}',
    '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q1"}}',
  ];
  const tool: Handler = ({ notify }) => {
    for (const one of said) notify(one);
    return textResult("done");
  };
  const { leg } = await setUp(t, { calls: { tool } });
  const { heard, onMessage } = listening();
  await leg.request(callOf(`{"name":"tool","_meta":{${envelope},"progressToken":1}}`), { signal: never, onMessage });
  assert.deepEqual(heard, said);
});

const reads: [what: string, answer: Handler, wanted: string][] = [
  [
    "a resource",
    () => '{"contents":[{"uri":"x:1","text":"","n":1.0}]}',
    '"result":{"contents":[{"uri":"x:1","text":"","n":1.0}],"resultType":"complete","ttlMs":0,"cacheScope":"private"}',
  ],
  ["nothing", () => '{"contents":[]}', '"error":{"code":-32602,"message":"resource not found","data":{"uri":"x:1"}}'],
  [
    "that there is no such resource",
    () => rawError('{"code":-32002,"message":"Resource not found"}'),
    '"error":{"code":-32602,"message":"Resource not found","data":{"uri":"x:1"}}',
  ],
];
for (const [what, answer, wanted] of reads)
  test(`a read that gives ${what} is answered in words of the caller's era`, async (t) => {
    const { leg } = await setUp(t, { reads: { "x:1": answer } });
    const read = callOf(`{"uri":"x:1","_meta":{${envelope}}}`, "1", "resources/read");
    assert.equal(textOf(await leg.request(read, { signal: never })), `{"jsonrpc":"2.0","id":1,${wanted}}`);
  });

test("a call that is given up is cancelled under the id that the server knows", async (t) => {
  const { server, leg } = await setUp(t, {
    calls: { quick: () => textResult("done"), hang: () => new Promise(() => undefined) },
  });
  await leg.request(callOf('{"name":"quick"}', '"a"'), { signal: never });
  const patience = new AbortController();
  const hanging = leg.request(callOf('{"name":"hang"}', '"a"'), { signal: patience.signal });
  await eventually("the call", () => server.bodies("tools/call").length === 2);
  patience.abort(new Error("enough"));
  await assert.rejects(hanging, /enough/);
  await eventually("the cancellation", () => server.bodies("notifications/cancelled").length === 1);
  assert.deepEqual(JSON.parse(server.bodies("notifications/cancelled")[0] as string).params, { requestId: 2 });
});

test("everything else is the session's own", async (t) => {
  const { server, session, leg } = await setUp(t, {});
  assert.equal(leg.facts, session.facts);
  assert.equal(leg.isShared, session.isShared);
  const answer = '{"jsonrpc":"2.0","id":"q1","result":{"n":1.0}}';
  await leg.notify(Buffer.from(answer), never);
  assert.ok(server.requests.some(({ body }) => body === answer));
  const { heard, onMessage } = listening();
  const stop = new AbortController();
  const listens = leg.listen(onMessage, { signal: stop.signal });
  await eventually("a stream", () => server.streams() === 1);
  server.announce("tools");
  await eventually("the news", () => heard.length === 1);
  stop.abort();
  await assert.rejects(listens);
  assert.equal(leg.closedBy, undefined);
  await leg.close();
  assert.equal(leg.closedBy, session.closedBy);
  assert.ok(leg.closedBy);
  assert.deepEqual(server.sessions(), []);
});
