// What a client without sessions is told, and what a server hears of it, when both are of different eras, or of the same: results,
// errors, notices, and the end of a call. Raw messages, where eras.test.ts tells one story by the SDK's clients.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { askInSession, kinds } from "../support/asking-tools.ts";
import { type Backend, type Handler, plainTool, rawError, startBackend, textResult } from "../support/backend.ts";
import { openClient } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Served, serve } from "../support/serve.ts";
import {
  completeText,
  type StatelessBackend,
  startStatelessBackend,
  rawError as statelessError,
} from "../support/stateless-backend.ts";
import { able, ask, callTool, openAsk, type RpcResult } from "../support/stateless-client.ts";

const stack = new AsyncDisposableStack();
const isOver = new AbortController();
let stateless: StatelessBackend;
let sessionful: Backend;
let vmcp: Served;
let visits = 0;

const missing = "note://gone";
const empty = "note://empty";
const note = (era: string) => `note://${era}`;
const resource = (uri: string) => `{"uri":"${uri}","name":"n"}`;
const contents = (era: string) => `"contents":[{"uri":"${note(era)}","text":"read"}]`;
const tools = ["ask", "talk", "endless", "old_error", "demand"].map((name) => plainTool(name));
const arraySchema = `{"type":"array","items":{"$ref":"#/$defs/one"},"$defs":{"one":{"type":"integer"}}}`;
const listed = {
  listing: `{"name":"listing","description":"ä","inputSchema":{"type":"object"},"outputSchema":${arraySchema},"x":1.0}`,
  saying: `{"name":"saying","inputSchema":{"type":"object"},"outputSchema":{"type":["string","null"]}}`,
};
const structured = {
  listing: `{"resultType":"complete","content":[],"structuredContent":[1, 2,3],"x":1.0}`,
  saying: `{"resultType":"complete","content":[],"structuredContent":null}`,
};
const talk: Handler = ({ params, notify }) => {
  const { progressToken } = (params._meta ?? {}) as { progressToken?: unknown };
  const say = (method: string, given: object) => notify(JSON.stringify({ jsonrpc: "2.0", method, params: given }));
  if (progressToken !== undefined) for (const progress of [1, 2]) say("notifications/progress", { progressToken, progress });
  for (const level of ["debug", "info", "error"]) say("notifications/message", { level, data: level });
  return textResult("said");
};
const firstStep = ({ _meta }: Readonly<Record<string, unknown>>) => {
  const { progressToken } = _meta as { progressToken: unknown };
  return JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params: { progressToken, progress: 1 } });
};
const endless: Handler = ({ params, notify }) => {
  notify(firstStep(params));
  return new Promise(() => undefined);
};
const visitFirst: Handler = () => {
  const elicitation = { mode: "url", url: "https://example.com/visit", message: "visit", elicitationId: "e-1" };
  const asked = { code: -32042, message: "visit first", data: { elicitations: [elicitation] } };
  return ++visits % 2 === 1 ? rawError(JSON.stringify(asked)) : textResult("visited");
};

before(async () => {
  sessionful = stack.use(
    await startBackend({
      tools: [...tools, plainTool("visit")],
      resources: [resource(note("session")), resource(missing), resource(empty)],
      prompts: [`{"name":"p"}`],
      reads: { [note("session")]: () => `{${contents("session")}}`, [empty]: () => `{"contents":[]}` },
      gets: { p: () => `{"messages":[]}` },
      calls: {
        ...{ ask: askInSession(() => sessionful, isOver.signal), talk, endless, visit: visitFirst },
        old_error: () => rawError(`{"code":-32002,"message":"no such thing"}`),
        demand: () => rawError(`{"code":-32021,"message":"mine","data":{"requiredCapabilities":{"sampling":{}}}}`),
      },
    }),
  );
  stateless = stack.use(
    await startStatelessBackend({
      tools: [...tools, ...Object.values(listed)],
      resources: [resource(note("stateless")), resource("note://old"), resource("note://none")],
      prompts: [`{"name":"p"}`],
      reads: {
        [note("stateless")]: () => `{"resultType":"complete","ttlMs":7,"cacheScope":"public",${contents("stateless")}}`,
        "note://old": () => statelessError(`{"code":-32002,"message":"Resource not found"}`),
      },
      gets: { p: () => `{"resultType":"complete","messages":[]}` },
      calls: {
        talk: (call) => `{"resultType":"complete",${String(talk({ ...call, session: new Map() })).slice(1)}`,
        endless: ({ params, notify, signal }) => {
          notify(firstStep(params));
          return new Promise((resolve) => signal.addEventListener("abort", () => resolve("{}"), { once: true }));
        },
        old_error: () => statelessError(`{"code":-32042,"message":"visit","data":{"elicitations":[]}}`),
        demand: ({ params }) => {
          const { required: requiredCapabilities } = params.arguments as { required: object };
          const data = { requiredCapabilities, odd: "é" };
          return statelessError(JSON.stringify({ code: -32021, message: "needs more", data }), 400);
        },
        ask: () => completeText("nothing to ask"),
        listing: () => structured.listing,
        saying: () => structured.saying,
      },
    }),
  );
  vmcp = stack.use(await serve({ backends: [httpBackend("m", stateless.url), httpBackend("s", sessionful.url)] }));
});
after(() => {
  isOver.abort();
  return stack.disposeAsync();
});

