// A thousand sessions at once on one `vmcp serve`: nobody gets what is somebody else's, and clients that stop reading cost
// neither memory nor the others' time. Longer than most: half of it is the load, which no other test wants.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, setGlobalDispatcher } from "undici";
import { type Call, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession, type RawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { readRpc } from "../support/json.ts";
import { serve } from "../support/serve.ts";

const sessionsCount = 1_000;
setGlobalDispatcher(new Agent({ keepAliveTimeout: 60_000 })); // a connection per request in flight, all kept

test("a thousand sessions that all use the ids 0, 1 and 2 at once each get their own answers", async (t) => {
  await using backend = await startBackend({ tools: [plainTool("echo")], calls: { echo } });
  // A backend takes 256 calls at once; enough of them take all that are in flight here.
  const names = Array.from({ length: 16 }, (_, i) => `b${i}`);
  // That there is too much to do is not the question.
  await using vmcp = await serve({ backends: names.map((name) => httpBackend(name, backend.url)) }, ["--max-in-flight", "0"]);
  const sessions = await openSessions(vmcp.url, (i) => `b${i % names.length}_echo`);
  const startedMs = performance.now();
  let inFlightMax = 0;
  let inFlight = 0;
  let notices = 0;
  for (let round = 0; round < 2; round++) {
    const asked = sessions.flatMap(({ session, tool }, i) =>
      [0, 1, 2].map(async (id) => {
        const nonce = `${i}/${id}/${round}`;
        inFlightMax = Math.max(inFlightMax, ++inFlight);
        const { messages, status, body } = await session.ask("tools/call", callParams(tool, i, nonce, id), String(id));
        inFlight--;
        assert.equal(status, 200, body);
        notices += messages.length - 1;
        assert.deepEqual(
          messages.map((message) => summary(message)),
          expected(nonce, i, id, messages.length - 1),
        );
      }),
    );
    await Promise.all(asked);
  }
  assert.equal(inFlightMax, 3 * sessionsCount);
  assert.ok(notices > sessionsCount, `${notices} notifications came between`);
  t.diagnostic(`${6 * sessionsCount} calls, ${notices} notifications in ${seconds(startedMs)} s`);
});

test("a thousand clients that stop reading cost no memory, and others no time", { skip: whyNotPaused() }, async (t) => {
  await using backend = await startChatty();
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)] });
  const sessions = await openSessions(vmcp.url, () => "b_echo");
  const quick = await openRawSession(vmcp.url);
  await inBatches(sessions, async ({ session }) => void (await session.result("tools/call", `{"name":"b_echo"}`)));
  const restingMb = await residentMb(vmcp.pid);

  // Most stop reading the stream of their session, some that of a call.
  await using _readers = await startPausedReaders(
    vmcp.url,
    sessions.map(({ session }, i) => (i % 10 === 0 ? pausedCall(session.id) : pausedStream(session.id))),
  );
  await eventually("the backend has them all", () => backend.streams() >= sessionsCount, 20_000);

  let residentMbMax = 0;
  const latencies: number[] = [];
  const pushing = backend.push();
  while (!backend.isDone()) {
    const startedMs = performance.now();
    assert.match(await quick.result("tools/call", `{"name":"b_echo"}`), /"result"/);
    latencies.push(performance.now() - startedMs);
    residentMbMax = Math.max(residentMbMax, await residentMb(vmcp.pid));
    await sleep(5); // a caller's own pace; nothing waits for it
  }
  await pushing;
  const p99 = latencies.sort((a, b) => a - b)[Math.floor(latencies.length * 0.99)] as number;
  t.diagnostic(
    `${restingMb} MB at rest, ${residentMbMax} MB at most; ${latencies.length} calls of another session, p99 ${p99.toFixed(0)} ms; ` +
      `offered ${mb(backend.offeredBytes())} MB, taken ${mb(backend.takenBytes())} MB`,
  );
  assert.ok(backend.takenBytes() > sessionsCount * 256 * 1_024, "every stream was filled");
  assert.ok(latencies.length >= 100, `${latencies.length} calls`);
  assert.ok(residentMbMax < 512, `${residentMbMax} MB`);
  assert.ok(p99 < 250, `p99 ${p99} ms`);
});

