import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { openLog } from "../../common/log.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { BackendError } from "./errors.ts";
import type { PipeEvents } from "./pipe.ts";
import { openSse } from "./sse.ts";

const log = openLog("test", "silent");
const nothing = { credential: sameForAll([]), asker: () => ({}) };
const exact = `{"jsonrpc":"2.0","id":9007199254740993,"result":{"n":[1.0,1e400],"☃":"\\u00e9","unknown":{"a":1}}}`;

test("messages keep their bytes in both directions, and headers go with every request", async () => {
  await using server = await serve();
  const inbox = collect();
  const pipe = await openSse(
    { name: "s", url: server.url, credential: sameForAll(["x-key", "k"]), asker: () => ({}), log },
    inbox.events,
  );
  pipe.setProtocolVersion?.("2024-11-05");
  await pipe.send(Buffer.from(exact));
  const post = server.posts[0];
  assert.equal(post?.body, exact);
  assert.equal(post?.headers["x-key"], "k");
  assert.equal(post?.headers["content-type"], "application/json");
  assert.equal(post?.headers["mcp-protocol-version"], "2024-11-05");
  assert.equal(server.streamHeaders?.["x-key"], "k");
  server.push(`event: message\ndata: ${exact}\n\n`);
  assert.equal(await inbox.next(), exact);
  await pipe.close();
  assert.equal(await inbox.closed, undefined);
});

test("a message that arrives together with the endpoint is not lost", async () => {
  await using server = await serve({ greeting: `event: endpoint\ndata: /post\n\nevent: message\ndata: {"early":1}\n\n` });
  const inbox = collect();
  const pipe = await openSse({ name: "s", url: server.url, ...nothing, log }, inbox.events);
  assert.equal(await inbox.next(), '{"early":1}');
  await pipe.close();
});

test("a stream that ends closes the pipe once, with a reason, and is not reopened", async () => {
  await using server = await serve();
  const inbox = collect();
  const pipe = await openSse({ name: "s", url: server.url, ...nothing, log }, inbox.events);
  server.endStream();
  assert.match((await inbox.closed)?.message ?? "", /"s" closed its event stream/);
  await assert.rejects(pipe.send(Buffer.from("{}")), /not connected/);
  await pipe.close();
  assert.equal(inbox.closes(), 1);
  assert.equal(server.streams(), 1);
});

test("a post that is refused rejects, and the pipe stays open", async () => {
  await using server = await serve({ postStatus: 500 });
  const inbox = collect();
  const pipe = await openSse({ name: "s", url: server.url, ...nothing, log }, inbox.events);
  await assert.rejects(pipe.send(Buffer.from("{}")), /HTTP 500/);
  server.push(`data: {"still":1}\n\n`);
  assert.equal(await inbox.next(), '{"still":1}');
  await pipe.close();
});

for (const [what, script, code, outcome] of [
  ["that the server failed to take", { postStatus: 500 }, "unavailable", "unknown"],
  ["that was cut after the server had it", { cutsPosts: true }, "unavailable", "unknown"],
  ["that was refused", { postStatus: 413 }, "refused", "not_executed"],
  ["that wants another credential", { postStatus: 401 }, "unauthorized", "not_executed"],
  ["to a server that takes no connections", { isDeaf: true }, "unavailable", "not_executed"],
] as const) {
  test(`a post ${what} is ${code}, ${outcome}`, async () => {
    await using server = await serve(script);
    const pipe = await openSse({ name: "s", url: server.url, ...nothing, log }, collect().events);
    await assert.rejects(pipe.send(Buffer.from("{}")), (error) => {
      assert.ok(error instanceof BackendError, String(error));
      assert.deepEqual([error.code, error.outcome], [code, outcome]);
      return true;
    });
    assert.equal(server.posts.length, what === "to a server that takes no connections" ? 0 : 1);
    await pipe.close();
  });
}

for (const [what, options, wanted] of [
  ["an endpoint on another origin", { greeting: "event: endpoint\ndata: http://localhost:1/post\n\n" }, /origin/],
  ["a server without such a path", { streamStatus: 404 }, /cannot connect "s" to http:\/\/127\.0\.0\.1:\d+\/sse: .*404/],
  ["a redirect to another origin", { redirect: "http://localhost:1/sse" }, /[Rr]edirect/],
] as const) {
  test(`${what} is refused`, async () => {
    await using server = await serve(options);
    await assert.rejects(
      openSse({ name: "s", url: `${server.url}?key=hush`, ...nothing, log }, collect().events),
      (error: Error) => {
        assert.match(error.message, wanted);
        assert.doesNotMatch(error.message, /hush/);
        return true;
      },
    );
  });
}

test("a server that names no endpoint in time is given up", async () => {
  await using server = await serve({ greeting: ": nothing\n\n" });
  await assert.rejects(
    openSse({ name: "s", url: server.url, ...nothing, log, connectMs: 50 }, collect().events),
    /no endpoint within 0\.05 s/,
  );
});

test("a server that is not there is refused", async () => {
  const server = await serve();
  await server[Symbol.asyncDispose]();
  await assert.rejects(openSse({ name: "s", url: server.url, ...nothing, log }, collect().events), /cannot connect "s"/);
});

interface Script {
  readonly greeting?: string;
  readonly streamStatus?: number;
  readonly postStatus?: number;
  readonly redirect?: string;
  /** Every POST is read, and its connection cut. */
  readonly cutsPosts?: boolean;
  /** It takes no connection after the one for the stream. */
  readonly isDeaf?: boolean;
}

async function serve(script: Script = {}) {
  const { greeting = "event: endpoint\ndata: /post?session=1\n\n", streamStatus = 200, postStatus = 202, redirect } = script;
  const posts: { headers: IncomingMessage["headers"]; body: string }[] = [];
  let stream: ServerResponse | undefined;
  let streamHeaders: IncomingMessage["headers"] | undefined;
  let streams = 0;
  const server = createServer(async (request, response) => {
    if (request.method === "POST") {
      posts.push({ headers: request.headers, body: await text(request) });
      if (script.cutsPosts) return void request.socket.destroy();
      response.writeHead(postStatus).end();
      return;
    }
    streams++;
    streamHeaders = request.headers;
    if (redirect) response.writeHead(302, { location: redirect }).end();
    else if (streamStatus !== 200) response.writeHead(streamStatus).end();
    else {
      stream = response.writeHead(200, { "content-type": "text/event-stream" });
      if (script.isDeaf) server.close();
      stream.write(greeting);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/sse`,
    posts,
    get streamHeaders() {
      return streamHeaders;
    },
    streams: () => streams,
    push: (text: string) => stream?.write(text),
    endStream: () => stream?.end(),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function collect() {
  const received: string[] = [];
  const arrivals = new EventTarget();
  const { promise: closed, resolve } = Promise.withResolvers<Error | undefined>();
  let closes = 0;
  const events: PipeEvents = {
    onMessage: (message) => {
      received.push(message.toString());
      arrivals.dispatchEvent(new Event("message"));
    },
    onClose: (reason) => {
      closes++;
      resolve(reason);
    },
  };
  const next = async () => {
    while (received.length === 0) await once(arrivals, "message", { signal: AbortSignal.timeout(10_000) });
    return received.shift() as string;
  };
  return { events, closed, closes: () => closes, next };
}