const backends = { s: "session", m: "stateless" } as const;

test("every result says what it is, and lists and resources how long they hold and for whom", async () => {
  const requests: (readonly [string, object])[] = [
    ["server/discover", {}],
    ["tools/list", {}],
    ["prompts/list", {}],
    ["resources/list", {}],
    ["resources/templates/list", {}],
    ...Object.entries(backends).flatMap(([name, era]): [string, object][] => [
      ["tools/call", { name: `${name}_talk` }],
      ["resources/read", { uri: note(era) }],
      ["prompts/get", { name: `${name}_p` }],
      ["completion/complete", { ref: { type: "ref/prompt", name: `${name}_p` }, argument: { name: "a", value: "" } }],
    ]),
  ];
  for (const [method, params] of requests) {
    const { result, error, body } = await ask(vmcp.url, method, params);
    if (method === "completion/complete" && error) continue; // the session server here completes nothing, and says so
    assert.equal(result.resultType, "complete", `${method} ${body}`);
    const isKept = /list$|discover|read/.test(method);
    assert.equal(typeof result.ttlMs, isKept ? "number" : "undefined", `${method} ${body}`);
    if (isKept) assert.ok(["private", "public"].includes(String(result.cacheScope)), body);
  }
  const { result } = await ask(vmcp.url, "resources/read", { uri: note("stateless") });
  assert.deepEqual([result.ttlMs, result.cacheScope], [7, "public"]);
  const { result: old } = await ask(vmcp.url, "resources/read", { uri: note("session") });
  assert.deepEqual([old.ttlMs, old.cacheScope], [0, "private"]);
});

test("discover names the gateway, and offers what some server has", async () => {
  const { result } = await ask(vmcp.url, "server/discover");
  const meta = result._meta as Record<string, { name: string; version: string }>;
  const { name, version } = meta["io.modelcontextprotocol/serverInfo"] ?? {};
  assert.deepEqual([name, typeof version], ["test", "string"]);
  const { tools, prompts, resources, completions, logging } = result.capabilities as Record<string, unknown>;
  assert.deepEqual([tools, prompts], [{ listChanged: true }, { listChanged: true }]);
  assert.deepEqual([resources, completions, logging], [{ subscribe: true, listChanged: true }, {}, {}]);
  assert.ok(!("tasks" in (result.capabilities as object)));
});

test("a list of two servers holds as long as the part that holds shortest, and is for all only when both are", async () => {
  await using one = await startStatelessBackend({ tools, ttlMs: "60000", cacheScope: `"public"` });
  await using two = await startStatelessBackend({ tools, ttlMs: "5000", cacheScope: `"public"` });
  await using both = await serve({ backends: [httpBackend("one", one.url), httpBackend("two", two.url)] });
  const caching = async ({ capabilities = {} } = {}) => {
    const { ttlMs, cacheScope } = (await ask(both.url, "tools/list", {}, { capabilities })).result;
    return [ttlMs, cacheScope];
  };
  assert.deepEqual(await caching(), [5000, "public"]);
  assert.deepEqual(await caching({ capabilities: able }), [5000, "public"], "as long as the list is the same for all");
  await eventually("the gateway listens", () => two.listens().length > 0);
  for (const [ttlMs, cacheScope, wanted] of [
    ["70000", `"private"`, [60_000, "private"]],
    ["-5", `"public"`, [0, "public"]],
    ["3000", `"public"`, [3000, "public"]],
  ] as const) {
    two.set({ ttlMs, cacheScope });
    two.announce("tools");
    await eventually(`ttlMs ${ttlMs}, ${cacheScope}`, async () => JSON.stringify(await caching()) === JSON.stringify(wanted));
  }
});