/** Says now and then how far it is, and answers with the caller's nonce and the one its session began with. */
async function echo({ params, session, notify }: Call): Promise<string> {
  const { nonce, owner } = params.arguments as { nonce: string; owner: number };
  const { progressToken } = params._meta as { progressToken: number };
  if (!session.has("owner")) session.set("owner", owner);
  const count = randomInt(4);
  for (let progress = 1; progress <= count; progress++) {
    await sleep(randomInt(20));
    notify(
      JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params: { progressToken, progress, message: nonce } }),
    );
  }
  await sleep(randomInt(20));
  return textResult(`${nonce} of ${session.get("owner")}`);
}

const callParams = (name: string, owner: number, nonce: string, progressToken: number) =>
  JSON.stringify({ name, arguments: { nonce, owner }, _meta: { progressToken } });

/** What a message says, and to whom. */
function summary(message: string): unknown[] {
  const { id, params, result } = JSON.parse(message);
  return params ? [params.progressToken, params.progress, params.message] : [id, result?.content[0].text];
}

function expected(nonce: string, owner: number, id: number, notices: number): unknown[][] {
  return [...Array.from({ length: notices }, (_, i) => [id, i + 1, nonce]), [id, `${nonce} of ${owner}`]];
}

interface Opened {
  readonly session: RawSession;
  readonly tool: string;
}

/** Opens the sessions, not all at the same moment, once every tool is listed. */
async function openSessions(url: string, toolOf: (i: number) => string): Promise<Opened[]> {
  const first = await openRawSession(url);
  const tools = new Set(Array.from({ length: sessionsCount }, (_, i) => toolOf(i)));
  await eventually("the tools are listed", async () => {
    const listed = await first.result("tools/list");
    return [...tools].every((tool) => listed.includes(`"${tool}"`));
  });
  const opened: Opened[] = [];
  while (opened.length < sessionsCount) {
    const batch = Array.from({ length: 50 }, async (_, i) => ({
      session: await openRawSession(url),
      tool: toolOf(opened.length + i),
    }));
    opened.push(...(await Promise.all(batch)));
  }
  return opened;
}

const seconds = (sinceMs: number) => ((performance.now() - sinceMs) / 1_000).toFixed(1);

/** Runs work for every item, 50 at a time. */
async function inBatches<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  for (let i = 0; i < items.length; i += 50) await Promise.all(items.slice(i, i + 50).map(work));
}

interface Chatty extends AsyncDisposable {
  readonly url: string;
  /** Streams that could be pushed to: sessions' and calls'. */
  streams(): number;
  /** Pushes to every stream for `pushMs`, evenly, `offeredBytesEach` in all; a stream that does not take more is left out. */
  push(): Promise<void>;
  isDone(): boolean;
  /** What it wanted to send, and what was taken from it. */
  offeredBytes(): number;
  takenBytes(): number;
}

const pushMs = 15_000;
const kernelMbMax = 512;
const lookMs = 250;
const offeredBytesEach = 2.2 * 1024 * 1024; // times a thousand: more than 2 GB

