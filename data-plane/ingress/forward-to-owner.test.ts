import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { test } from "node:test";
import { request } from "undici";
import { createOwnerForwarder } from "./forward-to-owner.ts";

const body = `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t"}}`;
const limits = { headersMs: 500, idleMs: 1_500 };

for (const method of ["POST", "GET", "DELETE"] as const) {
  test(`a ${method} for an owner that is frozen is answered: what became of it is not known`, async () => {
    await using owner = await listen(createTcpServer()); // the kernel takes connections, nobody reads them
    await using replica = await forwardTo(owner.address);
    const answer = await request(replica.address, { method, ...(method === "POST" ? { body } : {}) });
    assert.equal(answer.statusCode, 504);
    const { error } = (await answer.body.json()) as { error: { code: number; message: string; data: unknown } };
    assert.equal(error.code, -32603);
    assert.match(error.message, /not known/);
    assert.deepEqual(error.data, { reason: "owner_timeout", outcome: "unknown" });
  });
}

test("an owner that hangs up on a request leaves its outcome unknown too", async () => {
  await using owner = await serve((incoming) => void incoming.resume().once("end", () => incoming.socket.destroy()));
  await using replica = await forwardTo(owner.address);
  const answer = await request(replica.address, { method: "POST", body });
  assert.equal(answer.statusCode, 502);
  assert.match(await answer.body.text(), /"outcome":"unknown"/);
});

test("an owner that is gone took the session with it", async () => {
  const owner = await listen(createTcpServer());
  await owner[Symbol.asyncDispose]();
  await using replica = await forwardTo(owner.address);
  const answer = await request(replica.address, { method: "POST", body });
  assert.equal(answer.statusCode, 404);
  await answer.body.dump();
});

test("a stream that falls silent is cut, one with comments goes on", async () => {
  let said = 0;
  await using owner = await serve((incoming, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" }).write("data: 1\n\n");
    if (incoming.url === "/silent") return;
    const comments = setInterval(() => {
      response.write(": keep-alive\n\n");
      if (++said === 12) response.end("data: 2\n\n");
    }, 250);
    response.once("close", () => clearInterval(comments));
  });
  await using replica = await forwardTo(owner.address);
  const silent = await request(`${replica.address}/silent`);
  await assert.rejects(silent.body.text());
  const talking = await request(`${replica.address}/talking`);
  assert.match(await talking.body.text(), /data: 2/);
});

/** A replica that sends everything to `owner`. */
async function forwardTo(owner: string) {
  const owners = createOwnerForwarder(limits);
  const replica = await serve(async (incoming, response) => {
    incoming.resume();
    await owners.forward(owner, incoming, response, incoming.method === "POST" ? Buffer.from(body) : undefined);
  });
  return {
    address: replica.address,
    async [Symbol.asyncDispose]() {
      await replica[Symbol.asyncDispose]();
      await owners[Symbol.asyncDispose]();
    },
  };
}

const serve = (listener: RequestListener) => listen(createServer(listener));

async function listen(server: Server) {
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
