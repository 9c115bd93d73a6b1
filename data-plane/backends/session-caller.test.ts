import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { plainTool } from "../../test/support/backend.ts";
import { eventually } from "../../test/support/eventually.ts";
import {
  completeText,
  rawError,
  type StatelessHandler,
  type StatelessScript,
  startStatelessBackend,
} from "../../test/support/stateless-backend.ts";
import { errorResponse, type Message, readMessage, request, resultResponse } from "../mcp/json-rpc.ts";
import { metaKeys } from "../mcp/stateless.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { BackendError } from "./errors.ts";
import { createHttpEndpoint } from "./http-endpoint.ts";
import type { ClientFacts, Hear, Leg } from "./leg.ts";
import { forSessionCaller } from "./session-caller.ts";

const log = pino({ level: "silent" });
const never = new AbortController().signal;
const able =
  '{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{"listChanged":true},"experimental":{"x":1.0},"tasks":{"list":{}},"extensions":{"a/b":{}}}';

/** A scripted server of the stateless era, as a client with a session uses it. */
async function setUp(t: TestContext, script: StatelessScript, capabilities = able) {
  const tools = Object.keys(script.calls ?? {}).map((name) => plainTool(name));
  const server = await startStatelessBackend({ tools, ...script });
  const endpoint = createHttpEndpoint({ url: server.url, credential: sameForAll([]), log });
  const client: ClientFacts = {
    protocolVersion: "2025-11-25",
    clientInfo: '{"name":"c","version":"1.0","n":9007199254740993}',
    capabilities,
  };
  const wire = await endpoint.openLeg(client, never);
  t.after(async () => {
    await endpoint.close();
    await server[Symbol.asyncDispose]();
  });
  const leg = forSessionCaller(wire, client);
  const bodies = (method: string) => server.received(method).map(({ body }) => body);
  return { server, wire, leg, bodies };
}

const callOf = (params: string, id = "1", method = "tools/call") => readMessage(request(method, params, id));
const theTool = callOf('{"name":"tool","arguments":{"n":9007199254740993}}');
const textOf = ({ json }: Message) => json.toString();
const metaOf = (body: string | undefined) => JSON.parse(body ?? "").params._meta as Record<string, unknown>;
const paramsOf = (body: string | undefined) => JSON.parse(body ?? "").params as Record<string, unknown>;

type Reply = (question: Message) => Buffer;
const accept: Reply = ({ id }) => resultResponse(id as string, '{"action":"accept","content":{"n":9007199254740993}}');
const deny: Reply = ({ id }) => errorResponse(id, { code: -1, message: "not now" });

/** A client that notes what it is asked, and answers as it is told to, if at all. */
function answering(leg: () => Leg, reply: Reply | "nothing" = accept) {
  const asked: Message[] = [];
  const told: Message[] = [];
  const onMessage: Hear = (said) => {
    if (said.method === undefined || said.id === undefined) told.push(said);
    else {
      asked.push(said);
      if (reply !== "nothing") void leg().notify(reply(said), never);
    }
    return undefined;
  };
  return { asked, told, onMessage };
}

const form = '{"method":"elicitation/create","params":{"message":"?","requestedSchema":{"type":"object"}}}';
const needs = (inputRequests: string, state?: string) =>
  `{"resultType":"input_required","inputRequests":${inputRequests}${state === undefined ? "" : `,"requestState":${state}`}}`;
/** A tool that answers these in turn; the last one stays. */
const inTurn = (...answers: readonly (string | ReturnType<typeof rawError>)[]): StatelessHandler => {
  let calls = 0;
  return () => answers[Math.min(calls++, answers.length - 1)] as string;
};
const badAnswer = (thrown: unknown) => {
  assert.ok(thrown instanceof BackendError, `${thrown}`);
  assert.equal(thrown.code, "bad_answer");
  return true;
};

test("the server learns what the client can do, without what its era has not, and who it is", async (t) => {
  const { leg, bodies } = await setUp(t, { calls: { tool: () => completeText("done") } });
  await leg.request(theTool, { signal: never });
  assert.deepEqual(metaOf(bodies("tools/call")[0]), {
    [metaKeys.protocolVersion]: "2026-07-28",
    [metaKeys.clientCapabilities]: {
      elicitation: { form: {}, url: {} },
      sampling: { tools: {} },
      roots: {},
      experimental: { x: 1 },
    },
    [metaKeys.clientInfo]: JSON.parse('{"name":"c","version":"1.0","n":9007199254740993}'),
    [metaKeys.logLevel]: "info",
  });
  assert.ok(bodies("tools/call")[0]?.includes('{"name":"c","version":"1.0","n":9007199254740993}'));
});

