// What is known of a request whose connection breaks. The server is a thread of its own, so that we can stand still while it
// closes a connection, and then write to it before we could have noticed.
import assert from "node:assert/strict";
import { once } from "node:events";
import { stat } from "node:fs";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { pino } from "pino";
import { readMessage, request } from "../mcp/json-rpc.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { BackendError } from "./errors.ts";
import { post } from "./http-post.ts";
import { createHttpTarget, type HttpTarget } from "./http-target.ts";

const answered = "answered";
const notExecuted = "not_executed";
const unknown = "unknown";

/** `poll` is where a request is written before news of its connection can come in, `check` where it comes in first. */
const cases: readonly [what: string, act: Act, phase: "poll" | "check", outcome: string, requests: number][] = [
  ["that the server closed, and we have seen it", "close", "check", answered, 2],
  ["that the server reset, and we have seen it", "reset", "check", notExecuted, 1],
  ["that the server closed, unseen", "close", "poll", unknown, 1],
  ["that the server reset, unseen", "reset", "poll", notExecuted, 1],
];
for (const [what, act, phase, outcome, requests] of cases) {
  for (const bytes of [100, 60_000]) {
    test(`a request of ${bytes} bytes on an idle connection ${what}: ${outcome}`, async (t) => {
      const { server, target } = await setUp(t);
      assert.equal(await outcomeOf(target), answered);
      await sleep(20);
      await phases[phase]();
      server.act(act);
      assert.equal(await outcomeOf(target, bytes), outcome);
      assert.equal(server.requests(), requests);
    });
  }
}

test("a request that the server has read before it cut the connection: unknown", async (t) => {
  const { server, target } = await setUp(t);
  server.answersNothing();
  assert.equal(await outcomeOf(target), unknown);
  assert.equal(server.requests(), 1);
});

const phases = {
  poll: () => new Promise<void>((resolve) => stat(".", () => resolve())),
  check: () => new Promise<void>((resolve) => setImmediate(resolve)),
};

async function outcomeOf({ calls, path }: HttpTarget, bytes = 100): Promise<string> {
  const message = readMessage(request("tools/call", JSON.stringify({ name: "t", text: "x".repeat(bytes) }), "1"));
  const { signal } = new AbortController();
  const sending = { path, headers: [], body: message.json, awaited: message, signal, onMessage: () => undefined };
  try {
    await post(calls, { ...sending, hasSession: false });
    return answered;
  } catch (error) {
    assert.ok(error instanceof BackendError, String(error));
    assert.equal(error.code, "unavailable");
    return error.outcome;
  }
}

async function setUp(t: TestContext) {
  const shared = new Int32Array(new SharedArrayBuffer(16));
  const worker = new Worker(serverSource, { eval: true, workerData: shared });
  const [port] = await once(worker, "message");
  const log = pino({ level: "silent" });
  const target = createHttpTarget({ url: `http://127.0.0.1:${port}/`, credential: sameForAll([]), log });
  t.after(async () => {
    await target.close();
    await worker.terminate();
  });
  const server = {
    /** Ends the last connection; when this returns, the news is on its way and we have read nothing. */
    act(act: Act): void {
      Atomics.store(shared, command, acts.indexOf(act) + 1);
      assert.notEqual(Atomics.wait(shared, done, 0, 10_000), "timed-out");
    },
    answersNothing: () => void Atomics.store(shared, silent, 1),
    requests: () => Atomics.load(shared, requests),
  };
  return { server, target };
}

type Act = (typeof acts)[number];
const acts = ["close", "reset"] as const;
const [command, done, silent, requests] = [0, 1, 2, 3] as const;

const serverSource = `
  const { workerData: shared, parentPort } = require("node:worker_threads");
  const { createServer } = require("node:net");
  const answer = '{"jsonrpc":"2.0","id":1,"result":{}}';
  let last;
  const server = createServer((socket) => {
    last = socket;
    let text = "";
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      text += chunk;
      const [head, body] = text.split("\\r\\n\\r\\n");
      if (body === undefined || body.length < Number(/content-length: (\\d+)/.exec(head)[1])) return;
      text = "";
      Atomics.add(shared, ${requests}, 1);
      if (Atomics.load(shared, ${silent})) return socket.destroy();
      socket.write("HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: " + answer.length + "\\r\\n\\r\\n" + answer);
    });
  });
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
  setInterval(() => {
    const act = Atomics.exchange(shared, ${command}, 0);
    if (!act) return;
    if (act === 1) last.destroy();
    else last.resetAndDestroy();
    last.once("close", () => setTimeout(() => {
      Atomics.store(shared, ${done}, 1);
      Atomics.notify(shared, ${done});
    }, 5));
  }, 1);
`;
