// Bytes that no client should send, on raw sockets, with a backend behind that remembers every call: what one reader takes for one
// request and another for two, what Node reads and we do not, and what a path, a Host or a header may look like. Every request here
// would be a call if it were let in, and a second one hides in most. Longer than most: it is one table.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession, type RawSession, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Served, serve } from "../support/serve.ts";

const stack = new AsyncDisposableStack();
let backend: Backend;
let vmcp: Served;
let session: RawSession;
let gate = Promise.withResolvers<void>();
let calls = 0; // that shall have reached the backend

before(async () => {
  const gated = () => gate.promise.then(() => textResult("late"));
  const hello = () => textResult("hi");
  backend = stack.use(
    await startBackend({
      tools: [plainTool("hello"), plainTool("gated"), plainTool("canary")],
      calls: { hello, gated, canary: hello },
    }),
  );
  vmcp = stack.use(await serve({ backends: [httpBackend("b", backend.url)] }));
  session = await openRawSession(vmcp.url);
});
beforeEach(() => {
  calls = arrived();
});
// What was smuggled was sent before this call, so it would be there by the time this one is answered.
afterEach(async () => {
  assert.match(await session.result("tools/call", `{"name":"b_canary"}`), /"hi"/);
  assert.equal(arrived(), calls, "calls that reached the backend");
  assert.equal((await send(`${vmcp.address}/health`)).status, 200);
});
after(async () => {
  const [errors, unexpected] = [vmcp?.logs() ?? [], backend?.requests ?? []];
  await stack.disposeAsync();
  assert.deepEqual(
    errors.filter(({ level }) => Number(level) >= 50),
    [],
  );
  assert.ok(
    unexpected.every(({ method, message }) => method !== "POST" || message !== undefined),
    "a body that is no message",
  );
});

const arrived = () => backend.bodies("tools/call").filter((body) => !body.includes("canary")).length;

// `marker` stands wherever a case has a value to choose: no answer may have it. `SESSION` is the id of a session.
const marker = "zqx";
const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b_hello","arguments":{"from":"${marker}"}}}`;
const length = `Content-Length: ${body.length}\r\n`;
const host = "Host: localhost\r\n";
const others =
  "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMcp-Session-Id: SESSION\r\n" +
  "MCP-Protocol-Version: 2025-11-25\r\n";
const close = "Connection: close\r\n";
const smuggled = `POST /mcp HTTP/1.1\r\n${host}${others}${length}\r\n${body}`;
const chunked = "Transfer-Encoding: chunked\r\n";
const hex = (text: string) => text.length.toString(16);
const chunks = `${hex(body)}\r\n${body}\r\n0\r\n\r\n`;

/** A call with these framing headers and this body, and another call behind it. */
const framed = (headers: string, content = body, version = "1.1") =>
  `POST /mcp HTTP/${version}\r\n${host}${others}${headers}\r\n${content}${smuggled}`;
const inChunks = (content: string) => framed(chunked, content);
/** A call with further headers; alone, so that it can be let in. */
const call = (headers: string) => `POST /mcp HTTP/1.1\r\n${host}${others}${length}${close}${headers}\r\n${body}`;
const callAt = (target: string) => `POST ${target} HTTP/1.1\r\n${host}${others}${length}${close}\r\n${body}`;
const callFor = (hosts: string) => `POST /mcp HTTP/1.1\r\n${hosts}${others}${length}${close}\r\n${body}`;
const by = (method: string, target = "/mcp", version = "HTTP/1.1") =>
  `${method} ${target} ${version}\r\n${host}${close}\r\n${smuggled}`;
const lines = (count: number) => Array.from({ length: count }, (_, i) => `X-${i}: ${marker}\r\n`).join("");

/** The statuses of all answers, until the connection is closed. */
type Wanted = readonly number[];
const hungUp: Wanted = [];

