// Headers are not passed on: a backend sees those that we write, a client sees those that we write, and no others, whatever the
// other side sent. Values that came from outside are marked, so that they are found under any name.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { buffer } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { request as httpRequest } from "undici";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { mcpHeaders, openRawSession, type RawSession, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { type Served, serve } from "../support/serve.ts";

const mark = "leak";
const stack = new AsyncDisposableStack();
const seen: IncomingHttpHeaders[] = [];
let isStream = false;
let vmcp: Served;
let session: RawSession;

before(async () => {
  const backend = stack.use(await startBackend({ tools: [plainTool("hello")], calls: { hello: () => textResult("hi") } }));
  const talkative = await startTalkative(backend.url);
  stack.defer(() => void talkative.server.close());
  stack.defer(() => talkative.server.closeAllConnections());
  vmcp = stack.use(await serve({ backends: [httpBackend("b", talkative.url)] }));
  session = await openRawSession(vmcp.url);
});
after(() => stack.disposeAsync());

// MCP 2025-11-25, transports: the first four, and what HTTP needs. The rest is undici's.
const toBackends = ["accept", "content-type", "mcp-protocol-version", "mcp-session-id", "content-length", "host", "connection"];

const names = [
  ...[
    "Accept-Charset",
    "Accept-Encoding",
    "Accept-Language",
    "Alt-Used",
    "Authorization",
    "Cache-Control",
    "Client-Cert",
    "Cookie",
  ],
  ...[
    "Cookie2",
    "Date",
    "DNT",
    "DPoP",
    "Early-Data",
    "ETag",
    "Forwarded",
    "From",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
  ],
  ...[
    "If-Range",
    "Keep-Alive",
    "Last-Event-ID",
    "Link",
    "Max-Forwards",
    "Mcp-Method",
    "Mcp-Name",
    "Mcp-Param-City",
    "Mcp-Tenant",
  ],
  ...[
    "Pragma",
    "Prefer",
    "Priority",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Range",
    "Referer",
    "Save-Data",
  ],
  ...[
    "Sec-CH-UA",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Server",
    "Set-Cookie",
    "SOAPAction",
  ],
  ...["TE", "Trailer", "User-Agent", "Via", "Warning", "WWW-Authenticate", "X-API-Key", "X-Amzn-Trace-Id", "X-Auth-Token"],
  ...["X-B3-Sampled", "X-B3-SpanId", "X-B3-TraceId", "X-Client-Cert", "X-Client-IP", "X-Cluster-Client-IP", "X-Correlation-ID"],
  ...[
    "X-CSRF-Token",
    "X-Device",
    "X-Forwarded",
    "X-Forwarded-By",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-For",
    "X-Forwarded-Host",
  ],
  ...[
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-Forwarded-Server",
    "X-Forwarded-User",
    "X-Forwarded-Email",
  ],
  ...[
    "X-Gw-Identity",
    "X-Gw-Roles",
    "X-Http-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Original-Host",
    "X-Original-URL",
  ],
  ...[
    "X-Powered-By",
    "X-ProxyUser-Ip",
    "X-Real-IP",
    "X-Remote-User",
    "X-Request-ID",
    "X-Requested-With",
    "X-Rewrite-URL",
    "X-Tenant-ID",
  ],
  ...[
    "X-User",
    "X-User-ID",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "baggage",
    "b3",
    "traceparent",
    "tracestate",
  ],
  ...["uber-trace-id", "grpc-timeout", "vmcp-hop", "vmcp-user", "ngrok-skip-browser-warning", "Remote-User", "SSL-Client-Verify"],
  ...[
    "x_forwarded_for",
    "X_Forwarded_User",
    "X_Real_IP",
    "remote_user",
    "authorization_",
    "x_api_key",
    "http_proxy",
    "trace_parent",
  ],
  ...[
    "Proxy",
    "HTTP2-Settings",
    "Content-Language",
    "Content-Location",
    "X-Envoy-Original-Path",
    "X-Envoy-External-Address",
    "X-Scheme",
  ],
  ...[
    "X-Forwarded-Scheme",
    "X-ARR-SSL",
    "X-Wap-Profile",
    "X-Accel-Redirect",
    "X-Sendfile-Type",
    "X-Amz-Cf-Id",
    "X-Goog-IAP-JWT-Assertion",
  ],
];
/** With as many as one request may have beside its own. */
const parts = [names.slice(0, 60), names.slice(60)];

test("of 120 headers of a client none reaches a backend", async () => {
  assert.ok(names.length >= 120 && parts.every(({ length }) => length < 90), String(names.length));
  const before = seen.length;
  for (const part of parts) {
    const headers = Object.fromEntries(part.map((name, i) => [name, `${mark}-${i}`]));
    assert.equal((await call(headers)).status, 200);
  }
  // What has to be good to get in says something of its own all the same.
  assert.equal((await call({ Origin: `http://localhost:4711` })).status, 200);
  assert.equal((await call({ Accept: `application/json, text/event-stream, x/${mark}` })).status, 200);
  assert.equal((await call({ "Content-Type": `application/json; charset=utf-8; x=${mark}` })).status, 200);
  assertOurs(seen.slice(before), 5);
});

