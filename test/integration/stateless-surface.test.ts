// What the endpoint answers to requests without sessions: statuses, error codes and headers, as MCP 2026-07-28 has them.
// Which words an era or a server uses for the rest stands in stateless-bridges.test.ts.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { mcpHeaders, openClient, type RawAnswer, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Served, serve } from "../support/serve.ts";
import { completeText, type StatelessBackend, type StatelessCall, startStatelessBackend } from "../support/stateless-backend.ts";
import {
  type AskOptions,
  ask,
  base64Header,
  callTool,
  headersFor,
  headerText,
  requestText,
  statelessVersion,
  taskable,
  tasksExtension,
} from "../support/stateless-client.ts";

const stack = new AsyncDisposableStack();
let stateless: StatelessBackend;
let sessionful: Backend;
let vmcp: Served;

const greeting = "grüße ☃";
const noteUri = "note://é/1";
const schema = {
  type: "object",
  properties: {
    region: { type: "string", "x-mcp-header": "Region" },
    count: { type: "integer", "x-mcp-header": "Count" },
    dry: { type: "boolean", "x-mcp-header": "Dry-Run" },
    deep: { type: "object", properties: { zone: { type: "string", "x-mcp-header": "Zone" } } },
    plain: { type: "string" },
  },
};
const routed = JSON.stringify({ name: "routed", inputSchema: schema });
const badly = { type: "object", properties: { a: { type: "array", items: { type: "string", "x-mcp-header": "A" } } } };
const headersSeen = ({ headers }: Pick<StatelessCall, "headers">) => completeText(JSON.stringify(headers));

before(async () => {
  const resources = [`{"uri":"${noteUri}","name":"note"}`];
  const contents = `"contents":[{"uri":"${noteUri}","text":"read"}]`;
  const prompts = [`{"name":"${greeting}"}`];
  const calls = { echo: headersSeen, routed: headersSeen, [greeting]: headersSeen };
  stateless = stack.use(
    await startStatelessBackend({
      tools: [plainTool("echo"), routed, plainTool(greeting), JSON.stringify({ name: "badly", inputSchema: badly })],
      ...{ resources, prompts, calls },
      gets: { [greeting]: ({ headers }) => `{"resultType":"complete","messages":[],"seen":${JSON.stringify(headers)}}` },
      reads: { [noteUri]: ({ headers }) => `{"resultType":"complete","ttlMs":0,"seen":${JSON.stringify(headers)},${contents}}` },
      tasks: { get: () => `{"resultType":"complete"}` },
    }),
  );
  sessionful = stack.use(
    await startBackend({
      tools: [plainTool("echo"), routed, plainTool(greeting)],
      calls: { echo: () => textResult("hello"), routed: () => textResult("routed"), [greeting]: () => textResult("hello") },
    }),
  );
  vmcp = stack.use(await serve({ backends: [httpBackend("m", stateless.url), httpBackend("s", sessionful.url)] }));
});
after(() => stack.disposeAsync());

const own = "io.modelcontextprotocol/";
const version = { [`${own}protocolVersion`]: statelessVersion };
const abilities = { [`${own}clientCapabilities`]: {} };
const echo = { name: "m_echo", arguments: {} };
const raw = (meta: object) => ({ meta: JSON.stringify(meta) });
const unknown = "2099-01-01";
const future = { ...raw({ ...abilities, [`${own}protocolVersion`]: unknown }), headers: { "mcp-protocol-version": unknown } };
const nameIs = (value: string | undefined) => ({ headers: { "mcp-name": value } });

/** Name, status, code of the error or undefined, method, params, and what else is special. */
type Row = readonly [string, number, number | undefined, string, object?, AskOptions?];