const cases: readonly [what: string, wanted: Wanted, bytes: string][] = [
  // Two opinions about where a body ends.
  ["a length and chunks", [400], framed(`${length}${chunked}`, chunks)],
  ["chunks and a length", [400], framed(`${chunked}${length}`, chunks)],
  ["a length of 0 and chunks", [400], framed(`Content-Length: 0\r\n${chunked}`, chunks)],
  ["one length twice", [400], framed(length + length)],
  ["two lengths", [400], framed(`Content-Length: 0\r\n${length}`)],
  ["a list of lengths", [400], framed(`Content-Length: ${body.length}, ${body.length}\r\n`)],
  ["an empty length", [400], framed("Content-Length:\r\n")],
  ["a length with a plus", [400], framed(`Content-Length: +${body.length}\r\n`)],
  ["a negative length", [400], framed("Content-Length: -1\r\n")],
  ["a length in hex", [400], framed(`Content-Length: 0x${hex(body)}\r\n`)],
  ["a length with a space", [400], framed("Content-Length: 1 0\r\n")],
  ["a length with an exponent", [400], framed("Content-Length: 1e2\r\n")],
  ["a length with a fraction", [400], framed(`Content-Length: ${body.length}.0\r\n`)],
  ["a length and a word", [400], framed(`Content-Length: ${body.length}${marker}\r\n`)],
  ["a length in quotes", [400], framed(`Content-Length: "${body.length}"\r\n`)],
  ["a length beyond 2^64", [400], framed("Content-Length: 99999999999999999999\r\n")],
  ["a length beyond 2^53", [400], framed("Content-Length: 9999999999999999\r\n")],
  ["a space before the colon of a length", [400], framed(`Content-Length : ${body.length}\r\n`)],
  ["a length in a folded line", [400], framed(`Content-Length:\r\n ${body.length}\r\n`)],
  ["a length behind a bare LF", [400], framed(`X: ${marker}\nContent-Length: ${body.length}\r\n`)],
  ["a length behind a bare CR", [400], framed(`X: ${marker}\rContent-Length: ${body.length}\r\n`)],
  ["a length with an underscore", [400], framed(`Content_Length: 0\r\n${length}`)],
  ["a coding with an underscore", [400], framed(`Transfer_Encoding: chunked\r\n${length}`)],
  ["a space before the colon of chunks", [400], framed("Transfer-Encoding : chunked\r\n", chunks)],
  ["xchunked", [400], framed("Transfer-Encoding: xchunked\r\n", chunks)],
  ["identity", [400], framed("Transfer-Encoding: identity\r\n")],
  ["identity and a length", [400], framed(`Transfer-Encoding: identity\r\n${length}`)],
  ["chunked, then identity", [400], framed("Transfer-Encoding: chunked, identity\r\n", chunks)],
  ["gzip, then chunked", [400], framed("Transfer-Encoding: gzip, chunked\r\n", chunks)],
  ["identity, then chunked", [400], framed("Transfer-Encoding: identity, chunked\r\n", chunks)],
  ["chunked twice in a line", [400], framed("Transfer-Encoding: chunked, chunked\r\n", chunks)],
  ["chunked twice", [400], framed(chunked + chunked, chunks)],
  ["chunked, and identity in another line", [400], framed(`${chunked}Transfer-Encoding: identity\r\n`, chunks)],
  ["gzip, and chunked in another line", [400], framed(`Transfer-Encoding: gzip\r\n${chunked}`, chunks)],
  ["chunked in quotes", [400], framed(`Transfer-Encoding: "chunked"\r\n`, chunks)],
  ["chunked with a parameter", [400], framed("Transfer-Encoding: chunked;q=1\r\n", chunks)],
  ["chunked and a comma", [400], framed("Transfer-Encoding: chunked,\r\n", chunks)],
  ["chunked behind a vertical tab", [400], framed("Transfer-Encoding: \x0bchunked\r\n", chunks)],
  ["chunked behind a NUL", [400], framed("Transfer-Encoding: \0chunked\r\n", chunks)],
  ["chunked in a folded line", [400], framed("Transfer-Encoding:\r\n chunked\r\n", chunks)],
  ["chunks in HTTP/1.0", [400], framed(chunked, chunks, "1.0")],
  ["chunks in HTTP/1.0 that is kept", [400], framed(`${chunked}Connection: keep-alive\r\n`, chunks, "1.0")],
  ...["GET", "HEAD", "DELETE", "OPTIONS"].flatMap((method): [string, Wanted, string][] => [
    [
      `${method} with a body`,
      [400],
      `${method} /mcp HTTP/1.1\r\n${host}${others}Content-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    ],
    [`${method} in chunks`, [400], `${method} /mcp HTTP/1.1\r\n${host}${others}${chunked}\r\n0\r\n\r\n${smuggled}`],
  ]),

  // Chunks.
  ["a chunk size that is no number", [400], inChunks(`ZZ\r\n${body}\r\n0\r\n\r\n`)],
  ["no chunk size", [400], inChunks(`\r\n${body}\r\n0\r\n\r\n`)],
  ["a negative chunk size", [400], inChunks(`-1\r\n${body}\r\n0\r\n\r\n`)],
  ["a chunk size with a plus", [400], inChunks(`+${chunks}`)],
  ["a chunk size with 0x", [400], inChunks(`0x${chunks}`)],
  ["a chunk size with an underscore", [400], inChunks(`0_${chunks}`)],
  ["a chunk size beyond 2^64", [400], inChunks(`FFFFFFFFFFFFFFFFF\r\n${body}`)],
  ["a space behind a chunk size", [400], inChunks(`${hex(body)} \r\n${body}\r\n0\r\n\r\n`)],
  ["a space before a chunk size", [400], inChunks(` ${chunks}`)],
  ["a chunk size that ends with LF", [400], inChunks(`${hex(body)}\n${body}\r\n0\r\n\r\n`)],
  ["a chunk size that ends with CR", [400], inChunks(`${hex(body)}\r${body}\r\n0\r\n\r\n`)],
  ["a chunk longer than its size", [400], inChunks(`1\r\n${body}\r\n0\r\n\r\n`)],
  ["a chunk that ends with LF", [400], inChunks(`${hex(body)}\r\n${body}\n0\r\n\r\n`)],
  ["a chunk that does not end", [400], inChunks(`${hex(body)}\r\n${body}0\r\n\r\n`)],
  ["an extension that ends with LF", [400], inChunks(`${hex(body)};a=${marker}\n${body}\r\n0\r\n\r\n`)],
  ["an extension with a line end in quotes", [400], inChunks(`${hex(body)};a="\r\n${body}"\r\n0\r\n\r\n`)],
  ["an extension with a NUL", [400], inChunks(`${hex(body)};a=\0\r\n${body}\r\n0\r\n\r\n`)],
  ["an extension of 20 KB", [413], inChunks(`${hex(body)};a=${marker.repeat(7_000)}\r\n${body}\r\n0\r\n\r\n`)],
  ["a last chunk of 00 and a word", [400], inChunks(`${hex(body)}\r\n${body}\r\n00${marker}\r\n\r\n`)],
  ["a length in a trailer", [400], inChunks(`${hex(body)}\r\n${body}\r\n0\r\nContent-Length: 1\r\n\r\n`)],
  ["a coding in a trailer", [400], inChunks(`${hex(body)}\r\n${body}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n`)],
  ["a trailer with a space in its name", [400], inChunks(`${hex(body)}\r\n${body}\r\n0\r\nX ${marker}: 1\r\n\r\n`)],
  ["a trailer that ends with LF", [400], inChunks(`${hex(body)}\r\n${body}\r\n0\r\nX: 1\n\r\n\r\n`)],
  ["trailers of 20 KB", [431], inChunks(`${hex(body)}\r\n${body}\r\n0\r\nX: ${marker.repeat(7_000)}\r\n\r\n`)],

  // Lines of headers.
  ["a folded line", [400], call(`X: a\r\n ${marker}\r\n`)],
  ["a line that begins with a space", [400], `POST /mcp HTTP/1.1\r\n ${host}${others}${length}\r\n${body}`],
  ["lines that end with LF", [400], call("").replaceAll("\r\n", "\n")],
  ["lines that end with CR", [400], `${call("").replaceAll("\r\n", "\r")}\r\n\r\n`],
  ["one line that ends with LF", [400], call(`X: ${marker}\nY: 1\r\n`)],
  ["a CR in a value", [400], call(`X: a\r${marker}\r\n`)],
  ["a NUL in a value", [400], call(`X: \0${marker}\r\n`)],
  ["a control character in a value", [400], call(`X: \x01${marker}\r\n`)],
  ["a NUL in a name", [400], call(`X\0${marker}: 1\r\n`)],
  ["a space in a name", [400], call(`X ${marker}: 1\r\n`)],
  ["a parenthesis in a name", [400], call(`X(${marker}): 1\r\n`)],
  ["a name beyond ASCII", [400], call(`X\xe9: ${marker}\r\n`)],
  ["no name", [400], call(`: ${marker}\r\n`)],
  ["no colon", [400], call(`${marker}\r\n`)],
  ["a header of 17 KB", [431], call(`X: ${marker.repeat(5_800)}\r\n`)],
  ["17 KB of headers", [431], call(lines(99).replaceAll(marker, marker.repeat(55)))],
  ["101 headers", [431], call(lines(94))],
  ["2,500 headers", [431], call("a:b\r\n".repeat(2_500))],
  ["a credential behind 100 others", [431], call(`${lines(100)}Authorization: Bearer ${marker}\r\n`)],

  // What must not come twice, and what looks like it.
  ...["Authorization: Bearer x", "DPoP: x", "Origin: http://localhost", "Last-Event-ID: 1", "Mcp-Method: tools/call"].map(twice),
  ...["Mcp-Name: b_hello", "vmcp-hop: 1", "Content-Encoding: identity", "Expect: 100-continue"].map(twice),
  ...["Mcp-Session-Id: SESSION", "MCP-Protocol-Version: 2025-11-25", "Content-Type: application/json"].map(
    (line): [string, Wanted, string] => [`${line.split(":")[0]} twice`, [400], call(`${line}\r\n`)],
  ),
  ...["Mcp_Session_Id", "Mcp-Session_Id", "MCP_Protocol_Version", "Content_Type", "Last_Event_ID", "Mcp_Param_X", "vmcp_hop"].map(
    (name): [string, Wanted, string] => [`${name}, with an underscore`, [400], call(`${name}: ${marker}\r\n`)],
  ),

  // What Node would do or ignore, and we refuse.
  ["another expectation", [417], call(`Expect: ${marker}\r\n`)],
  ["an expectation more", [417], call(`Expect: 100-continue, ${marker}\r\n`)],
  ...["gzip", "br", "deflate", "zstd", "x-gzip", "gzip, identity", marker].map((coding): [string, Wanted, string] => [
    `a body in ${coding}`,
    [415],
    call(`Content-Encoding: ${coding}\r\n`),
  ]),

  // Methods and versions.
  ["CONNECT", hungUp, `CONNECT localhost:80 HTTP/1.1\r\n${host}\r\n${smuggled}`],
  ...["TRACE", "PUT", "PATCH", "SEARCH", "M-SEARCH", "PROPFIND", "PURGE", "LINK"].map((method): [string, Wanted, string] => [
    method,
    [405],
    by(method),
  ]),
  ["TRACE where nothing is", [405], by("TRACE", "/nowhere")],
  ["a method of RTSP", [405], by("SOURCE", "/mcp", "ICE/1.0")],
  ["a method of nobody", [400], by(marker.toUpperCase())],
  ["a method in lower case", [400], by("post")],
  ["HTTP/2.0", [505], by("GET", "/mcp", "HTTP/2.0")],
  ["HTTP/0.9", [505], by("GET", "/mcp", "HTTP/0.9")],
  ["no version", [505], "GET /mcp\r\n\r\n"],
  ["HTTP/1.2", [400], by("GET", "/mcp", "HTTP/1.2")],
  ["http/1.1", [400], by("GET", "/mcp", "http/1.1")],
  ["a space behind the version", [400], by("GET", "/mcp", "HTTP/1.1 ")],
  ["the preface of HTTP/2", [400], `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${smuggled}`],
  ["the greeting of TLS", [400], "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
  ["a greeting of SSH", [400], "SSH-2.0-OpenSSH_9.6\r\n"],

  // Targets.
  ["an absolute target", [403], callAt("http://localhost/mcp")],
  ["an absolute target elsewhere", [403], callAt(`http://${marker}.example/mcp`)],
  ["an absolute target of https", [403], callAt("https://localhost/mcp")],
  ["an authority as target", [400], callAt("localhost:4483")],
  ["OPTIONS *", [403], by("OPTIONS", "*")],
  ["POST *", [403], callAt("*")],
  ["a relative target", [400], callAt("mcp")],
  ["a query alone", [400], callAt("?mcp")],
  ["a fragment", [400], callAt(`/mcp#${marker}`)],
  ["a fragment before a path", [400], callAt("/#/mcp")],
  ["a fragment in a query", [400], callAt(`/mcp?a#${marker}`)],
  ["a backslash", [400], callAt("/\\mcp")],
  ["a backslash that leaves a host", [400], callAt("/\\localhost/mcp")],
  ["a NUL in the target", [400], callAt("/mcp\0")],
  ["a tab in the target", [400], callAt("/mcp\t")],
  ["a form feed in the target", [400], callAt("/mcp\f")],
  ["a control character in the target", [400], callAt("/mcp\x01")],
  ["a DEL in the target", [400], callAt("/mcp\x7f")],
  ["a space in the target", [400], callAt("/mcp a")],
  ["a target beyond ASCII", [400], callAt("/mcp\xa0")],
  ["a target of 8 KB and 1", [414], callAt(`/mcp?${"a".repeat(8_188)}`)],
  ["a target of 15 KB", [414], callAt(`/mcp?${"a".repeat(15_000)}`)],
  ["a target of 17 KB", [431], callAt(`/mcp?${"a".repeat(17_000)}`)],
  ...[
    "/mcp/",
    "//mcp",
    "/./mcp",
    "/x/../mcp",
    "/../mcp",
    "/mcp/.",
    "/mcp/../mcp",
    "/MCP",
    "/Mcp",
    "/mcp%2f",
    "/%2fmcp",
    "/%6dcp",
  ].map(notFound),
  ...[
    "/mcp;x",
    "/mcp;/mcp",
    "/mcp.",
    "/mcp%00",
    "/mcp%20",
    "/mcp%0d%0a",
    "/test%2fmcp",
    "/test//mcp",
    "/test/./mcp",
    "/TEST/mcp",
  ].map(notFound),
  ...[
    "/test;x/mcp",
    "/x%2f..%2ftest/mcp",
    "/%2e/mcp",
    "/test/mcp/",
    "//localhost/mcp",
    "/http://localhost/mcp",
    "/__proto__/mcp",
  ].map(notFound),
  ...["/health/", "/HEALTH", "//health", "/health;x", "/%68ealth", "/./health", "/health%2f", "/status/../status"].map(notFound),

  // Hosts.
  ["no Host", [400], callFor("")],
  ["no Host in HTTP/1.0", [403], callFor("").replace("HTTP/1.1", "HTTP/1.0")],
  ["two Hosts", [403], callFor(`${host}Host: ${marker}.example\r\n`)],
  ["one Host twice", [403], callFor(host + host)],
  ...[
    "",
    " ",
    `${marker}.example`,
    `${marker}.example:x@localhost`,
    "a@localhost",
    "@localhost",
    ":@localhost",
    "localhost/",
    "localhost\\",
  ].map(notAllowed),
  ...[
    "localhost?",
    "localhost#",
    "localhost/mcp",
    "localhost, localhost",
    "local\thost",
    "loc\xaalhost",
    "localhost%00",
    "localhost%2e",
  ].map(notAllowed),
  ...[
    "localhost:99999",
    "localhost:-1",
    "localhost:80:80",
    "localhost:a",
    "[::1",
    "[::1]a",
    "[::1]:80:80",
    "::1",
    "http://localhost",
  ].map(notAllowed),
  ...["localhost.example", "127.0.0.1.example", "xlocalhost", "0.0.0.0", "10.0.0.1", "[::ffff:10.0.0.1]"].map(notAllowed),
  ...[
    "null",
    "http://localhost/",
    "http://a@localhost",
    "http://@localhost",
    "http://localhost.example",
    "localhost",
    "file://",
    "",
  ].map((origin): [string, Wanted, string] => [`the Origin ${JSON.stringify(origin)}`, [403], call(`Origin: ${origin}\r\n`)]),
];

for (const [what, wanted, bytes] of cases) {
  test(`${what}: ${wanted.length === 0 ? "hung up on" : wanted.join(", ")}`, async () => {
    const answer = await exchange(bytes);
    assert.deepEqual(statusesOf(answer), wanted, answer);
    assertSilent(answer);
    if (wanted[0] !== undefined && !bytes.startsWith("HEAD")) assertRefusal(answer);
  });
}

// What is odd but means one thing is let in, and is a call each; without these the table above would prove little.
const accepted: readonly [what: string, bytes: string, wanted?: Wanted][] = [
  ["a plain call", call("")],
  ["a length with zeros in front", framed(`Content-Length: 000${body.length}\r\n${close}`).slice(0, -smuggled.length)],
  ["empty lines in front", `\r\n\r\n${call("")}`],
  ["chunks", `POST /mcp HTTP/1.1\r\n${host}${others}${close}${chunked}\r\n${chunks}`],
  ["chunks by another case", `POST /mcp HTTP/1.1\r\n${host}${others}${close}tRANSFER-eNCODING: CHUNKED\r\n\r\n${chunks}`],
  [
    "chunks with an extension and a trailer that means nothing",
    `POST /mcp HTTP/1.1\r\n${host}${others}${close}${chunked}\r\n${hex(body)};a=b\r\n${body}\r\n0\r\nMcp-Session-Id: ${marker}\r\n\r\n`,
  ],
  ["HTTP/1.0", call("").replace("HTTP/1.1", "HTTP/1.0")],
  ["100 headers", call(lines(93))],
  ["a header named __proto__", call(`__proto__: ${marker}\r\nconstructor: ${marker}\r\n`)],
  ["underscores that look like nothing of ours", call(`X_Forwarded_User: ${marker}\r\nremote_user: ${marker}\r\n`)],
  [
    "Connection that names what decides",
    call("Connection: authorization, mcp-session-id, content-type, host, content-length\r\n"),
  ],
  ["an expectation that can be met", call("Expect: 100-continue\r\n"), [100, 200]],
  ["an expectation in HTTP/1.0, which has none", call("Expect: 100-continue\r\n").replace("HTTP/1.1", "HTTP/1.0")],
  ["a body in identity", call("Content-Encoding: identity\r\n")],
  // Java's client sends it by default, and means it only if we want to (RFC 9110 section 7.8).
  [
    "an offer of HTTP/2",
    call("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"),
  ],
  ["a query", callAt(`/mcp?${"a".repeat(8_187)}`)],
  ["the Host [::1]:1", callFor("Host: [::1]:1\r\n")],
  ["the Host LocalHost:", callFor("Host: LocalHost:\r\n")],
  ["an Origin of this machine", call("Origin: http://localhost:5173\r\n")],
];

for (const [what, bytes, wanted = [200]] of accepted) {
  test(`${what}: let in`, async () => {
    calls++;
    const answer = await exchange(bytes);
    assert.deepEqual(statusesOf(answer), wanted, answer);
    assert.match(answer, /"hi"/);
  });
}

const named = (name: string, id: number) => body.replace("b_hello", name).replace(`"id":1`, `"id":${id}`);
const posted = (content: string, more = "") =>
  `POST /mcp HTTP/1.1\r\n${host}${others}Content-Length: ${content.length}\r\n${more}\r\n${content}`;
const idsOf = (answer: string) => [...answer.matchAll(/"id":(\d+)/g)].map(([, id]) => Number(id));

test("requests that were sent at once are answered in their order, whichever is done first", async () => {
  gate = Promise.withResolvers();
  calls += 3;
  const answering = exchange(posted(named("b_gated", 1)) + posted(named("b_hello", 2)) + posted(named("b_hello", 3), close));
  await eventually("all of them are called", () => arrived() === calls);
  gate.resolve();
  const answer = await answering;
  assert.deepEqual(statusesOf(answer), [200, 200, 200]);
  assert.deepEqual(idsOf(answer), [1, 2, 3]);
});

test("what follows a request that was refused is not looked at, what came before it is answered", async () => {
  gate = Promise.withResolvers();
  calls++;
  const refused = posted(named("b_hello", 2), `Content-Encoding: ${marker}\r\n`);
  const answering = exchange(posted(named("b_gated", 1)) + refused + posted(named("b_hello", 3)) + posted(named("b_hello", 4)));
  await eventually("the first is called", () => arrived() === calls);
  gate.resolve();
  const answer = await answering;
  assert.deepEqual(statusesOf(answer), [200, 415]);
  assert.deepEqual(idsOf(answer), [1]);
});

test("a call that runs is not told that it was refused because of what was sent after it", async () => {
  gate = Promise.withResolvers();
  calls++;
  const answer = await exchange(`${posted(named("b_gated", 1))}${marker}\r\n\r\n`);
  assert.equal(answer, "", "whether it ran is not known, so nothing is said");
  await eventually("it was called", () => arrived() === calls);
  gate.resolve();
});

test("a message that is refused with 400 ends the connection too", async () => {
  const answer = await exchange(posted(`{"jsonrpc":"2.0"}`));
  assert.deepEqual(statusesOf(answer), [400]);
  assertRefusal(answer);
});

test("a refused request is not asked for its body", async () => {
  const answer = await exchange(
    `POST /mcp HTTP/1.1\r\nHost: ${marker}.example\r\n${others}${length}Expect: 100-continue\r\n\r\n`,
  );
  assert.deepEqual(statusesOf(answer), [403]);
});

/** Sends bytes as they are, and gives what came until the server closed. */
async function exchange(bytes: string): Promise<string> {
  const { hostname, port } = new URL(vmcp.address);
  const socket: Socket = connect(Number(port), hostname);
  let answer = "";
  socket.setEncoding("latin1").on("data", (text: string) => {
    answer += text;
  });
  socket.on("error", () => undefined); // a reset is a way to close, too
  socket.write(Buffer.from(bytes.replaceAll("SESSION", session.id), "latin1"));
  await once(socket, "close", { signal: AbortSignal.timeout(20_000) }).finally(() => socket.destroy());
  return answer;
}

function statusesOf(answer: string): number[] {
  return [...answer.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
}

/** Nothing of the input, no stack traces, no paths of ours. */
function assertSilent(answer: string): void {
  assert.doesNotMatch(answer, new RegExp(marker, "i"));
  assert.doesNotMatch(answer, /\n\s+at |node:|node_modules|\.ts\b|HPE_|llhttp|Parse Error/);
}

/** JSON with an error, and then the end. */
function assertRefusal(answer: string): void {
  const [head = "", content = ""] = answer.split("\r\n\r\n").slice(-2);
  assert.match(head, /^content-type: application\/json/im);
  assert.match(head, /^connection: close/im);
  assert.ok(Object.hasOwn(JSON.parse(content), "error"), content);
}

function twice(line: string): [string, Wanted, string] {
  return [`${line.split(":")[0]} twice`, [400], call(`${line}\r\n${line.toLowerCase()}\r\n`)];
}

function notFound(target: string): [string, Wanted, string] {
  return [`the path ${JSON.stringify(target)}`, [404], callAt(target)];
}

function notAllowed(name: string): [string, Wanted, string] {
  return [`the Host ${JSON.stringify(name)}`, [403], callFor(`Host: ${name}\r\n`)];
}
