// What HTTP clients meet before any MCP: routes, methods, media types, limits, and who may ask at all.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Backend, plainTool, startBackend } from "../support/backend.ts";
import { mcpHeaders, openRawSession, type RawOptions, type RawSession, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { type Served, serve } from "../support/serve.ts";

const stack = new AsyncDisposableStack();
let backend: Backend;
let vmcp: Served;
let session: RawSession;

before(async () => {
  backend = stack.use(await startBackend({ tools: [plainTool("hello")] }));
  vmcp = stack.use(await serve({ backends: [httpBackend("b", backend.url)] }));
  session = await openRawSession(vmcp.url);
});
after(() => stack.disposeAsync());

for (const path of ["/health", "/ping"]) {
  test(`${path} says ok`, async () => {
    const answer = await send(vmcp.address + path);
    assert.equal(answer.status, 200);
    assert.match(String(answer.headers["content-type"]), /^application\/json/);
    assert.deepEqual(JSON.parse(answer.body), { status: "ok" });
  });
}

test("/readyz answers 200 once a snapshot is live, and /status tells about it", async () => {
  assert.equal((await send(`${vmcp.address}/readyz`)).status, 200);
  const status = await send(`${vmcp.address}/status`);
  assert.equal(status.status, 200);
  assert.match(status.body, /r\d+-[0-9a-f]{12}/);
  assert.match(status.body, /"b"/);
});

for (const path of ["/mcp", "/test/mcp", "/health", "/ping", "/readyz", "/status"]) {
  test(`${path} is closed to foreign hosts and origins`, async () => {
    const method = path.endsWith("/mcp") ? "POST" : "GET";
    const ask = (headers: Record<string, string>) =>
      send(vmcp.address + path, {
        method,
        headers: { ...mcpHeaders, ...headers },
        ...(method === "POST" ? { body: initialize } : {}),
      });
    assert.equal((await ask({ host: "evil.example" })).status, 403, "host");
    assert.equal((await ask({ host: "127.0.0.1.evil.example" })).status, 403, "host that begins like ours");
    assert.equal((await ask({ origin: "http://evil.example" })).status, 403, "origin");
    assert.equal((await ask({ origin: "null" })).status, 403, "opaque origin");
    assert.equal((await ask({ host: "localhost:9999" })).status, 200, "loopback name");
    assert.equal((await ask({ host: "[::1]:9999" })).status, 200, "loopback address");
    assert.equal((await ask({ origin: "http://localhost:5173" })).status, 200, "loopback origin");
  });
}

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`;
const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`;
const without = (header: keyof typeof mcpHeaders) =>
  Object.fromEntries(Object.entries(mcpHeaders).filter(([name]) => name !== header));

const refusals: [what: string, status: number, request: () => RawOptions & { path?: string }][] = [
  ["an unknown path", 404, () => ({ path: "/nowhere" })],
  ["an unknown virtual server", 404, () => ({ path: "/nobody/mcp", method: "POST", headers: mcpHeaders, body: initialize })],
  ["PUT", 405, () => ({ method: "PUT", headers: mcpHeaders, body: ping })],
  ["POST to /health", 405, () => ({ path: "/health", method: "POST" })],
  ["GET that takes no event stream", 406, () => ({ headers: { accept: "text/html", ...inSession() } })],
  [
    "POST that takes no JSON",
    406,
    () => ({ method: "POST", headers: { ...without("accept"), accept: "text/html" }, body: initialize }),
  ],
  [
    "a body that is not JSON by type",
    415,
    () => ({ method: "POST", headers: { ...mcpHeaders, "content-type": "text/plain" }, body: initialize }),
  ],
  ["a body without a type", 415, () => ({ method: "POST", headers: without("content-type"), body: initialize })],
  ["a body over the limit", 413, () => ({ method: "POST", headers: mcpHeaders, body: `"${"x".repeat(1_100_000)}"` })],
  ["a body that is not JSON", 400, () => ({ method: "POST", headers: { ...mcpHeaders, ...inSession() }, body: "{nope" })],
  ["a body that is no JSON-RPC", 400, () => ({ method: "POST", headers: { ...mcpHeaders, ...inSession() }, body: `{"id":1}` })],
  [
    "a batch in a revision without batches",
    400,
    () => ({ method: "POST", headers: { ...mcpHeaders, ...inSession() }, body: `[${ping}]` }),
  ],
  ["a request outside a session", 400, () => ({ method: "POST", headers: mcpHeaders, body: ping })],
  ["an unknown session", 404, () => ({ method: "POST", headers: { ...mcpHeaders, "mcp-session-id": "nobody" }, body: ping })],
  ["a stream of an unknown session", 404, () => ({ headers: { accept: "text/event-stream", "mcp-session-id": "nobody" } })],
  ["the end of an unknown session", 404, () => ({ method: "DELETE", headers: { "mcp-session-id": "nobody" } })],
  [
    "an unknown revision",
    400,
    () => ({ method: "POST", headers: { ...mcpHeaders, ...inSession(), "mcp-protocol-version": "1999-01-01" }, body: ping }),
  ],
];

for (const [what, status, request] of refusals) {
  test(`${what} is answered ${status}`, async () => {
    const { path = "/mcp", ...options } = request();
    const answer = await send(vmcp.address + path, options);
    assert.equal(answer.status, status, answer.body);
    assert.doesNotMatch(answer.body, /\n\s+at /);
  });
}

test("a body in chunks is limited too", async () => {
  const body = Buffer.alloc(1_100_000, 0x20);
  const answer = await fetch(vmcp.url, {
    method: "POST",
    headers: mcpHeaders,
    body: new Blob([body]).stream(),
    duplex: "half",
  } as RequestInit).then(
    ({ status }) => status,
    () => 413, // the server hangs up on a sender that goes on
  );
  assert.equal(answer, 413);
});

test("a notification is taken with 202 and an empty body", async () => {
  const answer = await session.post(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}`);
  assert.equal(answer.status, 202);
  assert.equal(answer.body, "");
});

test("initialize answers with a session id of visible ASCII and the asked revision", async () => {
  for (const version of ["2025-11-25", "2025-06-18", "2025-03-26"]) {
    const own = await openRawSession(vmcp.url, version);
    assert.match(own.id, /^[\x21-\x7e]+$/);
    assert.ok(own.initializeAnswer.messages[0]?.includes(`"protocolVersion":"${version}"`));
    await own.delete();
  }
});

test("an unknown method is answered with a JSON-RPC error", async () => {
  assert.match(await session.result("no/such"), /"code":-32601/);
});

test("an unknown tool is answered with invalid params", async () => {
  assert.match(await session.result("tools/call", `{"name":"nobody"}`), /"code":-32602/);
});

const inSession = () => ({ "mcp-session-id": session.id, "mcp-protocol-version": "2025-11-25" });