test("a capability that the client lacks is asked for with HTTP 400; one that it has is no business of its own", async () => {
  const demand = (required: object, capabilities: object) =>
    callTool(vmcp.url, "m_demand", { required }, { id: `"d"`, capabilities });
  for (const [required, capabilities] of [
    [{ sampling: {} }, {}],
    [{ sampling: { tools: {} } }, { sampling: {} }],
    [{ elicitation: { url: {} } }, { elicitation: { form: {} } }],
    [{ sampling: {}, roots: {} }, { sampling: {} }],
  ] as const) {
    const { status, error, id, body } = await demand(required, capabilities);
    assert.deepEqual([status, error?.code, id], [400, -32021, "d"], body);
    assert.deepEqual(error?.data, { requiredCapabilities: required, odd: "é" });
  }
  for (const [required, capabilities] of [
    [{ sampling: {} }, { sampling: {} }],
    [{ elicitation: { url: {} } }, able],
    [{}, {}],
  ] as const) {
    const { status, error, id, body } = await demand(required, capabilities);
    assert.deepEqual([status, error?.code, id], [200, -32603, "d"], body);
  }
  await using sdk = await openClient(vmcp.url);
  const { isError } = await sdk.client.callTool({ name: "m_demand", arguments: { required: { sampling: {} } } });
  assert.equal(isError, true, "a client with a session hears of it from the tool");
});

test("a resource that is missing, in the words of the client's era", async () => {
  for (const uri of [missing, empty, "note://none"]) {
    const { status, error, body } = await ask(vmcp.url, "resources/read", { uri });
    assert.deepEqual([status, error?.code, error?.data?.uri], [200, -32602, uri], body);
  }
  await using sdk = await openClient(vmcp.url);
  for (const uri of [missing, "note://none"]) await assert.rejects(sdk.client.readResource({ uri }), { code: -32002 });
});

for (const name of Object.keys(backends)) {
  test(`codes that the era gave up reach no client of it, not even from "${name}" where they make no sense`, async () => {
    const { error, body } = await callTool(vmcp.url, `${name}_old_error`, {}, { capabilities: able });
    assert.ok(error && ![-32002, -32042].includes(error.code), body);
    if (name === "s") return;
    const read = await ask(vmcp.url, "resources/read", { uri: "note://old" });
    assert.deepEqual([read.error?.code, read.error?.data?.uri], [-32602, "note://old"], read.body);
  });
}

test("a code of the other era that a session server made up for itself is no word about the client", async () => {
  const { status, error } = await callTool(vmcp.url, "s_demand", {}, { capabilities: able });
  assert.deepEqual([status, error?.code], [200, -32603]);
});

test("a URL to visit first comes as a question; the call is made again by whoever has been there", async () => {
  const asked = await callTool(vmcp.url, "s_visit", {}, { capabilities: able });
  assert.equal(asked.result.resultType, "input_required", asked.body);
  const [key = "", question] = Object.entries(asked.result.inputRequests ?? {})[0] ?? [];
  assert.equal(question?.method, "elicitation/create");
  const { mode, url, message, elicitationId } = question?.params ?? {};
  assert.deepEqual([mode, url, message, elicitationId], ["url", "https://example.com/visit", "visit", undefined]);
  const inputResponses = { [key]: { action: "accept" } };
  const { requestState } = asked.result;
  const params = { name: "s_visit", arguments: {}, inputResponses, ...(requestState === undefined ? {} : { requestState }) };
  const done = await ask(vmcp.url, "tools/call", params, { capabilities: able });
  assert.equal(done.text, "visited", done.body);
  const { params: sent } = JSON.parse(sessionful.bodies("tools/call").at(-1) ?? "{}") as { params: object };
  assert.deepEqual(sent, { name: "visit", arguments: {} }, "the server of the other era sees a plain call");
});

test("a URL to visit first is a missing capability for those who can't", async () => {
  const { status, error, body } = await callTool(vmcp.url, "s_visit", {}, { capabilities: { elicitation: {} } });
  visits++; // so that the next one is the first again
  assert.deepEqual([status, error?.code], [400, -32021], body);
  assert.deepEqual(error?.data?.requiredCapabilities, { elicitation: { url: {} } });
});

test("a server of the session era is told of nothing that the client can't do, and its questions for that are refused", async () => {
  const rounds = [{ a: kinds.sampling.question }];
  const { text, body } = await callTool(vmcp.url, "s_ask", { rounds }, { capabilities: { elicitation: {} } });
  assert.equal((JSON.parse(text) as { error: { code: number } }[])[0]?.error.code, -32601, body);
  const declared = sessionful.bodies("initialize").map((one) => JSON.parse(one).params.capabilities as object);
  assert.ok(
    declared.some((one) => JSON.stringify(one) === `{"elicitation":{"form":{}}}`),
    JSON.stringify(declared),
  );
});

