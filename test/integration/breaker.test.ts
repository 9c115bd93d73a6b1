// A server that hangs or fails costs its callers their deadline a few times, then nothing; others never notice.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Backend, type BackendScript, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, openRawSession, type RawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import {
  type BackendEntry,
  type CallEnd,
  type ClientEntry,
  checkLedgers,
  createMemoryLedger,
  createWorkTool,
  recordCall,
} from "../support/ledger.ts";
import { serve } from "../support/serve.ts";

const tools = [plainTool("hello")];
const operational = {
  timeouts: { default: "500ms" },
  failureHandling: { circuitBreaker: { enabled: true, failureThreshold: 3, timeout: "60s" } },
};

for (const [what, fault] of [
  ["hangs", { calls: { hello: () => new Promise<never>(() => undefined) } }],
  ["answers 503", { fault: { status: 503 } }],
] satisfies [string, Partial<BackendScript>][]) {
  test(`calls to a server that ${what} soon fail at once, without reaching it, while others work`, async () => {
    await using bad = await startBackend({ tools, calls: { hello: () => textResult("hello") } });
    await using good = await startBackend({ tools, calls: { hello: () => textResult("hello") } });
    await using vmcp = await serve({ backends: [httpBackend("bad", bad.url), httpBackend("good", good.url)], operational });
    const session = await openRawSession(vmcp.url);
    const call = (name: string) => session.result("tools/call", `{"name":"${name}","arguments":{}}`);
    await eventually("both are listed", async () => {
      const list = await session.result("tools/list");
      return list.includes("bad_hello") && list.includes("good_hello");
    });
    assert.match(await call("bad_hello"), /hello/);

    bad.set(fault);
    for (let failures = 0; failures < 3; failures++) assert.match(await call("bad_hello"), /"error"|"isError":true/);
    const reached = bad.bodies("tools/call").length;
    const startedAt = performance.now();
    const answer = await call("bad_hello");
    const tookMs = performance.now() - startedAt;
    assert.match(answer, /"message":.*\bbad\b.*not executed/);
    assert.match(answer, /"outcome":"not_executed"/);
    assert.ok(tookMs < 250, `${tookMs} ms`);
    assert.equal(bad.bodies("tools/call").length, reached);
    assert.match(await call("good_hello"), /"text":"hello"/);
    assert.match(await session.result("tools/list"), /bad_hello/);
  });
}

test("errors that a tool means are no failures of its server", async () => {
  const isError = `{"content":[{"type":"text","text":"no such file"}],"isError":true}`;
  await using backend = await startBackend({ tools, calls: { hello: () => isError } });
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)], operational });
  await using client = await openClient(vmcp.url);
  await eventually("it is listed", async () => (await client.toolNames()).includes("b_hello"));
  for (let i = 0; i < 8; i++) assert.equal(await client.call("b_hello"), "no such file");
  assert.equal(backend.bodies("tools/call").length, 8);
});

test("a call whose outcome is unknown says so, and is not run again", async () => {
  await using backend = await startBackend({ tools, calls: { hello: () => new Promise<never>(() => undefined) } });
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)], operational });
  const session = await openRawSession(vmcp.url);
  await eventually("it is listed", async () => (await session.result("tools/list")).includes("b_hello"));
  assert.match(await session.result("tools/call", `{"name":"b_hello"}`), /0\.5 ?s|500 ?ms|timed out|deadline/i);
  assert.equal(backend.bodies("tools/call").length, 1);
});

test("calls that ran out of time while the proxy itself stood still do not open the breaker", async () => {
  await using backend = await startBackend({ tools, calls: { hello: () => new Promise<never>(() => undefined) } });
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)], operational });
  const session = await openRawSession(vmcp.url);
  await eventually("it is listed", async () => (await session.result("tools/list")).includes("b_hello"));
  const calls = Array.from({ length: 8 }, () => session.result("tools/call", `{"name":"b_hello"}`));
  await eventually("it has all of them", () => backend.bodies("tools/call").length === calls.length);
  process.kill(vmcp.pid, "SIGSTOP");
  await sleep(2_000); // as long as the proxy is to stand still
  process.kill(vmcp.pid, "SIGCONT");
  for (const answer of await Promise.all(calls)) assert.match(answer, /backend_timeout/);
  backend.set({ calls: { hello: () => textResult("hello") } });
  for (let i = 0; i < 5; i++) assert.match(await session.result("tools/call", `{"name":"b_hello"}`), /"text":"hello"/);
});

/** What a server, or the way to it, does to its callers until the signal fires. */
type Trouble = (server: Backend, way: FaultProxy, over: AbortSignal) => Promise<void>;

const troubles: Readonly<Record<string, Trouble>> = {
  resets: async (_server, way) => way.set({ kind: "reset" }),
  refuses: async (_server, way) => {
    await way.set({ kind: "refuse" });
    way.cutAll();
  },
  hangs: async (_server, way) => way.set({ kind: "black-hole" }),
  errors: async (server) => server.set({ fault: { status: 503 } }),
  garbage: async (server) => server.set({ fault: { status: 200, body: "<html>hello</html>" } }),
  flaps: async (_server, way, over) => {
    for (let isUp = false; !over.aborted; isUp = !isUp) {
      await way.set({ kind: isUp ? "pass" : "refuse" });
      if (!isUp) way.cutAll();
      await sleep(1_000, undefined, { signal: over }).catch(() => undefined);
    }
  },
};

