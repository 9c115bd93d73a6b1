import assert from "node:assert/strict";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type BackendScript, plainTool, rawError, startBackend } from "../../test/support/backend.ts";
import { eventually } from "../../test/support/eventually.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import type { Catalog, ListProblem } from "./catalog.ts";
import { createConnector } from "./connect.ts";
import { watchCatalog } from "./watch.ts";

const client = { protocolVersion: "2025-11-25", clientInfo: '{"name":"c","version":"1"}', capabilities: "{}" } as const;

/** A watched scripted server whose stream is open, and whose lists are known. */
async function setUp(t: TestContext, script: BackendScript) {
  const server = await startBackend(script);
  const spec = create(BackendSchema, { name: "scripted", url: server.url, transport: "streamable-http" });
  const connector = createConnector({ spec, credential: sameForAll([]), log: pino({ level: "silent" }) });
  const stop = new AbortController();
  const news = new EventTarget();
  const told: (readonly ListProblem[])[] = [];
  let catalog: Catalog | undefined;
  const watching = watchCatalog({
    open: (signal) => connector.openLeg(client, signal),
    checks: () => ({ intervalMs: 30_000, timeoutMs: 10_000 }),
    onMessage: () => undefined,
    onCatalog(listed) {
      catalog = listed;
      news.dispatchEvent(new Event("catalog"));
    },
    onProblems: (problems) => void told.push(problems),
    onFailure: () => undefined,
    signal: stop.signal,
  });
  t.after(async () => {
    stop.abort(new Error("over"));
    await watching;
    await connector.close();
    await server[Symbol.asyncDispose]();
  });
  await eventually("a stream and a first listing", () => server.streams() > 0 && catalog !== undefined, 10_000);
  const names = () => catalog?.tools.map(({ key }) => key) ?? [];
  const until = async (name: string) => {
    while (!names().includes(name)) await once(news as never, "catalog", { signal: AbortSignal.timeout(10_000) });
  };
  return { server, told, until, lists: () => server.bodies("tools/list").length, catalog: () => catalog };
}

test("a single change is seen within half a second", async (t) => {
  const { server, until } = await setUp(t, {});
  server.set({ tools: [plainTool("new")] });
  const startedMs = performance.now();
  server.announce("tools");
  await until("new");
  assert.ok(performance.now() - startedMs < 500);
});

test("changes that come together are listed once", async (t) => {
  const { server, until, lists } = await setUp(t, {});
  const before = lists();
  server.set({ tools: [plainTool("new")] });
  for (const what of ["tools", "prompts", "resources"] as const) server.announce(what);
  await until("new");
  assert.equal(lists() - before, 1);
});

test("a storm of changes is listed once a second at most, and the last change is seen", async (t) => {
  const { server, until, lists } = await setUp(t, {});
  const before = lists();
  const startedMs = performance.now();
  for (let i = 0; i < 100; i++) {
    server.set({ tools: [plainTool(`t${i}`)] });
    server.announce("tools");
    await sleep(15);
  }
  await until("t99");
  const seconds = (performance.now() - startedMs) / 1_000;
  assert.ok(lists() - before <= 2 + seconds, `${lists() - before} lists in ${seconds} s`);
});

test("what is wrong with the lists is told when it changes, and while it is so the rest is followed", async (t) => {
  const down = { "resources/list": () => rawError('{"code":-32603,"message":"db down"}') };
  const { server, told, until, catalog } = await setUp(t, { resources: ['{"uri":"x:1"}'] });
  server.set({ tools: [plainTool("one")], methods: down });
  server.announce("tools");
  await until("one");
  server.set({ tools: [plainTool("two")] });
  server.announce("tools");
  await until("two");
  assert.deepEqual(
    catalog()?.resources.map(({ key }) => key),
    ["x:1"],
  );
  server.set({ tools: [plainTool("three")], methods: {} });
  server.announce("tools");
  await until("three");
  assert.deepEqual(
    told.map((problems) => problems.map(({ kind, isStale }) => [kind, isStale])),
    [[["resources", true]], []],
  );
});
