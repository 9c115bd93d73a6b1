// Clients that take their time, thousands at once: each is hung up on in time, and nobody else waits for them.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession, type RawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { startProcess } from "../support/processes.ts";
import { type Served, serve } from "../support/serve.ts";
import type { SlowKind, SlowReport } from "../support/slow-sockets.ts";

const bigBytes = 9 * 1024 * 1024; // more than kernels take for a client that does not read

const stack = new AsyncDisposableStack();
let backend: Backend;
let vmcp: Served;
let session: RawSession;

before(async () => {
  const calls = { hello: () => textResult("hi"), big: () => textResult("x".repeat(bigBytes)) };
  backend = stack.use(await startBackend({ tools: [plainTool("hello"), plainTool("big")], calls }));
  vmcp = stack.use(await serve({ backends: [httpBackend("b", backend.url)] }));
  session = await openRawSession(vmcp.url);
});
after(() => stack.disposeAsync());

describe("together", { concurrency: true }, () => {
  test("5,000 slow clients are hung up on in time, and others do not notice them", async (t) => {
    const count = Math.min(5_000, Math.floor(openFilesMax() * 0.8) - 500);
    if (count < 5_000) t.diagnostic(`only ${count} slow clients: this process may not open more files`);
    assert.ok(count > 300, `${count} connections prove nothing; raise the bound on open files`);
    const load = loadavg()[0] as number;
    const filesBefore = await openFiles();
    await sample(1_000); // warm
    const calmBefore = await sample(5_000);

    const script = join(import.meta.dirname, "../support/slow-sockets.ts");
    const slow = startProcess(process.execPath, [script, new URL(vmcp.address).port, String(count)]);
    const busy = await sample(30_000);
    const filesMax = Math.max(...busy.files);
    assert.equal(await slow.ended, 0, slow.stderr());
    const calmAfter = await sample(5_000);

    const report = JSON.parse(slow.stdout()) as Record<SlowKind, SlowReport>;
    t.diagnostic(JSON.stringify(report));
    const cutAfterMs: Record<SlowKind, number> = { silent: 10_000, headers: 10_000, body: 30_000 };
    for (const [kind, ms] of Object.entries(cutAfterMs) as [SlowKind, number][]) {
      const { opened, shortestMs, longestMs, statuses } = report[kind];
      assert.ok(opened >= count / 3 - 1, `${kind}: ${opened}`);
      assert.ok(shortestMs >= ms - 500, `${kind}: one was cut after ${shortestMs} ms already`);
      // One second between looks, and what a busy machine takes to close thousands.
      assert.ok(longestMs <= ms + 5_000, `${kind}: one lived ${longestMs} ms`);
      assert.deepEqual(statuses, ["408"], kind);
    }
    if (filesBefore > 0) {
      assert.ok(filesMax > count * 0.9, `all were open at once: ${filesMax}`);
      await eventually("files are closed again", async () => (await openFiles()) < filesBefore + 50);
    }

    assert.deepEqual([calmBefore.failed, busy.failed, calmAfter.failed], [0, 0, 0]);
    const [before, during, afterwards] = [calmBefore.p99, busy.p99, calmAfter.p99];
    t.diagnostic(
      `p99 of others: ${before} ms before, ${during} ms meanwhile (${busy.count} calls), ${afterwards} ms after; load ${load}`,
    );
    // On a machine that is busy with something else, or slower after than before, the ratio says nothing of ours.
    const isCalm = load < availableParallelism() && afterwards < before * 1.5 && before < afterwards * 1.5;
    if (!isCalm) return t.diagnostic("the machine was not calm: the ratio is not judged");
    const floorMs = 10; // below it, one collection of garbage decides
    assert.ok(during < 2 * Math.max(before, afterwards, floorMs), `p99 ${during} ms, before ${before} ms`);
  });

  test("a client that stops reading its answer is hung up on", async (t) => {
    if (process.platform !== "linux") return t.skip("only Linux tells how the other end of a connection is");
    const socket = connect(Number(new URL(vmcp.address).port), "127.0.0.1");
    socket.on("error", () => undefined);
    const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b_big"}}`;
    socket.write(
      `POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n` +
        `Mcp-Session-Id: ${session.id}\r\nContent-Length: ${call.length}\r\n\r\n${call}`,
    );
    await once(socket, "readable"); // the answer has begun
    await eventually("it is cut", () => isCut(socket), 60_000);
    let bytes = 0;
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    await once(socket, "close", { signal: AbortSignal.timeout(10_000) });
    assert.ok(bytes < bigBytes, `${bytes}`);
  });
});

test("a connection has 1,000 requests, and is kept 65 s between them", async () => {
  const socket = connect(Number(new URL(vmcp.address).port), "127.0.0.1");
  let answer = "";
  socket.setEncoding("latin1").on("data", (text: string) => {
    answer += text;
  });
  socket.on("error", () => undefined);
  socket.write("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_001));
  await once(socket, "close", { signal: AbortSignal.timeout(10_000) });
  assert.equal(answer.match(/HTTP\/1\.1 200/g)?.length, 1_000);
  assert.equal(answer.match(/HTTP\/1\.1 /g)?.length, 1_000);
  assert.match(answer, /^Keep-Alive: timeout=65/im);
  assert.match(answer.slice(answer.lastIndexOf("HTTP/1.1")), /^Connection: close/im);
});

interface Sample {
  readonly p99: number;
  readonly count: number;
  readonly failed: number;
  /** Of the proxy, once a second; 0 where the system does not tell. */
  readonly files: readonly number[];
}

/** Calls a tool forty times a second for so long, whether the calls before are answered or not. */
async function sample(ms: number): Promise<Sample> {
  const times: number[] = [];
  const files: number[] = [];
  const pending: Promise<void>[] = [];
  let failed = 0;
  const untilMs = performance.now() + ms;
  for (let i = 0; performance.now() < untilMs; i++) {
    if (i % 40 === 0) files.push(await openFiles());
    const startMs = performance.now();
    const call = session.result("tools/call", `{"name":"b_hello"}`).then(
      () => void times.push(performance.now() - startMs),
      () => void failed++,
    );
    pending.push(call);
    await sleep(25);
  }
  await Promise.all(pending);
  times.sort((a, b) => a - b);
  return { p99: Math.round((times[Math.floor(times.length * 0.99)] ?? 0) * 10) / 10, count: times.length, failed, files };
}

/** Files that the proxy has open; 0 where there is no /proc. */
async function openFiles(): Promise<number> {
  return readdir(`/proc/${vmcp.pid}/fd`).then(
    ({ length }) => length,
    () => 0,
  );
}

/** Whether the proxy has closed its end. The client can't see it: what was sent before waits for it. */
async function isCut({ localPort }: Socket): Promise<boolean> {
  const hex = (port: number | undefined) => Number(port).toString(16).toUpperCase().padStart(4, "0");
  const ends = `0100007F:${hex(Number(new URL(vmcp.address).port))} 0100007F:${hex(localPort)} `;
  const line = (await readFile("/proc/net/tcp", "latin1")).split("\n").find((one) => one.includes(ends));
  return line?.split(ends)[1]?.startsWith("01") !== true; // established
}

/** That a process may open here. */
function openFilesMax(): number {
  const { userLimits } = process.report.getReport() as { userLimits?: { open_files?: { soft?: number | string } } };
  const soft = Number(userLimits?.open_files?.soft);
  return Number.isFinite(soft) ? soft : 65_536;
}