const ladder: readonly Row[] = [
  ["all is well", 200, undefined, "tools/list"],
  ["no _meta but the header", 400, -32602, "tools/list", {}, raw({})],
  ["no version in _meta", 400, -32602, "tools/list", {}, raw(abilities)],
  ["a version that is no string", 400, -32602, "tools/list", {}, raw({ ...abilities, [`${own}protocolVersion`]: 1 })],
  ["no capabilities", 400, -32602, "tools/list", {}, raw(version)],
  ["capabilities that are a list", 400, -32602, "tools/list", {}, raw({ ...version, [`${own}clientCapabilities`]: [] })],
  ["capabilities that are null", 400, -32602, "tools/list", {}, raw({ ...version, [`${own}clientCapabilities`]: null })],
  ["no clientInfo, which only should be there", 200, undefined, "tools/list", {}, raw({ ...version, ...abilities })],
  ["an unknown log level", 400, -32602, "tools/list", {}, { meta: { [`${own}logLevel`]: "loud" } }],
  ["no MCP-Protocol-Version", 400, -32020, "tools/list", {}, { headers: { "mcp-protocol-version": undefined } }],
  ["another MCP-Protocol-Version", 400, -32020, "tools/list", {}, { headers: { "mcp-protocol-version": "2025-11-25" } }],
  ["an unknown version in the header alone", 400, -32020, "tools/list", {}, { headers: { "mcp-protocol-version": unknown } }],
  ["no Mcp-Method", 400, -32020, "tools/list", {}, { headers: { "mcp-method": undefined } }],
  ["another Mcp-Method", 400, -32020, "tools/list", {}, { headers: { "mcp-method": "tools/call" } }],
  ["Mcp-Method in other case", 400, -32020, "tools/list", {}, { headers: { "mcp-method": "Tools/List" } }],
  ["Mcp-Method with space around", 200, undefined, "tools/list", {}, { headers: { "mcp-method": " tools/list\t" } }],
  ["no Mcp-Name", 400, -32020, "tools/call", echo, nameIs(undefined)],
  ["no Mcp-Name for a resource", 400, -32020, "resources/read", { uri: noteUri }, nameIs(undefined)],
  ["another Mcp-Name", 400, -32020, "tools/call", echo, nameIs("s_echo")],
  ["the backend's own name as Mcp-Name", 400, -32020, "tools/call", echo, nameIs("echo")],
  ["Mcp-Name in Base64 without need", 200, undefined, "tools/call", echo, nameIs(base64Header("m_echo"))],
  ["another Mcp-Name in Base64", 400, -32020, "tools/call", echo, nameIs(base64Header("s_echo"))],
  ["Base64 without its padding", 400, -32020, "tools/call", { name: "m_echo1" }, nameIs("=?base64?bV9lY2hvMQ?=")],
  ["Base64 of the URL alphabet", 400, -32020, "tools/call", { name: "m_?>~" }, nameIs("=?base64?bV8_Pn4=?=")],
  ["Base64 with a space inside", 400, -32020, "tools/call", echo, nameIs("=?base64?bV9l Y2hv?=")],
  ["Base64 of what is no UTF-8", 400, -32020, "tools/call", echo, nameIs("=?base64?/////w==?=")],
  ["a URI beyond ASCII", 200, undefined, "resources/read", { uri: noteUri }],
  ["an unknown version", 400, -32022, "tools/list", {}, future],
  ["an unknown version and an unknown method", 400, -32022, "nothing/like-it", {}, future],
  ...[
    ...["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/result", "tasks/list"],
    ...["nothing/like-it", "toString", "__proto__", "tools", "notifications/cancelled"],
  ].map((method): Row => [`the method ${method}`, 404, -32601, method, { uri: noteUri }]),
  ["an unknown tool", 200, -32602, "tools/call", { name: "nobody" }],
  ["an unknown prompt", 200, -32602, "prompts/get", { name: "nobody" }],
  ["an unknown resource", 200, -32602, "resources/read", { uri: "note://nowhere" }],
  ["a wrong cursor", 200, -32602, "tools/list", { cursor: "x.y" }],
  ["a wrong requestState", 200, -32602, "tools/call", { ...echo, requestState: "s1.AAAA" }],
  ["inputResponses that are no object", 200, -32602, "tools/call", { ...echo, inputResponses: [] }],
  ["an unknown task", 200, -32602, "tasks/get", { taskId: "t" }, { capabilities: taskable }],
  ["a task, by a client that declares none", 400, -32021, "tasks/get", { taskId: "t" }],
  ["a listen for nothing that is known", 200, -32602, "subscriptions/listen", {}],
  ["a foreign Origin", 403, -32600, "tools/list", {}, { headers: { origin: "https://evil.example" } }],
];

for (const [name, status, code, method, params = {}, options = {}] of ladder) {
  test(`${name}: ${status}${code === undefined ? "" : ` and ${code}`}`, async () => {
    for (const id of ['"row \\u00e9\\n"', "9007199254740993", "-7"]) {
      const answer = await ask(vmcp.url, method, params, { ...options, id });
      assert.deepEqual([answer.status, answer.error?.code], [status, code], answer.body);
      // Who is not let in is not read.
      if (status !== 403) assert.ok(answer.body.includes(`"id":${id}`), answer.body);
      if (code === undefined) assert.equal(answer.result.resultType, "complete", answer.body);
      assert.ok(!/\.ts:\d|node_modules|"stack"/.test(answer.body), answer.body);
      isWithoutSession(answer);
    }
  });
}

