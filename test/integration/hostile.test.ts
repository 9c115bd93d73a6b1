// What no client should send: malformed HTTP on a raw socket, malformed messages, wrong types in every place. Each gets an
// answer or a closed connection, tells nothing about our insides, and the process serves on.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, afterEach, before, test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession, type RawSession, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { type Served, serve } from "../support/serve.ts";

const stack = new AsyncDisposableStack();
let backend: Backend;
let vmcp: Served;
let session: RawSession;

before(async () => {
  backend = stack.use(await startBackend({ tools: [plainTool("hello")], calls: { hello: () => textResult("hi") } }));
  vmcp = stack.use(await serve({ backends: [httpBackend("b", backend.url)] }));
  session = await openRawSession(vmcp.url);
});
afterEach(async () => {
  assert.equal((await send(`${vmcp.address}/health`)).status, 200);
  assert.match(await session.result("tools/call", `{"name":"b_hello"}`), /"hi"/);
});
after(() => stack.disposeAsync());

const mcp = "Host: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
const chunk = `FFFF\r\n${"x".repeat(65_535)}\r\n`;

// `Connection: close` where the request is whole, so that an answer ends the socket.
const requests: [what: string, status: number | undefined, bytes: string][] = [
  ["two Hosts", 403, "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"],
  ["no Host", 403, "GET /health HTTP/1.0\r\n\r\n"],
  ["a Host with a user", 403, "GET /health HTTP/1.1\r\nHost: evil.example:x@localhost\r\nConnection: close\r\n\r\n"],
  ["an absolute target", 403, "GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
  ["OPTIONS *", 403, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
  ["CONNECT", undefined, "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"],
  ["a path that looks like an authority", 404, "GET //[::/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
  ["a bad escape in the path", 404, "GET /%zz/%c0%80/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
  ["a server named __proto__", 404, "GET /__proto__/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
  ["bytes beyond ASCII in the path", 400, "GET /\xff\xfe/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n"],
  [
    "length and chunks at once",
    400,
    `POST /mcp HTTP/1.1\r\n${mcp}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  ],
  ["a bad chunk", 400, `POST /mcp HTTP/1.1\r\n${mcp}Transfer-Encoding: chunked\r\n\r\nZZ\r\n`],
  ["chunks beyond the limit", 413, `POST /mcp HTTP/1.1\r\n${mcp}Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(17)}`],
  ["a length beyond the limit", 413, `POST /mcp HTTP/1.1\r\n${mcp}Content-Length: 9000000\r\n\r\n`],
  ["a huge header", 431, `GET /health HTTP/1.1\r\nHost: localhost\r\nX: ${"y".repeat(17_000)}\r\n\r\n`],
  ["bare line feeds", 400, "GET /health HTTP/1.1\nHost: localhost\n\n"],
  ["a TLS greeting", 400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
  ["HTTP/2 without asking", 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
];

for (const [what, status, bytes] of requests) {
  test(`raw: ${what} ${status === undefined ? "is hung up on" : `is answered ${status}`}`, async () => {
    const answer = await exchange(bytes);
    assert.equal(answer.match(/^HTTP\/1\.1 (\d{3})/)?.[1], status === undefined ? undefined : String(status), answer);
    assertSilent(answer);
  });
}

/** Sends bytes as they are, and gives what came until the server closed. */
async function exchange(bytes: string): Promise<string> {
  const { hostname, port } = new URL(vmcp.address);
  const socket = connect(Number(port), hostname);
  let answer = "";
  socket.setEncoding("latin1").on("data", (text: string) => {
    answer += text;
  });
  socket.on("error", () => undefined); // a reset is a way to close, too
  socket.write(Buffer.from(bytes, "latin1"));
  await once(socket, "close", { signal: AbortSignal.timeout(20_000) });
  return answer;
}

const envelope = (id: string, rest = `"method":"ping"`) => `{"jsonrpc":"2.0","id":${id},${rest}}`;
const call = (method: string, params: string) => envelope("1", `"method":"${method}","params":${params}`);

const refused = [
  ...["", "null", "1", `"x"`, "[", "{}", "[]", "[{}]", "tru", `{"jsonrpc":"2.0"}`, `\ufeff${envelope("1")}`],
  ...[`${envelope("1")}{}`, envelope("{}"), envelope("[1]"), envelope("true"), `{"jsonrpc":2.0,"id":1,"method":"ping"}`],
  ...[envelope("1", `"method":5`), envelope("1", `"method":null`), call("ping", "null"), call("ping", "[]"), call("ping", `"x"`)],
  ...["[".repeat(500_000), `[${"{},".repeat(300_000)}{}]`, call("ping", `{"a":${"[".repeat(400)}${"]".repeat(400)}}`)],
  ...[envelope(`1,"id":2`), call("tools/call", `{"name":"b_secret","name":"b_hello"}`), `{${`"":1,`.repeat(150_000)}"":1}`],
];

for (const body of refused) {
  test(`the body ${JSON.stringify(body.slice(0, 70))} is refused`, async () => {
    const answer = await session.post(body);
    assert.ok(answer.status === 400 || answer.status === 413, `${answer.status} ${answer.body}`);
    assert.match(answer.body, /"error"/);
    assertSilent(answer.body);
  });
}

test("a body that is not UTF-8 never reaches a backend", async () => {
  const before = backend.bodies("tools/call").length;
  const parts = [`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b_hello","arguments":{"x":"`, `"}}}`];
  const body = Buffer.concat([Buffer.from(parts[0] as string), Buffer.from([0xff, 0xc0, 0x80]), Buffer.from(parts[1] as string)]);
  assert.equal((await session.post(body)).status, 400);
  assert.equal(backend.bodies("tools/call").length, before);
});

const wrongTypes = [
  ...["{}", "5", "null", `["b_hello"]`].map((name) => call("tools/call", `{"name":${name}}`)),
  ...["{}", "5", "null", `""`, `"\\ud800"`].map((uri) => call("resources/read", `{"uri":${uri}}`)),
  ...["null", "5", `"x"`, "[]", `{"type":"ref/prompt","name":5}`, `{"type":"ref/resource"}`].map((ref) =>
    call("completion/complete", `{"ref":${ref}}`),
  ),
  ...["5", "{}", `"zzz"`, `""`].map((cursor) => call("tools/list", `{"cursor":${cursor}}`)),
  ...["5", `["debug"]`, `"loud"`].map((level) => call("logging/setLevel", `{"level":${level}}`)),
  ...["toString", "hasOwnProperty", "\\u0000", "tools"].map((method) => call(method, "{}")),
  ...[`{}`, `{"protocolVersion":5,"clientInfo":{}}`, `{"protocolVersion":"2025-11-25","clientInfo":null}`].map((params) =>
    call("initialize", params),
  ),
];

for (const body of wrongTypes) {
  test(`${body.slice(34)} is answered with an error`, async () => {
    const answer = await session.post(body);
    assert.match(answer.body, /"code":-32(601|602|600|002)/, `${answer.status} ${answer.body}`);
    assertSilent(answer.body);
  });
}

/** No stack traces, no paths. */
function assertSilent(text: string): void {
  assert.doesNotMatch(text, /\n\s+at |node:internal|node_modules|\.ts\b/);
}
