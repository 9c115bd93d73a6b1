import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { createSseStream, type SseStream, type SseStreamOptions } from "./sse-stream.ts";

test("the first event says where to post, and every message is one event", async () => {
  await using client = await connectTo({ endpoint: "/messages?sessionId=x" });
  const { stream, socket } = client;
  void stream.send(Buffer.from(`{"n":1}`));
  const answer = stream.expect();
  void answer.notify(Buffer.from(`{"n":2}`));
  answer.respond(Buffer.from(`{"n":3}`));
  stream.end();
  assert.deepEqual(eventsIn(await text(socket)), [
    "event: endpoint\ndata: /messages?sessionId=x",
    `event: message\ndata: {"n":1}`,
    `event: message\ndata: {"n":2}`,
    `event: message\ndata: {"n":3}`,
  ]);
});

test("line breaks in a message don't break the event", async () => {
  await using client = await connectTo();
  void client.stream.send(Buffer.from(`{\r\n  "text": "a\\nb",\n\n  "n": 12345678901234567890\r}`));
  client.stream.end();
  const [, message = ""] = eventsIn(await text(client.socket));
  assert.equal(message, `event: message\ndata: {    "text": "a\\nb",    "n": 12345678901234567890 }`);
});

test("the stream ends only when what is expected has been answered", async () => {
  await using client = await connectTo();
  const { stream, socket } = client;
  const answers = [stream.expect(), stream.expect()];
  stream.end();
  assert.equal(stream.isEnding, true);
  answers[0]?.close();
  answers[1]?.respond(Buffer.from(`{"late":true}`));
  assert.match(await text(socket), /"late":true/);
  await until(stream.closed);
});

test("a client that is gone is noticed, and what comes after is dropped", async () => {
  await using client = await connectTo();
  const { stream, socket } = client;
  const answer = stream.expect();
  socket.destroy();
  await until(stream.closed);
  void stream.send(Buffer.from("{}"));
  answer.respond(Buffer.from("{}"));
  stream.end();
});

test("whoever waits as long as a slow client asks for never has it cut off", async () => {
  await using client = await connectTo();
  const { stream, socket, response } = client;
  socket.pause();
  const message = Buffer.from(JSON.stringify("x".repeat(60_000)));
  let count = 0;
  let taken: Promise<void> | undefined;
  while (!taken) {
    taken = stream.send(message);
    count++;
    await new Promise(setImmediate);
  }
  assert.equal(stream.send(message), taken, "all who wait wait for the same");
  assert.ok(response.writableLength < 256 * 1024);
  const received = text(socket);
  await taken;
  assert.equal(stream.send(message), undefined);
  stream.end();
  assert.equal(eventsIn(await received).length, count + 3);
});

test("a client that takes nothing is cut off after a while, one that takes little is not", async () => {
  await using paused = await connectTo({ stalledMs: 500 });
  await using slow = await connectTo({ stalledMs: 500 });
  const large = Buffer.from(JSON.stringify("x".repeat(8_000_000)));
  for (const { socket, stream } of [paused, slow]) {
    socket.pause();
    stream.expect().respond(large);
    stream.end();
  }
  slow.socket.on("data", () => {
    slow.socket.pause();
    setTimeout(() => slow.socket.resume(), 10); // in all, longer than a client may take nothing
  });
  slow.socket.resume();
  await until(paused.stream.closed);
  await until(slow.stream.closed);
  if (!slow.socket.readableEnded) await once(slow.socket, "end");
  assert.equal(slow.socket.bytesRead > large.length, true);
});

test("a client that does not read is cut off once 256 KB of notifications wait", async () => {
  await using client = await connectTo();
  const { stream, socket, response } = client;
  socket.pause();
  const message = Buffer.from(JSON.stringify("x".repeat(60_000)));
  let mostBytes = 0;
  while (!response.destroyed) {
    void stream.send(message);
    mostBytes = Math.max(mostBytes, response.writableLength);
    await new Promise(setImmediate); // lets the socket take what it can
  }
  assert.ok(mostBytes < 400_000, `${mostBytes} bytes waited`);
  await until(stream.closed);
});

test("a client that reads gets many large answers that came at once", async () => {
  await using client = await connectTo();
  const { stream, socket } = client;
  const large = Buffer.from(JSON.stringify("x".repeat(500_000)));
  const answers = Array.from({ length: 8 }, () => stream.expect());
  for (const answer of answers) {
    void answer.notify(Buffer.from("{}"));
    answer.respond(large);
  }
  stream.end();
  const events = eventsIn(await text(socket));
  assert.equal(events.filter((event) => event.length > 500_000).length, 8);
});

test("answers that nobody reads are cut off too, at 4 MB", async () => {
  await using client = await connectTo();
  const { stream, socket, response } = client;
  socket.pause();
  const large = Buffer.from(JSON.stringify("x".repeat(1_000_000)));
  let count = 0;
  for (; !response.destroyed && count < 100; count++) {
    stream.expect().respond(large);
    await new Promise(setImmediate);
  }
  assert.ok(response.destroyed, `${count} answers of 1 MB wait`);
});

const eventsIn = (raw: string): string[] =>
  raw
    .slice(raw.indexOf("\r\n\r\n") + 4)
    .split("\n\n")
    .filter((event) => event !== "");

const until = async (signal: AbortSignal): Promise<void> => {
  if (!signal.aborted) await once(signal, "abort");
};

interface Client extends AsyncDisposable {
  readonly stream: SseStream;
  readonly response: ServerResponse;
  /** Of the client, after its request. HTTP/1.0, so that what it reads is what was written. */
  readonly socket: Socket;
}

async function connectTo(options: Partial<SseStreamOptions> = {}): Promise<Client> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  socket.on("error", () => undefined); // a cut is what some tests are about
  socket.write("GET /sse HTTP/1.0\r\n\r\n");
  const [, response] = (await once(server, "request")) as [unknown, ServerResponse];
  return {
    stream: createSseStream(response, { endpoint: "/messages", ...options }),
    response,
    socket,
    async [Symbol.asyncDispose]() {
      socket.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