test("a client that can do nothing is said to", async (t) => {
  const { leg, bodies } = await setUp(t, { calls: { tool: () => completeText("done") } }, "{}");
  await leg.request(theTool, { signal: never });
  assert.deepEqual(metaOf(bodies("tools/call")[0])[metaKeys.clientCapabilities], {});
});

test("a call keeps its bytes and its own _meta, and gets its answer in words of its era", async (t) => {
  const { leg, bodies } = await setUp(t, {
    calls: {
      tool: () => `{"resultType":"complete","content":[],"n":9007199254740993,"_meta":{"${metaKeys.serverInfo}":{"name":"s"}}}`,
    },
  });
  const answer = await leg.request(
    callOf('{ "name":"tool","arguments":{"n":9007199254740993},"_meta":{"progressToken":1.0}}', '"\\u0061"'),
    {
      signal: never,
    },
  );
  assert.equal(textOf(answer), '{"jsonrpc":"2.0","id":"\\u0061","result":{"content":[],"n":9007199254740993}}');
  assert.match(
    bodies("tools/call")[0] ?? "",
    /\{ "name":"tool","arguments":\{"n":9007199254740993\},"_meta":\{"progressToken":1\.0,/,
  );
});

test("the level of the log goes with every call, and the server is not asked to set it", async (t) => {
  const { leg, bodies } = await setUp(t, { calls: { tool: () => completeText("done") } });
  const levels: unknown[] = [];
  for (const level of ['"debug"', '"err\\u006fr"']) {
    const answer = await leg.request(callOf(`{"level":${level}}`, '"l"', "logging/setLevel"), { signal: never });
    assert.equal(textOf(answer), '{"jsonrpc":"2.0","id":"l","result":{}}');
    await leg.request(theTool, { signal: never });
    levels.push(metaOf(bodies("tools/call").at(-1))[metaKeys.logLevel]);
  }
  assert.deepEqual(levels, ["debug", "error"]);
  assert.deepEqual(bodies("logging/setLevel"), []);
});

test("what the server asks for is asked, and the call is made again with the answers and the exact state", async (t) => {
  const questions = `{"a" : {"params":{"message":"\\u00e9","n":9007199254740993} ,"method":"elicitation\\/create"},"b":{"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1.0}},"c":{"method":"roots/list"}}`;
  const state = '"\\u0061\\/\\"\\\\ é\\ud83d 9007199254740993"';
  let leg = undefined as unknown as Leg;
  const { bodies, ...rest } = await setUp(t, { calls: { tool: inTurn(needs(questions, state), completeText("done")) } });
  leg = rest.leg;
  const { asked, onMessage } = answering(() => leg);
  const answer = await leg.request(theTool, { signal: never, onMessage });
  assert.equal(textOf(answer), '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}');
  const spelled = (message: Message) => message.params && message.json.toString("utf8", message.params.start, message.params.end);
  assert.deepEqual(
    asked.map((question) => [question.method, spelled(question)]),
    [
      ["elicitation/create", '{"message":"\\u00e9","n":9007199254740993}'],
      ["sampling/createMessage", '{"messages":[],"maxTokens":1.0}'],
      ["roots/list", undefined],
    ],
  );
  const again = bodies("tools/call")[1] ?? "";
  const given = '{"action":"accept","content":{"n":9007199254740993}}';
  assert.ok(again.includes(`"inputResponses":{"a":${given},"b":${given},"c":${given}}`), again);
  assert.ok(again.includes(`"requestState":${state}`), again);
  const { inputResponses: _responses, requestState: _state, ...same } = paramsOf(again);
  assert.deepEqual(same, paramsOf(bodies("tools/call")[0]));
  assert.ok(again.includes('"arguments":{"n":9007199254740993}'));
});

test("a call that is made again is another request, with another id", async (t) => {
  let leg = undefined as unknown as Leg;
  const { server, ...rest } = await setUp(t, {
    calls: { tool: inTurn(needs(`{"a":${form}}`), needs("{}", '"s"'), completeText("done")) },
  });
  leg = rest.leg;
  const answer = await leg.request(theTool, { signal: never, ...answering(() => leg) });
  assert.match(textOf(answer), /"id":1,/);
  assert.equal(new Set(server.received("tools/call").map(({ message }) => message?.id)).size, 3);
});

const keys: [what: string, spelled: string][] = [
  ["__proto__", '"__proto__"'],
  ["constructor", '"constructor"'],
  ["nothing", '""'],
  ["half an emoji", '"\\ud83d"'],
  ["escapes", '"\\u0061\\"\\\\\\/\\n\\u0000"'],
  ["a number, which JavaScript would move to the front", '"7"'],
];
for (const [what, spelled] of keys)
  test(`an answer comes back under its key, even when that is ${what}`, async (t) => {
    let leg = undefined as unknown as Leg;
    const { bodies, ...rest } = await setUp(t, {
      calls: { tool: inTurn(needs(`{"first":${form},${spelled}:${form}}`), completeText("done")) },
    });
    leg = rest.leg;
    const { asked, onMessage } = answering(
      () => leg,
      ({ id }) => resultResponse(id as string, `{"action":"accept","content":{"q":${id}}}`),
    );
    await leg.request(theTool, { signal: never, onMessage });
    const responses = paramsOf(bodies("tools/call")[1]).inputResponses as Record<string, { content: { q: string } }>;
    const answers = new Map(Object.entries(responses).map(([key, { content }]) => [key, content.q]));
    assert.deepEqual(answers, new Map(["first", JSON.parse(spelled)].map((key, i) => [key, JSON.parse(asked[i]?.id ?? "")])));
  });

test("each round has its own questions and state; what one round had is not sent in the next", async (t) => {
  let leg = undefined as unknown as Leg;
  const { bodies, ...rest } = await setUp(t, {
    calls: { tool: inTurn(needs(`{"a":${form}}`, '"s1"'), needs(`{"b":${form}}`), needs("{}", '"s3"'), completeText("done")) },
  });
  leg = rest.leg;
  await leg.request(theTool, { signal: never, ...answering(() => leg) });
  const rounds = bodies("tools/call").map((body) => {
    const { inputResponses, requestState } = paramsOf(body);
    return [inputResponses && Object.keys(inputResponses), requestState];
  });
  assert.deepEqual(rounds, [
    [undefined, undefined],
    [["a"], "s1"],
    [["b"], undefined],
    [undefined, "s3"],
  ]);
});

test("a server that needs nothing but another call gets it after a moment, more often than it may ask", async (t) => {
  const pauses = 3;
  const { leg, bodies } = await setUp(t, {
    calls: {
      tool: inTurn(
        ...Array.from({ length: pauses }, (_, i) => `{"resultType":"input_required","requestState":"s${i}"}`),
        completeText("done"),
      ),
    },
  });
  const startedMs = performance.now();
  assert.match(textOf(await leg.request(theTool, { signal: never })), /done/);
  assert.ok(performance.now() - startedMs >= pauses * 200);
  assert.deepEqual(
    bodies("tools/call").map((body) => paramsOf(body).requestState),
    [undefined, "s0", "s1", "s2"],
  );
});

test("a call that is given up between two rounds is not made again", async (t) => {
  const { leg, bodies } = await setUp(t, { calls: { tool: () => '{"resultType":"input_required","requestState":"s"}' } });
  const patience = new AbortController();
  const pending = leg.request(theTool, { signal: patience.signal });
  await eventually("a round", () => bodies("tools/call").length === 1);
  const reason = new Error("enough");
  patience.abort(reason);
  await assert.rejects(pending, reason);
  assert.equal(bodies("tools/call").length, 1);
});

test("a call that fails in a later round has begun, so that its outcome is unknown", async (t) => {
  const { server, leg, bodies } = await setUp(t, { calls: { tool: () => '{"resultType":"input_required","requestState":"s"}' } });
  const pending = leg.request(theTool, { signal: never });
  pending.catch(() => undefined);
  await eventually("a round", () => bodies("tools/call").length === 1);
  await server.down();
  await assert.rejects(pending, { code: "unavailable", outcome: "unknown" });
  await assert.rejects(leg.request(theTool, { signal: never }), { code: "unavailable", outcome: "not_executed" });
});

test("a server that asks in ever new rounds is stopped", async (t) => {
  let leg = undefined as unknown as Leg;
  const { bodies, ...rest } = await setUp(t, { calls: { tool: () => needs(`{"a":${form}}`) } });
  leg = rest.leg;
  const { asked, onMessage } = answering(() => leg);
  await assert.rejects(leg.request(theTool, { signal: never, onMessage }), badAnswer);
  assert.equal(asked.length, 10);
  assert.equal(bodies("tools/call").length, 11);
});

const sampling = '{"method":"sampling/createMessage","params":{"messages":[]}}';
const roots = '{"method":"roots/list"}';

test("a client that answers a form with an error has cancelled it", async (t) => {
  let leg = undefined as unknown as Leg;
  const { bodies, ...rest } = await setUp(t, { calls: { tool: inTurn(needs(`{"a":${form}}`), completeText("done")) } });
  leg = rest.leg;
  assert.match(textOf(await leg.request(theTool, { signal: never, ...answering(() => leg, deny) })), /done/);
  assert.deepEqual(paramsOf(bodies("tools/call")[1]).inputResponses, { a: { action: "cancel" } });
});

for (const [what, question] of [
  ["a request to sample", sampling],
  ["the question for its roots", roots],
] as const)
  test(`a client that answers ${what} with an error ends the call: a tool's with a result, others with an error`, async (t) => {
    let leg = undefined as unknown as Leg;
    const asking = () => needs(`{"a":${question}}`);
    const { bodies, ...rest } = await setUp(t, { calls: { tool: asking }, gets: { prompt: asking }, reads: { "x:1": asking } });
    leg = rest.leg;
    const ask = async (call: Message) =>
      JSON.parse(textOf(await leg.request(call, { signal: never, ...answering(() => leg, deny) })));
    const tool = await ask(theTool);
    assert.deepEqual([tool.id, tool.result.isError, tool.result.content.length], [1, true, 1]);
    assert.match(tool.result.content[0].text, /not now/);
    assert.equal((await ask(callOf('{"name":"prompt"}', '"p"', "prompts/get"))).error.code, -32603);
    assert.equal((await ask(callOf('{"uri":"x:1"}', '"r"', "resources/read"))).error.code, -32603);
    for (const method of ["tools/call", "prompts/get", "resources/read"]) assert.equal(bodies(method).length, 1);
  });

test("a call that is given up while its client is asked ends, and the client hears that nobody waits for its answer", async (t) => {
  let leg = undefined as unknown as Leg;
  const { bodies, ...rest } = await setUp(t, { calls: { tool: () => needs(`{"a":${form},"b":${sampling}}`) } });
  leg = rest.leg;
  const patience = new AbortController();
  const { asked, told, onMessage } = answering(() => leg, "nothing");
  const pending = leg.request(theTool, { signal: patience.signal, onMessage });
  await eventually("the questions", () => asked.length === 2);
  const reason = new Error("enough");
  patience.abort(reason);
  await assert.rejects(pending, reason);
  for (const question of asked) await leg.notify(accept(question), never); // too late
  assert.equal(bodies("tools/call").length, 1);
  assert.deepEqual(
    told.map(({ method, json }) => [method, JSON.parse(json.toString()).params.requestId]),
    asked.map(({ id }) => ["notifications/cancelled", JSON.parse(id as string)]),
  );
});

test("calls that ask at once get each its own answers, and answers to nothing are nobody's", async (t) => {
  let leg = undefined as unknown as Leg;
  const tool: StatelessHandler = ({ params }) => {
    const { inputResponses } = params as { inputResponses?: { a: { content: { who: string } } } };
    const { who } = params.arguments as { who: string };
    return inputResponses
      ? completeText(`${who} ${inputResponses.a.content.who}`)
      : needs(`{"a":{"method":"elicitation/create","params":{"message":"${who}"}}}`);
  };
  const { ...rest } = await setUp(t, { calls: { tool } });
  leg = rest.leg;
  const whoAsks = ({ json, params }: Message) => params && JSON.parse(json.toString("utf8", params.start, params.end)).message;
  const { asked, onMessage } = answering(() => leg, "nothing");
  const calls = ["x", "y", "z"].map((who) =>
    leg.request(callOf(`{"name":"tool","arguments":{"who":"${who}"}}`), { signal: never, onMessage }),
  );
  await eventually("all questions", () => asked.length === 3);
  assert.equal(new Set(asked.map(({ id }) => id)).size, 3);
  for (const stray of ['"vmcp-input-999"', "1", '"vmcp-input-1x"']) await leg.notify(resultResponse(stray, "{}"), never);
  await leg.notify(request("notifications/progress", '{"progressToken":1}'), never);
  for (const question of asked.toReversed())
    await leg.notify(
      resultResponse(question.id as string, `{"action":"accept","content":{"who":"${whoAsks(question)}"}}`),
      never,
    );
  for (const [i, who] of ["x", "y", "z"].entries())
    assert.match(textOf(await (calls[i] as Promise<Message>)), new RegExp(`${who} ${who}`));
});

test("elicitation by URL gets an id of its own, and forms none", async (t) => {
  let leg = undefined as unknown as Leg;
  const visit = '{"method":"elicitation/create","params":{"mode":"url", "url":"https://a","n":1.0}}';
  const { ...rest } = await setUp(t, {
    calls: { tool: inTurn(needs(`{"a":${visit},"b":${visit},"c":${form}}`), completeText("done")) },
  });
  leg = rest.leg;
  const { asked, onMessage } = answering(() => leg);
  await leg.request(theTool, { signal: never, onMessage });
  const ids = asked.map(({ json }) => JSON.parse(json.toString()).params.elicitationId);
  assert.match(ids[0], /^[0-9a-f-]{36}$/);
  assert.notEqual(ids[0], ids[1]);
  assert.equal(ids[2], undefined);
  assert.ok(asked[0]?.json.includes('{"mode":"url", "url":"https://a","n":1.0,'));
});

test("a server that asks where nobody can be asked gave no usable answer", async (t) => {
  const { leg } = await setUp(t, { calls: { tool: () => needs(`{"a":${form}}`) } });
  await assert.rejects(leg.request(theTool, { signal: never }), badAnswer);
});

const many = (count: number) => `{${Array.from({ length: count }, (_, i) => `"k${i}":${form}`).join(",")}}`;
const hostile: [what: string, inputRequests: string][] = [
  ["an array", `[${form}]`],
  ["a text", '"elicitation/create"'],
  ["a number", "1"],
  ["null", "null"],
  ["a question that is null", '{"a":null}'],
  ["a question that is a text", '{"a":"roots/list"}'],
  ["a question that is an array", '{"a":["roots/list"]}'],
  ["a question without a method", '{"a":{"params":{}}}'],
  ["a method that is a number", '{"a":{"method":1}}'],
  ["a method that is null", '{"a":{"method":null}}'],
  ["a method that no parser reads", '{"a":{"method":tru}}'],
  ["a method that clients don't have", '{"a":{"method":"tools/call","params":{}}}'],
  ["a ping", '{"a":{"method":"ping"}}'],
  ["a method in another case", '{"a":{"method":"Roots/list"}}'],
  ["a name of an object's own", '{"a":{"method":"toString"}}'],
  ["one good and one bad question", `{"a":${form},"b":{"method":"x"}}`],
  ["parameters that no parser reads", '{"a":{"method":"elicitation/create","params":{"mode":url}}}'],
  ["a name with a bad escape", `{"\\q":${form}}`],
  ["101 questions", many(101)],
];
for (const [what, inputRequests] of hostile)
  test(`a server that asks with ${what} gave no usable answer, and nobody is asked`, async (t) => {
    let leg = undefined as unknown as Leg;
    const { bodies, ...rest } = await setUp(t, { calls: { tool: inTurn(needs(inputRequests), completeText("done")) } });
    leg = rest.leg;
    const { asked, onMessage } = answering(() => leg);
    await assert.rejects(leg.request(theTool, { signal: never, onMessage }), badAnswer);
    assert.deepEqual(asked, []);
    assert.equal(bodies("tools/call").length, 1);
  });

test("a hundred questions may be asked at once", async (t) => {
  let leg = undefined as unknown as Leg;
  const { ...rest } = await setUp(t, { calls: { tool: inTurn(needs(many(100)), completeText("done")) } });
  leg = rest.leg;
  const { asked, onMessage } = answering(() => leg);
  assert.match(textOf(await leg.request(theTool, { signal: never, onMessage })), /done/);
  assert.equal(asked.length, 100);
});

test("a key that stands twice is one question, as in JSON.parse", async (t) => {
  let leg = undefined as unknown as Leg;
  const { ...rest } = await setUp(t, { calls: { tool: inTurn(needs(`{"a":${form},"a":${roots}}`), completeText("done")) } });
  leg = rest.leg;
  const { asked, onMessage } = answering(() => leg);
  await leg.request(theTool, { signal: never, onMessage });
  assert.deepEqual(
    asked.map(({ method }) => method),
    ["roots/list"],
  );
});

for (const [code, method, call, wanted] of [
  [-32021, "tools/call", theTool, { isError: true }],
  [-32020, "prompts/get", callOf('{"name":"p"}', "1", "prompts/get"), { code: -32603 }],
] as const)
  test(`the refusal ${code} of ${method} is told in words of the client's era`, async (t) => {
    const refuse: StatelessHandler = () => rawError(`{"code":${code},"message":"why"}`, 400);
    const { leg } = await setUp(t, { calls: { tool: refuse }, gets: { p: refuse } });
    const { result, error } = JSON.parse(textOf(await leg.request(call, { signal: never })));
    for (const [key, value] of Object.entries(wanted)) assert.equal((result ?? error)[key], value);
  });
