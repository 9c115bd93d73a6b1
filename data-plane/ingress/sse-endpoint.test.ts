import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { request } from "undici";
import { openLog } from "../../common/log.ts";
import { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { believing } from "../../test/support/authenticators.ts";
import { oneKey } from "../mcp/seal.ts";
import { createOverload } from "../overload/overload.ts";
import { createRelay } from "../relay/relay.ts";
import { createCallerTokens } from "../session/caller-tokens.ts";
import { createLocalSessions } from "../session/local-sessions.ts";
import { createStreamIds } from "../session/stream-ids.ts";
import { createVirtualServer } from "../virtual-server.ts";
import { createOwnerForwarder } from "./forward-to-owner.ts";
import { createSseEndpoint, type SseOptions } from "./sse-endpoint.ts";

const secret = randomBytes(32);
const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`;
const initialize = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`;

test("a message that lands on another replica is taken by the one that has the stream", async () => {
  await using one = await startReplica();
  await using other = await startReplica();
  await using stream = await openStream(one.address, "ada");
  assert.equal(await post(other.address, stream.endpoint, "ada", initialize), 202);
  await stream.until(`"protocolVersion":"2024-11-05"`);
  assert.equal(await post(other.address, stream.endpoint, "ada", ping), 202);
  await stream.until(`{"jsonrpc":"2.0","id":1,"result":{}}`);
  assert.deepEqual([one.sessions.size, other.sessions.size], [1, 0]);
});

test("a replica without the secret, and one that is gone, answer 404", async () => {
  await using stranger = await startReplica({}, randomBytes(32));
  await using other = await startReplica();
  const one = await startReplica();
  await using stream = await openStream(one.address, "ada");
  assert.equal(await post(stranger.address, stream.endpoint, "ada", initialize), 404);
  await one[Symbol.asyncDispose]();
  assert.equal(await post(other.address, stream.endpoint, "ada", initialize), 404);
});

test("nobody posts to somebody else's stream, or without saying who they are", async () => {
  await using one = await startReplica();
  await using stream = await openStream(one.address, "ada");
  assert.equal(await post(one.address, stream.endpoint, "eve", initialize), 404);
  assert.equal(await post(one.address, stream.endpoint, "", initialize), 401);
  assert.equal((await request(`${one.address}/sse`)).statusCode, 401);
  assert.equal(await post(one.address, stream.endpoint, "ada", initialize), 202);
});

test("there are no more streams than allowed, and one that ends makes room", async () => {
  await using one = await startReplica({ streamsMax: 2 });
  const streams = [await openStream(one.address, "ada"), await openStream(one.address, "ada")];
  await assert.rejects(openStream(one.address, "ada"), /503/);
  const closed = once(one.closed, "closed");
  await streams[0]?.[Symbol.asyncDispose]();
  await closed;
  await using _next = await openStream(one.address, "ada");
  await streams[1]?.[Symbol.asyncDispose]();
});

test("a stream on which nobody initializes is ended", async () => {
  await using one = await startReplica({ initializeMs: 50 });
  await using unused = await openStream(one.address, "ada");
  await unused.ended;
});

test("a stream that initialized in time goes on, and its end ends the session", async () => {
  await using one = await startReplica({ initializeMs: 1_000 });
  await using unused = await openStream(one.address, "ada");
  const used = await openStream(one.address, "ada");
  await post(one.address, used.endpoint, "ada", initialize);
  await unused.ended;
  assert.equal(await post(one.address, used.endpoint, "ada", ping), 202);
  assert.equal(one.sessions.size, 1);
  const closed = once(one.closed, "closed");
  await used[Symbol.asyncDispose]();
  await closed;
  assert.equal(one.sessions.size, 0);
});

test("the session's end ends the stream", async () => {
  await using one = await startReplica();
  await using stream = await openStream(one.address, "ada");
  await post(one.address, stream.endpoint, "ada", initialize);
  await stream.until(`"id":0`);
  for (const session of [...one.sessions.all()]) one.sessions.end(session);
  await stream.ended;
});

/** One endpoint on a port of its own, for a virtual server without backends; callers say who they are in a header. */
async function startReplica(limits: Pick<Partial<SseOptions>, "streamsMax" | "initializeMs"> = {}, key = secret) {
  const closed = new EventEmitter<{ closed: [] }>(); // a stream is gone, and the endpoint knows
  const server = createServer((incoming, response) => {
    if (incoming.url?.startsWith("/messages")) return void endpoint.take(team, incoming, response);
    void endpoint.open(team, incoming, response, "");
    response.once("close", () => closed.emit("closed"));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const keys = oneKey(key);
  const ids = createStreamIds({ keys, self: () => ({ address, instance: "i" }) });
  const sessions = createLocalSessions({ idleMs: 60_000, sessionsMax: 10 });
  const log = openLog("test");
  const relay = createRelay({ keys, sessions: sessions.all, address: () => address, log });
  const owners = createOwnerForwarder();
  const tokens = createCallerTokens(keys);
  const overload = createOverload({}, { log });
  const endpoint = createSseEndpoint({
    sessions,
    overload,
    relay,
    owners,
    tokens,
    tap: { isOn: false, note: () => undefined, identityOf: () => "" },
    log,
    ids,
    publicUrl: undefined,
    bodyBytesMax: 100_000,
    streamsMax: 10,
    ...limits,
  });
  return {
    address,
    sessions,
    closed,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await sessions[Symbol.asyncDispose]();
      await owners[Symbol.asyncDispose]();
      overload[Symbol.dispose]();
    },
  };
}

const team = createVirtualServer({
  name: "team",
  spec: create(VirtualServerSchema, { aggregation: { conflictResolution: "prefix" } }),
  auth: believing(({ authorization }) =>
    authorization ? { issuer: "test", subject: authorization, isAnonymous: false } : undefined,
  ),
  backends: [],
});

/** Opens a stream and reads its first event. */
async function openStream(address: string, authorization: string) {
  const abort = new AbortController();
  const { statusCode, body } = await request(`${address}/sse`, { headers: { authorization }, signal: abort.signal });
  if (statusCode !== 200) throw new Error(`the stream was answered ${statusCode}`);
  let received = "";
  body.setEncoding("utf8").on("data", (chunk: string) => {
    received += chunk;
  });
  const ended = new Promise((resolve) => body.once("close", resolve));
  body.on("error", () => undefined); // aborted by us, or cut
  const until = async (part: string): Promise<void> => {
    while (!received.includes(part)) await once(body, "data", { signal: AbortSignal.timeout(10_000) });
  };
  await until("\n\n");
  return {
    endpoint: /data: (\S+)/.exec(received)?.[1] ?? "",
    ended,
    until,
    async [Symbol.asyncDispose]() {
      abort.abort();
      await ended;
    },
  };
}

async function post(address: string, endpoint: string, authorization: string, body: string): Promise<number> {
  const headers = { "content-type": "application/json", ...(authorization ? { authorization } : {}) };
  const answer = await request(address + endpoint, { method: "POST", headers, body });
  await answer.body.dump();
  return answer.statusCode;
}
