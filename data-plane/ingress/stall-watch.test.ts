import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { test } from "node:test";
import { eventually } from "../../test/support/eventually.ts";
import { respondJson } from "./answer.ts";
import { createStallWatch } from "./stall-watch.ts";

// Far more than the kernel takes for a client that does not read.
const large = Buffer.alloc(32 * 1024 * 1024, "x");
const watch = createStallWatch({ lookMs: 20, looksMax: 10 });

test("a client that reads nothing is cut off", async () => {
  await using one = await exchange((response) => respondJson(response, large, { watch }));
  await one.closed;
  assert.equal(one.response.writableFinished, false);
});

test("a client that reads a little, now and then, gets everything", async () => {
  await using one = await exchange((response) => respondJson(response, large, { watch }));
  let bytes = 0;
  one.socket.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    one.socket.pause();
    setTimeout(() => one.socket.resume(), 1);
  });
  await eventually("all was read", () => bytes > large.length, 60_000);
  assert.equal(one.response.writableFinished, true);
});

test("a stream on which nothing is said is left alone", async () => {
  await using idle = await exchange((response) => {
    response.writeHead(200).flushHeaders();
    watch(response);
  });
  await using stalled = await exchange((response) => respondJson(response, large, { watch }));
  await stalled.closed;
  assert.equal(idle.response.closed, false);
});

/** A client that asks and does not read, and how it is answered. */
async function exchange(answer: (response: ServerResponse) => void) {
  const server = createServer((_request, response) => answer(response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const asked = once(server, "request");
  const socket: Socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  socket.on("error", () => undefined); // reset by the server
  socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const response = (await asked)[1] as ServerResponse;
  return {
    socket,
    response,
    closed: response.closed ? Promise.resolve() : once(response, "close", { signal: AbortSignal.timeout(10_000) }),
    async [Symbol.asyncDispose]() {
      socket.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