interface Answered {
  readonly result?: { readonly content: readonly { readonly text: string }[] };
  readonly error?: { readonly message: string; readonly data: { readonly outcome: "unknown" | "not_executed" } };
}

test("servers in trouble cost others nothing, run no call twice, and serve within 2 s of their return", async () => {
  await using stack = new AsyncDisposableStack();
  const clients = createMemoryLedger<ClientEntry>();
  const runs = createMemoryLedger<BackendEntry>();
  const timeoutMs = 500;

  async function start(name: string) {
    const work = createWorkTool({ ledger: runs, backend: name });
    const server = stack.use(await startBackend({ tools: [work.tool], calls: { work: work.call } }));
    let attempts = 0;
    const onData = (chunk: Buffer): void => {
      if (chunk.includes('"tools/call"')) attempts++;
    };
    const way = stack.use(await startFaultProxy({ port: server.port, onData }));
    const ends: (CallEnd & { readonly startMs: number; readonly endMs: number; readonly text: string })[] = [];
    return { name, server, way, ends, attempts: () => attempts };
  }
  const all = await Promise.all(["good", ...Object.keys(troubles)].map(start));
  const [good, ...bad] = all as [(typeof all)[number], ...typeof all];
  const backends = all.map(({ name, way }) => httpBackend(name, `http://${way.address}/mcp`));
  const vmcp = stack.use(await serve({ backends, operational: { timeouts: { default: `${timeoutMs}ms` } } }));

  const isOver = new AbortController();
  async function callOn({ name, ends }: (typeof all)[number], session: RawSession): Promise<void> {
    while (!isOver.signal.aborted) {
      const startMs = performance.now();
      let text = "";
      const end = await recordCall(
        clients,
        async (uuid) => {
          text = await session.result("tools/call", JSON.stringify({ name: `${name}_work`, arguments: { uuid } }));
          const { result, error } = JSON.parse(text) as Answered;
          if (result) return { kind: "ok", echo: result.content[0]?.text ?? "" };
          return { kind: "error", outcome: error?.data.outcome ?? "unknown" };
        },
        { backend: name },
      );
      ends.push({ ...end, startMs, endMs: performance.now(), text });
      await sleep(20);
    }
  }
  const sessions = await Promise.all(
    all.flatMap((one) => [one, one]).map(async (one) => [one, await openRawSession(vmcp.url)] as const),
  );
  await eventually("all are listed", async () => {
    const list = await sessions[0]?.[1].result("tools/list");
    return all.every(({ name }) => list?.includes(`${name}_work`));
  });
  const calling = Promise.all(sessions.map(([one, session]) => callOn(one, session)));
  await eventually("all serve", () => all.every(({ ends }) => ends.some(({ kind }) => kind === "ok")));

  const troubleMs = 7_000;
  const beganMs = performance.now();
  const over = AbortSignal.timeout(troubleMs);
  await Promise.all(bad.map(({ name, server, way }) => troubles[name]?.(server, way, over)));
  await sleep(Math.max(0, beganMs + troubleMs - performance.now()));
  for (const { server, way } of bad) {
    await way.set({ kind: "pass" });
    server.set({ fault: undefined });
  }
  const returnedMs = performance.now();
  await sleep(4_000);
  isOver.abort();
  await calling;

  for (const { name, ends, way, attempts } of bad) {
    const during = ends.filter(({ startMs }) => startMs > beganMs && startMs < returnedMs);
    const first = ends.find(({ kind, startMs }) => kind === "ok" && startMs >= returnedMs);
    assert.ok(first && first.endMs - returnedMs <= 2_000, `${name} serves after ${(first?.endMs ?? Infinity) - returnedMs} ms`);
    const shed = during.filter(({ text }) => text.includes("backend_shed"));
    assert.ok(shed.length > 0, `${name}: ${during.at(-1)?.text}`);
    for (const { text } of shed) assert.match(text, /"sinceMs":\d+,"retryAfterMs":[1-9]\d*/);
    // A connection is an attempt too, whatever else it is made for.
    const tried = attempts() + way.accepted;
    assert.ok(tried <= ends.length * 1.2, `${name}: ${tried} attempts for ${ends.length} calls`);
  }
  assert.deepEqual(new Set(good.ends.map(({ kind }) => kind)), new Set(["ok"]));
  const tookMs = good.ends.map(({ startMs, endMs }) => endMs - startMs).sort((a, b) => a - b);
  const p95 = tookMs[Math.floor(tookMs.length * 0.95)] as number;
  assert.ok(p95 < 200, `${p95} ms`);
  assert.deepEqual(checkLedgers(clients.entries(), runs.entries(), { endsWithinMs: timeoutMs + 2_000 }), []);
});