test("what errors say in data", async () => {
  const { error } = await ask(vmcp.url, "tools/list", {}, future);
  assert.deepEqual(error?.data, { supported: [statelessVersion], requested: unknown });
  const { result } = await ask(vmcp.url, "server/discover");
  assert.deepEqual(result.supportedVersions, error.data.supported);
  const { error: undeclared } = await ask(vmcp.url, "tasks/get", { taskId: "t" });
  assert.deepEqual(undeclared?.data, { requiredCapabilities: { extensions: { [tasksExtension]: {} } } });
  const { error: missing } = await ask(vmcp.url, "resources/read", { uri: "note://nowhere" });
  assert.deepEqual(missing?.data, { uri: "note://nowhere" });
});

const request = requestText("tools/list");
const notification = `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`;
const enveloped = notification.replace('{"requestId"', `{"_meta":${JSON.stringify({ ...version, ...abilities })},"requestId"`);

for (const [name, body, status, code, headers = {}] of [
  ["no JSON", `{"jsonrpc":"2.0",`, 400, -32700],
  ["nothing", "", 400, -32700],
  ["an empty batch", "[]", 400, -32600],
  ["a batch with a request of this era", `[${request}]`, 400, -32600],
  ["a batch with one among others", `[${notification},${request}]`, 400, -32600],
  ["a batch of the other era", `[${notification}]`, 400, -32600],
  ["a response", `{"jsonrpc":"2.0","id":1,"result":{}}`, 400, -32600],
  ["an error response", `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}`, 400, -32600],
  ["a request with the id null", request.replace('"id":1', '"id":null'), 400, -32600],
  ["a notification", notification, 202, undefined, { "mcp-method": "notifications/cancelled" }],
  ["a notification with an envelope", enveloped, 202, undefined, { "mcp-method": undefined }],
  ["a notification that nobody knows", notification.replace("cancelled", "x"), 202, undefined, { "mcp-method": undefined }],
  ["a notification whose header differs", enveloped, 400, -32020, { "mcp-method": "notifications/other" }],
] as readonly (readonly [string, string, number, number?, AskOptions["headers"]?])[]) {
  test(`${name} posted: ${status}${code === undefined ? "" : ` and ${code}`}`, async () => {
    const answer = await post(body, headersFor("tools/list", {}, { headers }));
    const error = answer.body === "" ? undefined : (JSON.parse(answer.body) as { error: { code: number }; id?: unknown });
    assert.deepEqual([answer.status, error?.error.code], [status, code], answer.body);
    assert.ok(!error || !("id" in error) || status === 400, answer.body);
    assert.ok(error?.id === undefined || error.id === 1, "there is no id null in MCP");
    isWithoutSession(answer);
  });
}

test("GET and DELETE need a session", async () => {
  for (const method of ["GET", "DELETE"]) {
    const answer = await send(vmcp.url, { method, headers: { ...mcpHeaders, "mcp-protocol-version": statelessVersion } });
    assert.ok([400, 405].includes(answer.status), `${method}: ${answer.status}`);
  }
});

test("Mcp-Session-Id and Last-Event-ID mean nothing, and go no further", async () => {
  const strays = { "mcp-session-id": "made-up", "last-event-id": "1-1", authorization: "Bearer mine", cookie: "a=b" };
  const { text } = await callTool(vmcp.url, "m_echo", {}, { headers: strays });
  const seen = JSON.parse(text) as Record<string, string>;
  for (const name of Object.keys(strays)) assert.equal(seen[name], undefined, name);
  assert.equal((await callTool(vmcp.url, "s_echo", {}, { headers: strays })).text, "hello");
  const called = sessionful.requests.findLast(({ message }) => message?.method === "tools/call");
  assert.ok(sessionful.sessions().includes(String(called?.headers["mcp-session-id"])));
});

test("a server hears its own name of a tool, a prompt and a resource in Mcp-Name", async () => {
  const sees = async (method: string, params: object, name: string) => {
    const { result, text, body } = await ask(vmcp.url, method, params);
    const seen = (result.seen ?? JSON.parse(text || "{}")) as Record<string, string>;
    assert.deepEqual(
      [seen["mcp-name"], seen["mcp-method"], seen["mcp-protocol-version"]],
      [name, method, statelessVersion],
      body,
    );
  };
  await sees("tools/call", echo, "echo");
  // The gateway gives plainer names than these, so that every client can say them.
  const listed = await Promise.all([ask(vmcp.url, "tools/list"), ask(vmcp.url, "prompts/list")]);
  const [tool, prompt] = listed.map(({ body }) => /"name":"(m_gr[^"]*)"/.exec(body)?.[1]);
  await sees("tools/call", { name: tool }, headerText(greeting));
  await sees("prompts/get", { name: prompt }, headerText(greeting));
  await sees("resources/read", { uri: noteUri }, headerText(noteUri));
});

const args = { region: "zürich", count: 42, dry: false, deep: { zone: " a" }, plain: "x" };
const right = {
  "mcp-param-region": headerText("zürich"),
  "MCP-Param-COUNT": "42",
  "mcp-param-dry-run": "false",
  "mcp-param-zone": headerText(" a"),
};

