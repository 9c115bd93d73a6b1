// Clients that speak only the older HTTP+SSE transport get all that the others get.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { request as httpRequest } from "undici";
import { type Backend, counter, plainTool, startBackend, textResult } from "../support/backend.ts";
import { type RawAnswer, type RawOptions, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { startEverything } from "../support/processes.ts";
import { type Served, serve } from "../support/serve.ts";

const tools = [counter.tool, plainTool("steps"), plainTool("odd"), plainTool("wait")];
const progressNotice = (params: string) => `{"jsonrpc":"2.0","method":"notifications/progress","params":${params}}`;
const oddResult = `{"content":[],\n  "structuredContent": {"n": 12345678901234567890},\r\n  "unknown": 1.50}`;

const stack = new AsyncDisposableStack();
let backend: Backend;
let vmcp: Served;

before(async () => {
  backend = stack.use(
    await startBackend({
      tools,
      calls: {
        counter: counter.call,
        steps: ({ params, notify }) => {
          const { progressToken } = params._meta as { progressToken: unknown };
          for (const progress of [1, 2, 3])
            notify(progressNotice(`{"progressToken":${JSON.stringify(progressToken)},"progress":${progress}}`));
          return textResult("done");
        },
        odd: () => oddResult,
        wait: () => new Promise(() => undefined),
      },
    }),
  );
  vmcp = stack.use(await serve({ backends: [httpBackend("b", backend.url)] }));
});
after(() => stack.disposeAsync());

test("an older client lists, calls, and keeps its state from call to call", async () => {
  await using sse = await openSseClient("/sse");
  const listed = await sse.client.listTools();
  assert.deepEqual(
    listed.tools.map(({ name }) => name),
    ["b_counter", "b_steps", "b_odd", "b_wait"],
  );
  for (const wanted of ["1", "2"]) assert.deepEqual(await call(sse, "b_counter"), [{ type: "text", text: wanted }]);
  const counts = await Promise.all(Array.from({ length: 5 }, () => call(sse, "b_counter")));
  assert.equal(new Set(counts.map((count) => JSON.stringify(count))).size, 5);
});

test("two older clients don't see each other's state", async () => {
  await using one = await openSseClient("/sse");
  await using two = await openSseClient("/test/sse");
  assert.deepEqual(await call(one, "b_counter"), [{ type: "text", text: "1" }]);
  assert.deepEqual(await call(two, "b_counter"), [{ type: "text", text: "1" }]);
});

test("progress comes before the answer, in order", async () => {
  await using sse = await openSseClient("/sse");
  const seen: number[] = [];
  await sse.client.callTool({ name: "b_steps" }, undefined, { onprogress: ({ progress }) => seen.push(progress) });
  assert.deepEqual(seen, [1, 2, 3]);
});

test("a list that changed is told", async () => {
  await using sse = await openSseClient("/sse");
  backend.set({ tools: [...tools, plainTool("new")] });
  backend.announce("tools");
  await eventually("the client is told", () => sse.notifications.includes("notifications/tools/list_changed"));
  assert.ok((await sse.client.listTools()).tools.some(({ name }) => name === "b_new"));
});

test("a client that disconnects ends its backend sessions and its calls", async () => {
  const before = backend.sessions().length;
  const sse = await openSseClient("/sse");
  await call(sse, "b_counter");
  assert.equal(backend.sessions().length, before + 1);
  const pending = assert.rejects(call(sse, "b_wait"));
  await eventually("the call is at the backend", () => backend.bodies("tools/call").some((body) => body.includes(`"wait"`)));
  await sse.client.close();
  await pending;
  await eventually("the backend session is gone", () => backend.sessions().length === before);
});

test("what a backend sent is what the client gets, on the stream", async () => {
  await using raw = await openRawSse("/sse");
  await raw.initialize();
  await raw.post(`{"jsonrpc":"2.0","id":"o","method":"tools/call","params":{"name":"b_odd"}}`);
  const answer = await raw.next((data) => data.includes(`"id":"o"`));
  assert.equal(answer, `{"jsonrpc":"2.0","id":"o","result":${oddResult.replace(/[\r\n]/g, " ")}}`);
});

test("the first event says where to post, under the path that the client used", async () => {
  await using plain = await openRawSse("/sse");
  assert.match(plain.endpoint, /^\/messages\?sessionId=[\w.-]{40,}$/);
  await using named = await openRawSse("/test/sse");
  assert.match(named.endpoint, /^\/test\/messages\?sessionId=[\w.-]{40,}$/);
});

test("the client's revision is spoken, and a batch is taken where the revision has them", async () => {
  await using raw = await openRawSse("/sse");
  assert.match(await raw.initialize("2024-11-05"), /"protocolVersion":"2024-11-05"/);
  const batch = `[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]`;
  assert.equal((await raw.post(batch)).status, 400);
  await using other = await openRawSse("/sse");
  await other.initialize("2025-03-26");
  assert.equal((await other.post(batch)).status, 202);
  for (const id of [1, 2]) assert.ok(await other.next((data) => data === `{"jsonrpc":"2.0","id":${id},"result":{}}`));
});

const ping = `{"jsonrpc":"2.0","id":9,"method":"ping"}`;
const refusals: [what: string, status: number, ask: (raw: RawSse) => Promise<RawAnswer>][] = [
  ["a stream that nobody opened", 404, () => ask("/messages?sessionId=guessed", { body: ping })],
  ["a stream of no id", 404, () => ask("/messages", { body: ping })],
  ["a path of no virtual server", 404, ({ endpoint }) => ask(`/nobody${endpoint}`, { body: ping })],
  [
    "a session id of this stream on the other transport",
    404,
    ({ endpoint }) =>
      ask("/mcp", {
        body: ping,
        headers: { "mcp-session-id": new URLSearchParams(endpoint.split("?")[1]).get("sessionId") ?? "" },
      }),
  ],
  ["a request before initialize", 400, (raw) => raw.post(ping)],
  ["a body that is not JSON", 400, (raw) => raw.post("{nope")],
  ["a body that hides a member", 400, (raw) => raw.post(`{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`)],
  ["a body over the limit", 413, (raw) => raw.post(`"${"x".repeat(1_100_000)}"`)],
  ["a body of another type", 415, (raw) => raw.post(ping, { "content-type": "text/plain" })],
  ["a foreign host", 403, (raw) => raw.post(ping, { host: "evil.example" })],
  ["a foreign origin", 403, (raw) => raw.post(ping, { origin: "http://evil.example" })],
  ["a foreign page that opens a stream", 403, () => send(`${vmcp.address}/sse`, { headers: { origin: "http://evil.example" } })],
  ["a POST to the stream", 405, () => ask("/sse", { body: ping })],
  ["a GET of the endpoint", 405, ({ endpoint }) => send(vmcp.address + endpoint)],
];
for (const [what, status, request] of refusals) {
  test(`${what} is answered ${status}`, async () => {
    await using raw = await openRawSse("/sse");
    assert.equal((await request(raw)).status, status);
    await raw.initialize(); // and the stream is as good as before
  });
}

test("a stream opens one session, and an answer to no question is refused", async () => {
  await using raw = await openRawSse("/sse");
  await raw.post(initialize("2025-11-25").replace(`"clientInfo"`, `"nobody"`));
  assert.match(await raw.next((data) => data.includes(`"error"`)), /-32602/);
  await raw.initialize();
  assert.equal((await raw.post(initialize("2025-11-25"))).status, 400);
  assert.equal((await raw.post(`{"jsonrpc":"2.0","id":"made-up","result":{}}`)).status, 400);
});

test("switched off, it is not there", async () => {
  await using off = await serve({ backends: [httpBackend("b", backend.url)] }, ["--no-legacy-sse"]);
  for (const path of ["/sse", "/test/sse", "/messages", "/test/messages"])
    assert.equal((await send(off.address + path, { headers: { accept: "text/event-stream" } })).status, 404, path);
  await assert.rejects(openSseClient("/sse", off.address), /404/);
});

test("a server that stops lets the calls on its streams finish", async () => {
  const release = Promise.withResolvers<void>();
  await using slow = await startBackend({
    tools: [plainTool("slow")],
    calls: { slow: () => release.promise.then(() => textResult("in time")) },
  });
  await using stopping = await serve({ backends: [httpBackend("s", slow.url)] });
  await using sse = await openSseClient("/sse", stopping.address);
  const answer = call(sse, "s_slow");
  await eventually("the call is at the backend", () => slow.bodies("tools/call").length === 1);
  const ended = stopping.stop();
  await eventually("no new client is let in", async () =>
    send(`${stopping.address}/ping`).then(
      () => false,
      () => true,
    ),
  );
  release.resolve();
  assert.deepEqual(await answer, [{ type: "text", text: "in time" }]);
  assert.equal(await ended, 0);
});

test("a real server asks an older client, and tells it of updates", async () => {
  await using everything = await startEverything();
  await using gateway = await serve({ backends: [httpBackend("e", everything.url)] });
  const capabilities = { sampling: {}, elicitation: {}, roots: { listChanged: true } };
  const asked: string[] = [];
  await using sse = await openSseClient("/test/sse", gateway.address, (client) => {
    client.registerCapabilities(capabilities);
    client.setRequestHandler(CreateMessageRequestSchema, async () => {
      asked.push("sampling");
      return { model: "m", role: "assistant", content: { type: "text", text: "sampled by an older client" } };
    });
    client.setRequestHandler(ElicitRequestSchema, async () => {
      asked.push("elicitation");
      return { action: "accept", content: { name: "Ada" } };
    });
    client.setRequestHandler(ListRootsRequestSchema, async () => {
      asked.push("roots");
      return { roots: [{ uri: "file:///work", name: "work" }] };
    });
    client.setNotificationHandler(ResourceUpdatedNotificationSchema, async ({ params }) => void asked.push(params.uri));
  });
  assert.match(JSON.stringify(await call(sse, "e_echo", { message: "hello" })), /hello/);
  await eventually("the server asks for roots, outside of any call", () => asked.includes("roots"));
  const sampled = await call(sse, "e_trigger-sampling-request", { prompt: "say something", maxTokens: 10 });
  assert.match(JSON.stringify(sampled), /sampled by an older client/);
  assert.match(JSON.stringify(await call(sse, "e_trigger-elicitation-request")), /Ada/);
  assert.match(JSON.stringify(await call(sse, "e_get-roots-list")), /file:\/\/\/work/);
  const uri = (await sse.client.listResources()).resources[0]?.uri ?? "";
  await sse.client.subscribeResource({ uri });
  await call(sse, "e_toggle-subscriber-updates");
  await eventually("an update of the resource", () => asked.includes(uri), 15_000);
});

interface SseClient extends AsyncDisposable {
  readonly client: Client;
  /** Methods of the notifications that came without being asked for. */
  readonly notifications: string[];
}

/** Connects the real client. */
async function openSseClient(
  path: string,
  address = vmcp.address,
  prepare: (client: Client) => void = () => undefined,
): Promise<SseClient> {
  const client = new Client({ name: "older-client", version: "1.0.0" });
  const notifications: string[] = [];
  client.fallbackNotificationHandler = async ({ method }) => void notifications.push(method);
  prepare(client);
  await client.connect(new SSEClientTransport(new URL(address + path)));
  return { client, notifications, [Symbol.asyncDispose]: () => client.close() };
}

async function call({ client }: SseClient, name: string, args: Record<string, unknown> = {}): Promise<unknown> {
  return (await client.callTool({ name, arguments: args })).content;
}

const ask = (path: string, options: RawOptions) =>
  send(vmcp.address + path, { method: "POST", ...options, headers: { "content-type": "application/json", ...options.headers } });

const initialize = (version: string) =>
  `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"${version}","capabilities":{},"clientInfo":{"name":"raw","version":"1"}}}`;

interface RawSse extends AsyncDisposable {
  /** What the first event said. */
  readonly endpoint: string;
  /** Gives the answer, raw. */
  initialize(version?: string): Promise<string>;
  post(body: string, headers?: Record<string, string>): Promise<RawAnswer>;
  /** The next message that fits. */
  next(fits: (data: string) => boolean): Promise<string>;
}

/** Opens a stream by hand. */
async function openRawSse(path: string): Promise<RawSse> {
  const abort = new AbortController();
  const { body } = await httpRequest(vmcp.address + path, { signal: abort.signal });
  let received = "";
  body.on("data", (chunk: Buffer) => {
    received += chunk;
  });
  body.on("error", () => undefined); // aborted by us, or cut by the server
  const take = (event: string, fits: (data: string) => boolean) =>
    eventually(
      `an event ${event}`,
      () =>
        [...received.matchAll(/^event: (.*)\ndata: (.*)\n\n/gm)].find(([, type, data = ""]) => type === event && fits(data))?.[2],
    );
  const endpoint = await take("endpoint", () => true);
  const post = (text: string, headers: Record<string, string> = {}) => ask(endpoint, { body: text, headers });
  const next = (fits: (data: string) => boolean) => take("message", fits);
  return {
    endpoint,
    post,
    next,
    async initialize(version = "2025-11-25") {
      assert.equal((await post(initialize(version))).status, 202);
      const answer = await next((data) => data.includes(`"id":0,"result"`));
      await post(`{"jsonrpc":"2.0","method":"notifications/initialized"}`);
      return answer;
    },
    [Symbol.asyncDispose]: async () => abort.abort(),
  };
}