/** A backend that talks more than anybody listens; it honours back-pressure, so that its own queues are not what is measured. */
async function startChatty(): Promise<Chatty> {
  const streams = new Set<ServerResponse>();
  let offered = 0;
  let taken = 0;
  let isDone = false;
  const server = createServer(async (request, response) => {
    const body = await text(request);
    const message = request.method === "POST" ? readRpc(body) : undefined;
    const isPaused = request.method === "GET" || body.includes(`"paused"`);
    if (isPaused) {
      streams.add(response);
      response.once("close", () => streams.delete(response));
      return void response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
    }
    const result = results[message?.method ?? ""];
    if (!result || !message?.id) return void response.writeHead(202).end();
    response.writeHead(200, { "content-type": "application/json", "mcp-session-id": String(++minted) });
    response.end(`{"jsonrpc":"2.0","id":${message.id},"result":${result}}`);
  });
  let minted = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/mcp`,
    streams: () => streams.size,
    isDone: () => isDone,
    offeredBytes: () => offered,
    takenBytes: () => taken,
    async push() {
      const startedMs = performance.now();
      let lookedMs = startedMs;
      let isHeldBack = false;
      const everyone = [...streams];
      const eventsTotal = Math.round((everyone.length * offeredBytesEach) / chatter.length);
      for (let sent = 0; sent < eventsTotal; ) {
        // What vmcp does not take stays in the operating system's buffers, and all programs here share what there is of them.
        if (performance.now() - lookedMs > lookMs) {
          isHeldBack = (await kernelMb(port)) > kernelMbMax;
          lookedMs = performance.now();
        }
        const due = Math.min(eventsTotal, Math.ceil(((performance.now() - startedMs) / pushMs) * eventsTotal));
        for (; sent < due; sent++) {
          offered += chatter.length;
          const stream = everyone[sent % everyone.length] as ServerResponse;
          if (isHeldBack || stream.destroyed || stream.writableNeedDrain) continue;
          taken += chatter.length;
          stream.write(chatter);
        }
        await sleep(10);
      }
      isDone = true;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const results: Readonly<Record<string, string>> = {
  initialize: `{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"logging":{}},"serverInfo":{"name":"chatty","version":"1"}}`,
  "tools/list": `{"tools":[${plainTool("echo")},${plainTool("paused")}]}`,
  "tools/call": textResult("hello"),
  ping: "{}",
};
const chatter = Buffer.from(
  `data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"${"x".repeat(64 * 1024)}"}}\n\n`,
);

interface PausedRequest {
  readonly head: string;
  readonly body: string;
}

const sessionHeaders = (id: string) => `Host: 127.0.0.1\r\nMcp-Session-Id: ${id}\r\nMcp-Protocol-Version: 2025-11-25`;
const pausedStream = (id: string): PausedRequest => ({
  head: `GET /mcp HTTP/1.1\r\n${sessionHeaders(id)}\r\nAccept: text/event-stream`,
  body: "",
});
const pausedCall = (id: string): PausedRequest => ({
  head: `POST /mcp HTTP/1.1\r\n${sessionHeaders(id)}\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json`,
  body: `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"b_paused"}}`,
});

// The operating system would take megabytes for each connection before vmcp feels that nobody reads. Small segments and a small
// receive buffer keep that to kilobytes; Node can't ask for them, so the readers are a program of a few lines.
const pausedReaders = `
import json, socket, sys
held = []
port, requests = json.loads(sys.stdin.readline())
for request in requests:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    s.connect(("127.0.0.1", port))
    s.sendall((request["head"] + "\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(request["body"]) + request["body"]).encode())
    held.append(s)
print("sent", flush=True)
sys.stdin.read()
`;

/** Sends every request on a connection of its own and never reads. */
async function startPausedReaders(url: string, requests: readonly PausedRequest[]): Promise<AsyncDisposable> {
  const child = spawn("python3", ["-c", pausedReaders], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.write(`${JSON.stringify([Number(new URL(url).port), requests])}\n`);
  await once(createInterface(child.stdout), "line", { signal: AbortSignal.timeout(20_000) });
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
    },
  };
}

function whyNotPaused(): string | false {
  if (process.platform !== "linux") return "reads /proc";
  return spawnSync("python3", ["-c", ""]).status === 0 ? false : "python3 is not installed";
}

async function residentMb(pid: number): Promise<number> {
  const [, kb] = /VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, "utf8")) ?? [];
  return Math.round(Number(kb) / 1_024);
}

/** What the connections of a server hold in the buffers of both ends. */
async function kernelMb(port: number): Promise<number> {
  const lines = (await readFile("/proc/net/tcp", "utf8")).split("\n");
  const ending = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  let bytes = 0;
  for (const line of lines) {
    const [, local, remote, , queues] = line.trim().split(/\s+/);
    if (!local?.endsWith(ending) && !remote?.endsWith(ending)) continue;
    for (const queue of queues?.split(":") ?? []) bytes += Number.parseInt(queue, 16);
  }
  return mb(bytes);
}

const mb = (bytes: number) => Math.round(bytes / 1_048_576);