for (const backend of ["m", "s"]) {
  for (const [name, headers] of [
    ["one is missing", { ...right, "mcp-param-region": undefined }],
    ["all are missing", {}],
    ["one says something else", { ...right, "mcp-param-region": "Zürich".normalize() }],
    ["one is not well encoded", { ...right, "mcp-param-region": "=?base64?erxyaWNo?=" }],
    ["a number differs", { ...right, "MCP-Param-COUNT": "43" }],
    ["a number is no number", { ...right, "MCP-Param-COUNT": "0x2a" }],
    ["a boolean is spelled otherwise", { ...right, "mcp-param-dry-run": "False" }],
    ["one that is nested differs", { ...right, "mcp-param-zone": "a" }],
  ] as const) {
    test(`repeated arguments of a tool of "${backend}", when ${name}: 400 and -32020, and the server is not called`, async () => {
      const calls = [stateless.received("tools/call").length, sessionful.bodies("tools/call").length];
      const { status, error, id } = await callTool(vmcp.url, `${backend}_routed`, args, { id: `"p"`, headers });
      assert.deepEqual([status, error?.code, id], [400, -32020, "p"]);
      assert.ok(!/zürich/i.test(String(error?.message)), "values may be secret");
      assert.deepEqual([stateless.received("tools/call").length, sessionful.bodies("tools/call").length], calls);
    });
  }
}

test("repeated arguments arrive in headers, with those that the gateway knows nothing about", async () => {
  const headers = { ...right, "MCP-Param-COUNT": "42.0", "mcp-param-other": "=?base64?w6k=?=" };
  const seen = JSON.parse((await callTool(vmcp.url, "m_routed", args, { headers })).text) as Record<string, string>;
  const names = Object.keys(seen).filter((name) => name.startsWith("mcp-param-"));
  const wanted = { ...right, "mcp-param-other": "=?base64?w6k=?=", "mcp-param-count": "42" };
  const lower = Object.fromEntries(Object.entries(wanted).filter(([name]) => name !== "MCP-Param-COUNT"));
  assert.deepEqual(Object.fromEntries(names.map((name) => [name, seen[name]])), lower);
  assert.equal((await callTool(vmcp.url, "s_routed", args, { headers })).text, "routed");
});

test("arguments that are absent or null need no headers", async () => {
  for (const given of [{}, { region: null, deep: null }])
    assert.equal((await callTool(vmcp.url, "m_routed", given)).error, undefined);
});

test("repeated arguments are put into headers for clients with sessions", async () => {
  await using sdk = await openClient(vmcp.url);
  const seen = JSON.parse(await sdk.call("m_routed", args)) as Record<string, string>;
  for (const [name, value] of Object.entries(right)) assert.equal(seen[name.toLowerCase()], value, name);
  assert.equal(await sdk.call("s_routed", args), "routed");
});

test("a tool whose annotations break the rules is not listed", async () => {
  const { result } = await ask(vmcp.url, "tools/list");
  const names = (result.tools as { name: string }[]).map(({ name }) => name).filter((name) => !name.includes("_gr"));
  assert.deepEqual(names.toSorted(), ["m_echo", "m_routed", "s_echo", "s_routed"]);
});

test("a tool that changed its headers without a word is looked up again, and called once more", async () => {
  const renamed = routed.replace('"Region"', '"Area"');
  stateless.set({ tools: [renamed] });
  const before = stateless.received("tools/call").length;
  await using sdk = await openClient(vmcp.url);
  const seen = JSON.parse(await sdk.call("m_routed", args)) as Record<string, string>;
  assert.equal(seen["mcp-param-area"], headerText("zürich"));
  assert.equal(stateless.received("tools/call").length, before + 2);
  await eventually("it is listed anew", async () => (await ask(vmcp.url, "tools/list")).body.includes('"Area"'));
  stateless.set({ tools: [routed] });
  const { "mcp-param-region": region, ...others } = right;
  const { error, text } = await callTool(vmcp.url, "m_routed", args, { headers: { ...others, "mcp-param-area": region } });
  assert.equal(error, undefined, error?.message);
  const again = JSON.parse(text) as Record<string, string>;
  assert.equal(again["mcp-param-region"], region);
  // From now on the edge knows.
  await eventually("the old headers are refused", async () => {
    const answer = await callTool(vmcp.url, "m_routed", args, { headers: { ...others, "mcp-param-area": region } });
    return answer.error?.code === -32020;
  });
});

const post = (body: string, headers: Record<string, string>): Promise<RawAnswer> =>
  send(vmcp.url, { method: "POST", headers, body });

function isWithoutSession({ headers }: RawAnswer): void {
  for (const name of ["mcp-session-id", "set-cookie"]) assert.equal(headers[name], undefined);
}
