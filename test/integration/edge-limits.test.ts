// What a client may cost: it may leave when it likes, read slowly, or open too much, and nobody else feels it.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession, type RawSession, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { startVmcp } from "../support/processes.ts";
import { type Served, serve } from "../support/serve.ts";

process.env.VMCP_LOG_LEVEL = "debug"; // the gateway inherits it

const stack = new AsyncDisposableStack();
let backend: Backend;
let vmcp: Served;
let session: RawSession;
let release = Promise.withResolvers<void>();

before(async () => {
  const gated = () => release.promise.then(() => textResult("done"));
  backend = stack.use(await startBackend({ tools: [plainTool("gated")], calls: { gated } }));
  vmcp = stack.use(await serve({ backends: [httpBackend("b", backend.url)] }));
  session = await openRawSession(vmcp.url);
});
after(async () => {
  release.resolve();
  await stack.disposeAsync();
});

const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b_gated"}}`;
const head = (method: string, rest: string) =>
  `${method} /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n` +
  `Accept: application/json, text/event-stream\r\nMcp-Session-Id: ${session.id}\r\n${rest}\r\n`;

const departures: [what: string, bytes: () => string, leave: (socket: Socket) => void][] = [
  ["resets in a body", () => `${head("POST", "Content-Length: 99\r\n")}{`, (socket) => socket.resetAndDestroy()],
  ["hangs up in a body", () => `${head("POST", "Content-Length: 99\r\n")}{`, (socket) => socket.destroy()],
  ["sends a bad chunk", () => `${head("POST", "Transfer-Encoding: chunked\r\n")}1\r\n{\r\nZZ\r\n`, () => undefined],
  [
    "resets in a call",
    () => `${head("POST", `Content-Length: ${call.length}\r\n`)}${call}`,
    (socket) => socket.resetAndDestroy(),
  ],
  ["resets a stream", () => head("GET", ""), (socket) => socket.resetAndDestroy()],
];
for (const [what, bytes, leave] of departures) {
  test(`a client that ${what} is no error of ours`, async () => {
    release = Promise.withResolvers();
    const called = backend.bodies("tools/call").length;
    const left = vmcp.logs().filter(isDeparture).length;
    const { hostname, port } = new URL(vmcp.address);
    const socket = connect(Number(port), hostname);
    socket.on("error", () => undefined);
    socket.write(bytes());
    await once(socket, "connect");
    if (what.endsWith("call")) await eventually("the call arrives", () => backend.bodies("tools/call").length > called);
    else if (what.endsWith("stream")) await once(socket, "data");
    else await session.ask("ping"); // by now the server has read what was sent before
    leave(socket);
    socket.resume();
    await eventually("it is noticed", () => vmcp.logs().filter(isDeparture).length > left);
    release.resolve();
    assert.deepEqual(
      vmcp.logs().filter(({ level, msg }) => Number(level) >= 40 && !/VMCP_SESSION_HMAC_SECRET|^plain text here/.test(msg ?? "")),
      [],
    );
  });
}

test("a proxy lets in the name it told the other replicas, and no other", async () => {
  const flags = ["--control-plane", "127.0.0.1:1", "--port", "0", "--advertise", "http://Mesh-A.internal:4483"];
  await using proxy = await startVmcp(["proxy", "--id", "named", ...flags], { isReady: false });
  const ask = async (host: string) => (await send(`${proxy.address}/health`, { headers: { host } })).status;
  assert.equal(await ask("mesh-a.internal:4483"), 200);
  assert.equal(await ask("mesh-b.internal:4483"), 403);
});

const isDeparture = ({ msg }: { msg?: string }) => msg === "a client's connection failed";