for (const [name, era] of Object.entries(backends)) {
  const heard = async (meta: object) => {
    const { messages } = await callTool(vmcp.url, `${name}_talk`, {}, { id: `"x"`, meta });
    return messages.map((message) => JSON.parse(message) as { method?: string; params?: Record<string, unknown> });
  };
  const levels = async (level?: string) => {
    const said = await heard(level === undefined ? {} : { "io.modelcontextprotocol/logLevel": level });
    return said.filter(({ method }) => method === "notifications/message").map(({ params }) => params?.level);
  };

  test(`a ${era} server's log reaches a call that asks for it, from the level on`, async () => {
    assert.deepEqual(await levels(), []);
    assert.deepEqual(await levels("warning"), ["error"]);
    assert.deepEqual(await levels("debug"), ["debug", "info", "error"]);
    assert.deepEqual(await levels("info"), ["info", "error"], "what another call asked for changes nothing");
    assert.deepEqual(await levels(), []);
    if (era === "session") assert.match(sessionful.bodies("logging/setLevel").at(-1) ?? "", /"debug"/);
    else {
      const meta = stateless.received("tools/call").at(-2)?.message?.params._meta as Record<string, unknown>;
      assert.equal(meta["io.modelcontextprotocol/logLevel"], "info");
    }
  });

  test(`a ${era} server's progress comes under the token of the call, as it was written`, async () => {
    for (const token of ["ü-1", 7, 9007199254740991]) {
      const said = await heard({ progressToken: token });
      const steps = said.filter(({ method }) => method === "notifications/progress").map(({ params }) => params);
      assert.deepEqual(
        steps.map((step) => [step?.progressToken, step?.progress]),
        [
          [token, 1],
          [token, 2],
        ],
      );
    }
    assert.ok((await heard({})).every(({ method }) => method !== "notifications/progress"));
    const together = await Promise.all([1, 2, 3].map((token) => heard({ progressToken: token })));
    for (const [i, said] of together.entries())
      assert.ok(said.every(({ params }) => params?.progressToken === undefined || params.progressToken === i + 1));
  });

  test(`a client that goes away ends its call to a ${era} server, and no other`, async () => {
    const cancellations = () => sessionful.bodies("notifications/cancelled");
    const aborted = () => stateless.received("tools/call").filter((one) => one.aborted).length;
    const before = [cancellations().length, aborted()];
    const [going, staying] = await Promise.all(
      ["going", "staying"].map((id) =>
        openAsk(
          vmcp.url,
          "tools/call",
          { name: `${name}_endless`, arguments: { id } },
          { id: `"${id}"`, meta: { progressToken: "t" } },
        ),
      ),
    );
    await using kept = staying as NonNullable<typeof staying>;
    going?.abort();
    await eventually("the server hears of it", () =>
      era === "session" ? cancellations().length > (before[0] ?? 0) : aborted() > (before[1] ?? 0),
    );
    if (era === "session") {
      const calls = sessionful.bodies("tools/call").map((body) => JSON.parse(body));
      const cancelled = JSON.parse(cancellations().at(-1) ?? "{}").params.requestId as unknown;
      assert.equal(calls.findLast(({ id }) => id === cancelled)?.params.arguments.id, "going");
      assert.equal(cancellations().length, (before[0] ?? 0) + 1);
    } else assert.equal(aborted(), (before[1] ?? 0) + 1);
    assert.equal((await callTool(vmcp.url, `${name}_ask`, { rounds: [] })).error, undefined);
    assert.ok(kept.messages.every(({ result, error }) => !result && !error));
  });
}

test("output that is no object reaches a client of the stateless era as it is, and one with a session in an object", async () => {
  const { body } = await ask(vmcp.url, "tools/list");
  for (const [name, text] of Object.entries(listed)) {
    const renamed = text.replace(`"name":"${name}"`, `"name":"m_${name}"`);
    assert.ok(body.includes(renamed), `${body}\nlacks\n${renamed}`);
  }
  for (const [name, text] of Object.entries(structured)) {
    const answer = await callTool(vmcp.url, `m_${name}`);
    assert.ok(answer.body.includes(text), answer.body);
  }
  await using sdk = await openClient(vmcp.url);
  const { tools: seen } = await sdk.client.listTools(); // learns the schemas, and checks results against them
  assert.equal(seen.find(({ name }) => name === "m_listing")?.outputSchema?.type, "object");
  const listing = await sdk.client.callTool({ name: "m_listing", arguments: {} });
  assert.deepEqual(listing.structuredContent, { result: [1, 2, 3] });
  const saying = await sdk.client.callTool({ name: "m_saying", arguments: {} });
  assert.deepEqual(saying.structuredContent, { result: null });
  assert.ok(!("resultType" in (listing as RpcResult)));
});
