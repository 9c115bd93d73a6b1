// What the session era's revisions have in common, and what they don't: negotiation, batches, content that older clients
// don't know, streams that are resumed.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { request } from "undici";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { mcpHeaders, openRawSession, send } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { type Served, serve } from "../support/serve.ts";

const link = '{"type":"resource_link","uri":"file:///x","name":"x"}';
const audio = '{"type":"audio","data":"AAAA","mimeType":"audio/wav"}';
let backend: Backend;
let gateway: Served;
let release: () => void;

before(async () => {
  const progress = (n: number) =>
    `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":${n}}}`;
  backend = await startBackend({
    tools: ["mixed", "talk"].map((name) => plainTool(name)),
    calls: {
      mixed: () => `{"content":[${link},${audio}],"structuredContent":{"n":12345678901234567890}}`,
      talk: async ({ notify }) => {
        notify(progress(1));
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        notify(progress(2));
        return textResult("done");
      },
    },
  });
  gateway = await serve({
    backends: [{ name: "b", url: backend.url }],
    aggregation: { conflictResolution: "manual", tools: [{ workload: "b" }] },
  });
});
after(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await backend?.[Symbol.asyncDispose]();
});

for (const version of ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]) {
  test(`${version} is spoken, to the client and to the backend`, async () => {
    const session = await openRawSession(gateway.url, version);
    assert.equal(JSON.parse(session.initializeAnswer.body).result.protocolVersion, version);
    await session.result("tools/call", '{"name":"mixed"}');
    const asked = backend.bodies("initialize").map((body) => JSON.parse(body).params.protocolVersion);
    assert.equal(asked.at(-1), version);
  });
}

const readable: [version: string, types: string[]][] = [
  ["2025-11-25", ["resource_link", "audio"]],
  ["2025-06-18", ["resource_link", "audio"]],
  ["2025-03-26", ["text", "audio"]],
  ["2024-11-05", ["text", "text"]],
];
for (const [version, types] of readable) {
  test(`a client of ${version} gets content types it knows, and nothing else changes`, async () => {
    const session = await openRawSession(gateway.url, version);
    const raw = await session.result("tools/call", '{"name":"mixed"}');
    const { content } = JSON.parse(raw).result as { content: { type: string; text?: string }[] };
    assert.deepEqual(
      content.map(({ type }) => type),
      types,
    );
    assert.match(raw, /"n":12345678901234567890/);
  });
}

test("an unknown revision is answered with the newest of the era", async () => {
  const session = await openRawSession(gateway.url, "2025-11-25");
  const asked = await send(gateway.url, {
    method: "POST",
    headers: mcpHeaders,
    body: '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"1999-01-01","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}',
  });
  assert.equal(JSON.parse(asked.body).result.protocolVersion, "2025-11-25");
  assert.equal((await session.post("{}", { "mcp-protocol-version": "1999-01-01" })).status, 400);
});

test("a batch is answered in one array, in 2025-03-26 only", async () => {
  const batch = `[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","id":"two","method":"nope"},{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"mixed"}}]`;
  const session = await openRawSession(gateway.url, "2025-03-26");
  const { status, body } = await session.post(batch);
  assert.equal(status, 200);
  const answers = JSON.parse(body) as { id: unknown; error?: { code: number } }[];
  assert.deepEqual(new Set(answers.map(({ id }) => id)), new Set([1, "two", 3]));
  assert.equal(answers.find(({ id }) => id === "two")?.error?.code, -32601);
  const newer = await openRawSession(gateway.url, "2025-11-25");
  assert.equal((await newer.post(batch)).status, 400);
});

test("a client that was cut off in a call resumes its stream and gets the answer", async () => {
  const session = await openRawSession(gateway.url);
  const headers = { "mcp-session-id": session.id, "mcp-protocol-version": "2025-11-25" };
  const cut = new AbortController();
  const asked = await request(gateway.url, {
    method: "POST",
    headers: { ...mcpHeaders, ...headers },
    body: '{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"talk","_meta":{"progressToken":"p"}}}',
    signal: cut.signal,
  });
  let seen = "";
  asked.body.on("data", (chunk: Buffer) => {
    seen += chunk.toString();
  });
  asked.body.on("error", () => undefined);
  await eventually("the first progress", () => /"progress":1/.test(seen) || undefined);
  const ids = [...seen.matchAll(/^id: (.+)$/gm)].map(([, id]) => id ?? "");
  assert.match(seen, /^id: .+\nretry: \d+\ndata:\n\n/, "a priming event comes first");
  cut.abort();
  release();
  const rest = await send(gateway.url, {
    headers: { accept: "text/event-stream", ...headers, "last-event-id": ids.at(-1) ?? "" },
  });
  assert.deepEqual(
    rest.messages.map((message) => JSON.parse(message).method ?? JSON.parse(message).id),
    ["notifications/progress", 9],
  );
  const again = await send(gateway.url, { headers: { accept: "text/event-stream", ...headers, "last-event-id": ids[0] ?? "" } });
  assert.equal(again.messages.length, 3, "from the start, nothing is lost and nothing comes twice");
});

test("older clients get no event without data", async () => {
  const session = await openRawSession(gateway.url, "2025-06-18");
  const answer = session.ask("tools/call", '{"name":"talk","_meta":{"progressToken":"p"}}');
  await eventually("the call", () => backend.bodies("tools/call").length > 0 || undefined);
  setTimeout(() => release(), 50);
  assert.doesNotMatch((await answer).body, /^data:\s*$/m);
});

const refused: [name: string, body: string, status: number, code: number][] = [
  ["a duplicate member", '{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', 400, -32600],
  [
    "__proto__",
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"mixed","arguments":{"__proto__":{}}}}',
    400,
    -32600,
  ],
  ["a deep body", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":${"[".repeat(100)}${"]".repeat(100)}}}`, 413, -32600],
  ["no JSON", '{"jsonrpc":', 400, -32700],
  ["an empty batch", "[]", 400, -32600],
  ["an answer to nothing", '{"jsonrpc":"2.0","id":"s1.forged","result":{}}', 400, -32600],
];
for (const [name, body, status, code] of refused) {
  test(`${name} is refused before it means anything`, async () => {
    const session = await openRawSession(gateway.url);
    const answer = await session.post(body);
    assert.deepEqual([answer.status, JSON.parse(answer.body).error.code], [status, code]);
  });
}
