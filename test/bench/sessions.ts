// What sessions cost: opens 10,000 on one proxy, each with a session at two backends, lets them be reaped, and prints memory at each
// point. `npm run bench:sessions -- [--sessions N] [--redis]`. Exits with 1 when a bound is broken.

import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { counter, startBackend } from "../support/backend.ts";
import { mcpHeaders, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { startRedis } from "../support/redis.ts";
import { serve } from "../support/serve.ts";
import { say } from "./measure.ts";

const { values } = parseArgs({
  options: { sessions: { type: "string", default: "10000" }, redis: { type: "boolean", default: false } },
});
const count = Number(values.sessions);
const ttlMs = 75_000; // longer than it takes to open them all
const rssMbMax = 512;
const atOnce = 32;

await using stack = new AsyncDisposableStack();
process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex");
const script = { tools: [counter.tool], calls: { counter: counter.call } };
const [one, two] = [stack.use(await startBackend(script)), stack.use(await startBackend(script))];
const flags = values.redis ? ["--redis", stack.use(await startRedis()).url] : [];
const backends = [httpBackend("one", one.url), httpBackend("two", two.url)];
const vmcp = stack.use(await serve({ backends }, ["--session-ttl", `${ttlMs / 1000}s`, ...flags]));
const own = one.sessions().length; // the gateway's

const mb = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(0)} MB`;

/** Of the proxy, bytes. */
async function rss(): Promise<number> {
  const status = await readFile(`/proc/${vmcp.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

/** The most it was since `forgetMost`, bytes. */
async function rssMax(): Promise<number> {
  const status = await readFile(`/proc/${vmcp.pid}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

const forgetMost = (): Promise<void> => writeFile(`/proc/${vmcp.pid}/clear_refs`, "5");

async function post(id: string | undefined, method: string, params: object, request = 1): Promise<string> {
  const session = id === undefined ? {} : { "mcp-session-id": id, "mcp-protocol-version": "2025-11-25" };
  const body = JSON.stringify({ jsonrpc: "2.0", id: request, method, params });
  const answer = await send(vmcp.url, { method: "POST", headers: { ...mcpHeaders, ...session }, body });
  if (answer.status !== 200) throw new Error(`${method}: ${answer.status} ${answer.body}`);
  return String(answer.headers["mcp-session-id"]);
}

async function openOne(): Promise<string> {
  const id = await post(undefined, "initialize", {
    protocolVersion: "2025-11-25",
    capabilities: {},
    clientInfo: { name: "bench", version: "1" },
  });
  for (const name of ["one_counter", "two_counter"]) await post(id, "tools/call", { name });
  return id;
}

async function openMany(many: number): Promise<string[]> {
  const ids: string[] = [];
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (ids.length < many) {
        const at = ids.push("") - 1;
        ids[at] = await openOne();
      }
    }),
  );
  return ids;
}

/** As many sessions as are measured, opened, left alone and reaped: what the process needs for the work itself. */
async function warmUp(): Promise<void> {
  await openMany(count);
  await reaped();
}

async function reaped(): Promise<void> {
  await eventually("all are reaped", () => one.sessions().length <= own && two.sessions().length <= own, ttlMs * 2 + 60_000);
}

interface Memory {
  /** Of the process. How much of it the allocator keeps that nobody uses differs by a quarter from run to run. */
  readonly rss: number;
  /** Of V8's heap, in use. */
  readonly heap: number;
}

async function heapUsed(): Promise<number> {
  const { memory } = (await (await fetch(`${new URL(vmcp.url).origin}/status`)).json()) as {
    memory: { heap_used_bytes: number };
  };
  return memory.heap_used_bytes;
}

/** Once it no longer falls, after some calls, and after the minute in which it is collected that follows the end of many sessions. */
async function settled(): Promise<Memory> {
  await sleep(15_000);
  let heap = Number.POSITIVE_INFINITY;
  // Looked at while it is collected: what is in use is the least that was seen.
  for (let looks = 0; looks < 550; looks++) {
    await sleep(100);
    heap = Math.min(heap, await heapUsed());
  }
  const id = await openOne();
  for (let i = 0; i < 6_000; i += atOnce)
    await Promise.all(Array.from({ length: atOnce }, (_, n) => post(id, "ping", {}, i + n)));
  await send(vmcp.url, { method: "DELETE", headers: { ...mcpHeaders, "mcp-session-id": id } });
  let least = await rss();
  heap = Math.min(heap, await heapUsed());
  for (let quiet = 0; quiet < 8; quiet++) {
    await sleep(1_000);
    const now = await rss();
    if (now < least * 0.99) quiet = 0;
    least = Math.min(least, now);
  }
  return { rss: least, heap };
}

say(`at the start ${mb(await rss())}`);
await warmUp(); // what it fills (pools, caches, the allocator) is not what sessions leave
const baseline = await settled();
say(`baseline, after ${count} sessions that came and were reaped: ${mb(baseline.rss)}, ${mb(baseline.heap)} of heap in use`);
await forgetMost();
const startedMs = performance.now();
const ids = await openMany(count);
say(`${count} sessions with two backend sessions each, opened in ${((performance.now() - startedMs) / 1_000).toFixed(0)} s`);
const full = await rss();
say(`live: ${mb(full)}, ${Math.round((full - baseline.rss) / count)} bytes a session above the baseline`);
for (const id of [ids[0], ids[count - 1]] as string[]) await post(id, "ping", {});
const held = one.sessions().length - own;
say(`sessions at each backend: ${held}`);
await reaped();
const after = await settled();
const above = (name: keyof Memory): string => `${(((after[name] - baseline[name]) / baseline[name]) * 100).toFixed(1)} % above`;
say(`reaped: ${mb(after.rss)}, ${above("rss")} the baseline; ${mb(after.heap)} of heap in use, ${above("heap")}`);
const most = await rssMax();
say(`at most since the baseline: ${mb(most)}`);
const problems = [
  ...(most / 1024 / 1024 > rssMbMax ? [`${mb(most)}, ${rssMbMax} MB wanted`] : []),
  ...(held < count ? [`${held} backend sessions, ${count} wanted`] : []),
  ...(after.heap > baseline.heap * 1.05 ? ["the heap in use is not back to the baseline + 5 %"] : []),
];
for (const problem of problems) say(`✖ ${problem}`);
process.exitCode = problems.length === 0 ? 0 : 1;
