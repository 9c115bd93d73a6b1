// As lossless.test.ts, wherever one side has no session: what a server sends is what the client gets, and the other way round,
// but for the few members that one era has and the other lacks.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Backend, type Handler, rawError, startBackend } from "../support/backend.ts";
import { mcpHeaders, openRawSession, type RawSession, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { parseExactly, readRpc } from "../support/json.ts";
import { type Served, serve } from "../support/serve.ts";
import { type StatelessBackend, startStatelessBackend, rawError as statelessError } from "../support/stateless-backend.ts";
import { able, ask, listen, openPost, statelessVersion } from "../support/stateless-client.ts";

// Members that no schema knows, numbers that a double can't hold, spellings that a parser would change.
const odd = `"x-odd":{"big":9007199254740993,"one":1.0,"huge":1e400,"minus":-0,"né":"\\u00e9☃😀","nested":[{"deep":[null,true]}]}`;
const schema = `{"type":"object","properties":{"n":{"type":"integer","maximum":18446744073709551615,${odd}}}}`;
const toolRest = `"title":"Ödd","inputSchema":${schema},"outputSchema":${schema},"_meta":{"a/b":1.0,${odd}},${odd}}`;
const toolNames = ["odd", "failing", "talking", "asking"];
const tools = toolNames.map((name) => `{"name":"${name}",${toolRest}`);
const uriOf = (era: string) => `odd://${era}/ré`;
const resourceOf = (era: string) => `{"uri":"${uriOf(era)}","name":"odd","size":9007199254740993,"_meta":{${odd}},${odd}}`;
const promptRest = `"arguments":[{"name":"a","required":true,${odd}}],"_meta":{${odd}},${odd}}`;

// Members of results, without braces.
const called = `"content":[{"type":"text","text":"t","_meta":{${odd}},${odd}},{"type":"future","of":[1.50]}],"structuredContent":{"n":18446744073709551615,"a":[1.0],${odd}},"isError":false,"_meta":{"k":1E2,${odd}},${odd}`;
const readOf = (era: string) => `"contents":[{"uri":"${uriOf(era)}","text":"☃","_meta":{${odd}},${odd}}],"_meta":{${odd}},${odd}`;
const got = `"description":"d","messages":[{"role":"user","content":{"type":"text","text":"x",${odd}},${odd}}],"_meta":{${odd}},${odd}`;
const completed = `"completion":{"values":["á"],"total":9007199254740993,"hasMore":false,${odd}},${odd}`;
const errorText = `{"code":-31999,"message":"nö","data":{"retry":9007199254740993,${odd}},${odd}}`;
const progress = (token: string) =>
  `"method":"notifications/progress","params":{"progressToken":${token},"progress":0.10,${odd}}`;
const question = `{"mode":"form","message":"é","requestedSchema":{"type":"object","properties":{"n":{"type":"number","maximum":1.50,${odd}}}},${odd}}`;
const reply = `{"action":"accept","content":{"n":9007199254740993,"f":1.0},${odd}}`;

const stack = new AsyncDisposableStack();
let stateless: StatelessBackend;
let sessionful: Backend;
let vmcp: Served;
let session: RawSession;

const tokenOf = ({ _meta }: Record<string, unknown>) => JSON.stringify((_meta as { progressToken: unknown }).progressToken);

before(async () => {
  const capabilities = { tools: {}, prompts: {}, resources: { subscribe: true }, completions: {} };
  const initialized = { protocolVersion: "2025-11-25", capabilities, serverInfo: { name: "s", version: "1" } };
  const nothing: Handler = () => "{}";
  sessionful = stack.use(
    await startBackend({
      tools,
      resources: [resourceOf("session")],
      prompts: [`{"name":"oddp",${promptRest}`],
      initialize: JSON.stringify(initialized),
      calls: {
        odd: () => `{${called}}`,
        failing: () => rawError(errorText),
        talking: ({ params, notify }) => {
          notify(`{"jsonrpc":"2.0",${progress(tokenOf(params))}}`);
          return `{${called}}`;
        },
        asking: async ({ notify }) => {
          notify(`{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":${question}}`);
          await eventually("an answer", () => sessionful.requests.some(({ message }) => message?.id === '"q"'));
          return `{${called}}`;
        },
      },
      reads: { [uriOf("session")]: () => `{${readOf("session")}}` },
      gets: { oddp: () => `{${got}}` },
      methods: {
        "completion/complete": () => `{${completed}}`,
        "resources/subscribe": nothing,
        "resources/unsubscribe": nothing,
      },
    }),
  );
  const complete = `"resultType":"complete"`;
  stateless = stack.use(
    await startStatelessBackend({
      tools,
      resources: [resourceOf("stateless")],
      prompts: [`{"name":"oddp",${promptRest}`],
      calls: {
        odd: () => `{${complete},${called}}`,
        failing: () => statelessError(errorText),
        talking: ({ params, notify }) => {
          notify(`{"jsonrpc":"2.0",${progress(tokenOf(params))}}`);
          return `{${complete},${called}}`;
        },
        asking: ({ params }) => {
          if (params.inputResponses) return `{${complete},${called}}`;
          return `{"resultType":"input_required","inputRequests":{"é":{"method":"elicitation/create","params":${question}}},${odd}}`;
        },
      },
      reads: { [uriOf("stateless")]: () => `{${complete},"ttlMs":1,"cacheScope":"private",${readOf("stateless")}}` },
      gets: { oddp: () => `{${complete},${got}}` },
      complete: () => `{${complete},${completed}}`,
    }),
  );
  vmcp = stack.use(await serve({ backends: [httpBackend("m", stateless.url), httpBackend("s", sessionful.url)] }));
  session = await openRawSession(vmcp.url);
});
after(() => stack.disposeAsync());

/** Client, prefix and era of the server. Two sessions are the business of lossless.test.ts. */
const pairs = [
  ["stateless", "m", "stateless"],
  ["stateless", "s", "session"],
  ["session", "m", "stateless"],
] as const;

/** The raw message that answers a request; `meta` has further members of `_meta`, as text. */
async function answerTo(client: string, method: string, params: string, meta = ""): Promise<string> {
  if (client === "session") return session.result(method, meta === "" ? params : `${params.slice(0, -1)},"_meta":{${meta}}}`);
  const answer = await ask(vmcp.url, method, params, { meta: envelopeWith(meta) });
  return answer.messages.at(-1) ?? "";
}

function envelopeWith(meta: string, capabilities: object = {}): string {
  const own = "io.modelcontextprotocol/";
  const said = `"${own}protocolVersion":"${statelessVersion}","${own}clientCapabilities":${JSON.stringify(capabilities)}`;
  return `{${said}${meta === "" ? "" : `,${meta}`}}`;
}

/** What a stateless answer has besides what was asked for. */
function withoutEra(message: string): unknown {
  const { result } = parseExactly(message) as { result: Record<string, unknown> };
  const { resultType: _type, ttlMs: _ttl, cacheScope: _scope, ...rest } = result;
  return rest;
}

for (const [client, prefix, era] of pairs) {
  const pair = `from a ${era} server to a ${client} client`;

  test(`lists keep every member and every spelling, ${pair}`, async () => {
    for (const [method, wanted] of [
      ["tools/list", toolNames.map((name) => `{"name":"${prefix}_${name}",${toolRest}`)],
      ["prompts/list", [`{"name":"${prefix}_oddp",${promptRest}`]],
      ["resources/list", [resourceOf(era)]],
    ] as const) {
      const answer = await answerTo(client, method, "{}");
      for (const item of wanted) assert.ok(answer.includes(item), `${answer}\nlacks\n${item}`);
    }
  });

  for (const [what, method, params, members] of [
    ["a tool's result", "tools/call", `{"name":"${prefix}_odd"}`, called],
    ["a resource", "resources/read", `{"uri":"${uriOf(era)}"}`, readOf(era)],
    ["a prompt", "prompts/get", `{"name":"${prefix}_oddp"}`, got],
    [
      "a completion",
      "completion/complete",
      `{"ref":{"type":"ref/prompt","name":"${prefix}_oddp"},"argument":{"name":"a","value":"x"}}`,
      completed,
    ],
  ] as const) {
    test(`${what} keeps its bytes ${pair}`, async () => {
      const answer = await answerTo(client, method, params);
      assert.ok(answer.includes(members), `${answer}\nlacks\n${members}`);
      assert.deepEqual(withoutEra(answer), parseExactly(`{${members}}`));
      const isMarked = /"(resultType|ttlMs|cacheScope)"/.test(answer);
      assert.equal(isMarked, client === "stateless", answer);
    });
  }

  test(`a tool's error keeps its bytes ${pair}`, async () => {
    const answer = await answerTo(client, "tools/call", `{"name":"${prefix}_failing"}`);
    assert.ok(answer.includes(`"error":${errorText}`), answer);
  });

  test(`progress keeps its numbers and its members ${pair}`, async () => {
    for (const token of ['"mé-\\u00e9"', "9007199254740993"]) {
      if (token !== '"mé-\\u00e9"' && era === "stateless") continue; // the scripted server reads its token as a double
      const { messages } =
        client === "session"
          ? await session.ask("tools/call", `{"name":"${prefix}_talking","_meta":{"progressToken":${token}}}`)
          : await ask(vmcp.url, "tools/call", `{"name":"${prefix}_talking"}`, { meta: envelopeWith(`"progressToken":${token}`) });
      assert.deepEqual(parseExactly(messages[0] ?? ""), parseExactly(`{"jsonrpc":"2.0",${progress(token)}}`));
      assert.equal(messages.length, 2);
    }
  });

  test(`what the client sends keeps its bytes, the other way: ${pair}`, async () => {
    const args = `{"n":18446744073709551615,"f":1.0,${odd}}`;
    await answerTo(
      client,
      "tools/call",
      `{"name":"${prefix}_odd","arguments":${args},${odd}}`,
      `"custom/key":{"big":1.0},${odd}`,
    );
    const body = (
      era === "session" ? sessionful.bodies("tools/call") : stateless.received("tools/call").map((one) => one.body)
    ).at(-1);
    assert.ok(body?.includes(`"arguments":${args}`), body);
    const { params } = parseExactly(body ?? "") as { params: { name: string; _meta: Record<string, unknown> } };
    const { name, arguments: _args, _meta, ...more } = params as typeof params & { arguments: unknown };
    assert.equal(name, "odd");
    assert.deepEqual(more, parseExactly(`{${odd}}`));
    const kept = Object.entries(_meta).filter(([key]) => !key.startsWith("io.modelcontextprotocol/"));
    assert.deepEqual(Object.fromEntries(kept), parseExactly(`{"custom/key":{"big":1.0},${odd}}`));
    const isEnveloped = Object.keys(_meta).length > kept.length;
    assert.equal(isEnveloped, era === "stateless");
  });
}

for (const [prefix, era] of [
  ["m", "stateless"],
  ["s", "session"],
] as const) {
  test(`questions and answers keep their bytes between a stateless client and a ${era} server`, async () => {
    const options = { meta: envelopeWith("", able) };
    const asked = await ask(vmcp.url, "tools/call", `{"name":"${prefix}_asking","arguments":{"n":1.0}}`, options);
    assert.ok(asked.body.includes(`{"method":"elicitation/create","params":${question}}`), asked.body);
    const [key] = Object.keys(asked.result.inputRequests ?? {});
    const state = asked.result.requestState === undefined ? "" : `,"requestState":${JSON.stringify(asked.result.requestState)}`;
    const params = `{"name":"${prefix}_asking","arguments":{"n":1.0},"inputResponses":{"${key}":${reply}}${state}}`;
    const done = await ask(vmcp.url, "tools/call", params, { ...options, id: "2" });
    assert.ok(done.body.includes(called), done.body);
    if (era === "stateless") {
      const { body } = stateless.received("tools/call").at(-1) ?? { body: "" };
      assert.ok(body.includes(`"inputResponses":{"é":${reply}}`), body);
      assert.ok(!body.includes("requestState"), "none was given");
    } else assert.ok(sessionful.requests.some(({ body }) => body.includes(`"id":"q","result":${reply}`)));
  });

  test(`an update keeps its members from a ${era} server to a listen`, async () => {
    const uri = uriOf(era);
    await using stream = await listen(vmcp.url, { resourceSubscriptions: [uri] }, { id: `"é"` });
    const start = `{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"${uri}",${odd},"_meta":{`;
    if (era === "session") sessionful.push(`${start}${odd}}}}`);
    else stateless.push((tag) => `${start}${tag},${odd}}}}`);
    await stream.next("notifications/resources/updated");
    const { params } = parseExactly(stream.texts.at(-1) ?? "") as { params: Record<string, unknown> };
    const tag = `"io.modelcontextprotocol/subscriptionId":"é"`;
    assert.deepEqual(params, parseExactly(`{"uri":"${uri}",${odd},"_meta":{${odd},${tag}}}`));
  });
}

test("questions and answers keep their bytes between a client with a session and a stateless server", async () => {
  const capabilities = { elicitation: {} };
  const opening = { protocolVersion: "2025-11-25", capabilities, clientInfo: { name: "raw", version: "1" } };
  const initialize = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "initialize", params: opening });
  const opened = await send(vmcp.url, { method: "POST", headers: mcpHeaders, body: initialize });
  const id = String(opened.headers["mcp-session-id"]);
  const headers = { ...mcpHeaders, "mcp-session-id": id, "mcp-protocol-version": "2025-11-25" };
  const call = `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"m_asking","arguments":{"n":1.0}}}`;
  await using stream = await openPost(vmcp.url, headers, call);
  await stream.next("elicitation/create");
  const asked = stream.texts.find((text) => text.includes("elicitation/create")) ?? "";
  assert.ok(asked.includes(`"params":${question}`), asked);
  const answer = `{"jsonrpc":"2.0","id":${readRpc(asked)?.id},"result":${reply}}`;
  assert.equal((await send(vmcp.url, { method: "POST", headers, body: answer })).status, 202);
  await stream.next(({ id: answered }) => answered === 5);
  assert.ok(stream.texts.at(-1)?.includes(`"result":{${called}}`), stream.texts.at(-1));
  const { body } = stateless.received("tools/call").at(-1) ?? { body: "" };
  assert.ok(body.includes(`{"é":${reply}}`), body);
});