test("what Connection names reaches no backend, and changes nothing", async () => {
  const before = seen.length;
  const { hostname, port } = new URL(vmcp.address);
  const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b_hello"}}`;
  const socket = connect(Number(port), hostname);
  socket.write(
    `POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close, authorization, mcp-session-id, content-type, X-${mark}\r\n` +
      `X-${mark}: ${mark}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n` +
      `Mcp-Session-Id: ${session.id}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-${mark}\r\n\r\n` +
      `${body.length.toString(16)}\r\n${body}\r\n0\r\nX-${mark}: ${mark}\r\nAuthorization: ${mark}\r\n\r\n`,
  );
  assert.match((await buffer(socket)).toString(), /^HTTP\/1\.1 200[\s\S]*"hi"/);
  assertOurs(seen.slice(before), 1);
});

for (const [what, streamed, accept] of [
  ["one body", false, "application/json, text/event-stream"],
  ["a stream", true, "text/event-stream, application/json"],
] as const) {
  test(`nothing of a backend's headers and trailers reaches a client, in ${what}`, async () => {
    isStream = streamed;
    const answer = await httpRequest(vmcp.url, {
      method: "POST",
      headers: { ...mcpHeaders, accept, "mcp-session-id": session.id },
      body: `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"b_hello"}}`,
    });
    const text = await answer.body.text();
    assert.match(text, /"hi"/);
    assert.doesNotMatch(`${JSON.stringify(answer.headers)}${text}${JSON.stringify(answer.trailers)}`, new RegExp(mark));
    const ours = ["connection", "content-length", "content-type", "date", "keep-alive", "transfer-encoding", "cache-control"];
    assert.deepEqual(
      Object.keys(answer.headers).filter((name) => ![...ours, "x-accel-buffering"].includes(name)),
      [],
    );
    assert.deepEqual(answer.trailers, {});
  });
}

test("the id of a session is ours, and not the backend's", () => {
  const { headers } = session.initializeAnswer;
  assert.ok(headers["mcp-session-id"]);
  assert.ok(seen.some((request) => request["mcp-session-id"]));
  assert.ok(seen.every((request) => request["mcp-session-id"] !== headers["mcp-session-id"]));
  assert.doesNotMatch(JSON.stringify(headers), new RegExp(mark));
});

const call = (headers: Record<string, string>) => {
  const own = { ...mcpHeaders, "mcp-session-id": session.id, "mcp-protocol-version": "2025-11-25" };
  const given = new Set(Object.keys(headers).map((name) => name.toLowerCase()));
  const rest = Object.fromEntries(Object.entries(own).filter(([name]) => !given.has(name)));
  const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b_hello"}}`;
  // Clients of ours would refuse to send some of these.
  return sendRaw({ ...rest, ...headers }, body);
};

async function sendRaw(headers: Record<string, string>, body: string): Promise<{ status: number }> {
  const { hostname, port } = new URL(vmcp.address);
  const socket = connect(Number(port), hostname);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(
    `POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ${body.length}\r\n${lines.join("")}\r\n${body}`,
  );
  const answer = (await buffer(socket)).toString();
  return { status: Number(answer.slice(9, 12)) };
}

function assertOurs(requests: readonly IncomingHttpHeaders[], callsMin: number): void {
  assert.ok(requests.length >= callsMin, String(requests.length));
  for (const headers of requests) {
    assert.deepEqual(
      Object.keys(headers).filter((name) => !toBackends.includes(name)),
      [],
    );
    assert.doesNotMatch(JSON.stringify(headers), new RegExp(`${mark}|4711`, "i"));
  }
}

/** A backend that says more than it should: it stands before a good one. */
async function startTalkative(url: string) {
  const server = createServer(async (request, response) => {
    if (request.method === "POST") seen.push(request.headers);
    const { "content-length": _length, connection: _connection, host: _host, ...headers } = request.headers;
    const body = request.method === "POST" ? await buffer(request) : undefined;
    if (request.method === "GET") return void response.writeHead(405).end();
    const answer = await send(url, {
      method: request.method as string,
      headers: headers as Record<string, string>,
      ...(body ? { body } : {}),
    });
    const id = answer.headers["mcp-session-id"];
    const streams = isStream && answer.body !== "";
    response.writeHead(answer.status, {
      ...(id === undefined ? {} : { "mcp-session-id": id as string }),
      ...{ "content-type": streams ? "text/event-stream" : "application/json", trailer: `x-${mark}` },
      ...{
        "set-cookie": [`a=${mark}`, `b=${mark}; Domain=localhost`],
        "www-authenticate": `Bearer realm="${mark}"`,
        server: mark,
      },
      ...{
        location: `http://${mark}.example/`,
        link: `<${mark}>`,
        refresh: `0; url=${mark}`,
        "x-powered-by": mark,
        via: `1.1 ${mark}`,
      },
      ...{
        "access-control-allow-origin": "*",
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": mark,
      },
      ...{
        "strict-transport-security": "max-age=0",
        "content-security-policy": mark,
        "clear-site-data": `"${mark}"`,
        etag: `"${mark}"`,
      },
      ...{
        "alt-svc": `h3="${mark}:443"`,
        "proxy-authenticate": mark,
        "x-accel-redirect": `/${mark}`,
        "x-sendfile": mark,
        age: "5",
      },
      ...{
        "content-disposition": `attachment; filename=${mark}`,
        "content-location": `/${mark}`,
        "retry-after": "77",
        vary: mark,
      },
      ...{ [`x-${mark}`]: mark, "mcp-protocol-version": mark, "x-request-id": mark, traceparent: mark, allow: mark },
    });
    response.addTrailers({ [`x-${mark}`]: mark });
    response.end(streams ? `event: message\ndata: ${answer.body}\n\n` : answer.body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp` };
}
