// Which era a server is of is found out by asking, and may change under our feet. Whatever happens on the way, clients of both
// eras go on, and a server that is ill is not taken for one of the other era.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { startDualBackend } from "../support/dual-backend.ts";
import { eventually } from "../support/eventually.ts";
import { type Served, serve } from "../support/serve.ts";
import { completeText, type Fault, type StatelessBackend, startStatelessBackend } from "../support/stateless-backend.ts";
import { ask, callTool, listen, openAsk } from "../support/stateless-client.ts";
import { startSwitchboard } from "../support/switchboard.ts";

const tools = [plainTool("who")];
const startOld = () => startBackend({ tools: [...tools, plainTool("old")], calls: { who: () => textResult("old") } });
const startNew = () => startStatelessBackend({ tools: [...tools, plainTool("new")], calls: { who: () => completeText("new") } });
const backMs = 8_000; // the pauses between attempts grow up to 5 s
const operational = { failureHandling: { circuitBreaker: { enabled: false } } };

for (const [from, to] of [
  ["old", "new"],
  ["new", "old"],
] as const) {
  for (const pause of ["after a while", "at once"]) {
    test(`a server that comes back ${pause} as a ${to} one goes on for clients that are there`, {
      timeout: 60_000,
    }, async (t) => {
      await using old = await startOld();
      await using modern = await startNew();
      const portOf = { old: old.port, new: modern.port };
      await using board = await startSwitchboard(portOf[from]);
      await using vmcp = await serve({ backends: [httpBackend("b", board.url)], operational });
      await using sdk = await openClient(vmcp.url);
      await using changes = await listen(vmcp.url, { toolsListChanged: true });
      assert.equal(await sdk.call("b_who"), from);
      assert.equal((await callTool(vmcp.url, "b_who")).text, from);

      await board.down();
      if (pause === "after a while") await isNoticed(vmcp);
      await board.up(portOf[to]);
      const startedMs = performance.now();
      await eventually("a stateless caller", async () => (await callTool(vmcp.url, "b_who")).text === to, backMs);
      tell(t, "the stateless caller", startedMs);
      await eventually("a client with a session", async () => (await sdk.call("b_who")) === to, backMs);
      tell(t, "the client with a session", startedMs);
      await eventually("the list", async () => (await sdk.toolNames()).includes(`b_${to}`), backMs);
      assert.deepEqual((await sdk.toolNames()).toSorted(), [`b_${to}`, "b_who"].toSorted());
      await changes.next("notifications/tools/list_changed");
      await using late = await openClient(vmcp.url);
      assert.equal(await late.call("b_who"), to);
    });
  }
}

test("a server with sessions is not asked again for each of them what it is", async () => {
  await using old = await startOld();
  await using vmcp = await serve({ backends: [httpBackend("b", old.url)] });
  for (let i = 0; i < 3; i++) {
    await using sdk = await openClient(vmcp.url);
    assert.equal(await sdk.call("b_who"), "old");
  }
  assert.equal(old.bodies("server/discover").length, 1);
});

test("a server that was upgraded by the SDK's own means goes on for clients that are there", { timeout: 60_000 }, async () => {
  await using old = await startDualBackend("session");
  await using modern = await startDualBackend("stateless");
  await using board = await startSwitchboard(old.port);
  await using vmcp = await serve({ backends: [httpBackend("b", board.url)], operational });
  await using sdk = await openClient(vmcp.url);
  const works = async () => (await sdk.call("b_echo", { message: "m" })) === "m";
  const worksToo = async () => (await callTool(vmcp.url, "b_echo", { message: "m" })).text === "m";
  for (const port of [modern.port, old.port, modern.port]) {
    assert.ok((await works()) && (await worksToo()));
    await board.down();
    await board.up(port);
    await eventually("a stateless caller", worksToo, backMs);
    await eventually("a client with a session", works, backMs);
  }
});

const ills: Readonly<Record<string, Fault>> = {
  unauthorized: { status: 401 },
  forbidden: { status: 403, body: `{"error":"forbidden"}` },
  oops: { status: 500, body: "oops" },
  busy: { status: 503, body: `{"jsonrpc":"2.0","error":{"code":-32603,"message":"busy"}}` },
  silent: "hang",
  cut: "cut",
};
const saysNothing = ["unauthorized", "forbidden"];

/** A server of the stateless era for each ill, and a gateway over all of them. */
async function startIll(faultsOf: (fault: Fault) => Readonly<Record<string, Fault>>) {
  await using stack = new AsyncDisposableStack();
  const servers: (readonly [string, Fault, StatelessBackend])[] = [];
  for (const [name, fault] of Object.entries(ills)) {
    const calls = { who: () => completeText("new") };
    servers.push([name, fault, stack.use(await startStatelessBackend({ tools, calls, faults: faultsOf(fault) }))]);
  }
  const vmcp = stack.use(await serve({ backends: servers.map(([name, , { url }]) => httpBackend(name, url)), operational }));
  const owned = stack.move();
  return { servers, vmcp, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

test("stateless servers that are ill when they are asked what they are, are asked again", { timeout: 40_000 }, async (t) => {
  await using ill = await startIll((fault) => ({ "server/discover": fault }));
  await Promise.all(
    ill.servers.map(async ([name, , server]) => {
      await eventually(`${name} is asked`, () => server.received("server/discover").length > 0);
      const early = await callTool(ill.vmcp.url, `${name}_who`);
      assert.ok(early.error, early.body);
      if (saysNothing.includes(name)) assert.equal(server.received("initialize").length, 0, `${name} says nothing of the era`);
      server.set({ faults: {} });
      const startedMs = performance.now();
      await eventually(`${name} is served`, async () => (await callTool(ill.vmcp.url, `${name}_who`)).text === "new", backMs);
      tell(t, `${name} was served`, startedMs);
    }),
  );
});

test("stateless servers that are known stay so when they are ill", { timeout: 40_000 }, async () => {
  await using ill = await startIll(() => ({}));
  await using sdk = await openClient(ill.vmcp.url);
  await Promise.all(
    ill.servers.map(async ([name, fault, server]) => {
      assert.equal(await sdk.call(`${name}_who`), "new");
      server.set({ faults: { "*": fault } });
      server.cutListens();
      await using call = fault === "hang" ? await openHanging(ill.vmcp.url, name) : undefined;
      if (!call) assert.ok((await callTool(ill.vmcp.url, `${name}_who`)).error, name);
      server.set({ faults: {} });
      await eventually(`${name} is well`, async () => (await callTool(ill.vmcp.url, `${name}_who`)).text === "new", backMs);
      await eventually(`${name} is well for sessions`, async () => (await sdk.call(`${name}_who`)) === "new", backMs);
      assert.equal(server.received("initialize").length, 0, name);
    }),
  );
});

/** A call that gets no answer; the head of its stream comes because it asks for one. */
const openHanging = (url: string, name: string) =>
  openAsk(url, "tools/call", { name: `${name}_who` }, { headers: { accept: "text/event-stream, application/json" } });

test("a server with sessions that answers 500 or 401 for a while is served again", { timeout: 40_000 }, async () => {
  for (const status of [500, 401]) {
    await using old = await startOld();
    old.set({ fault: { status } });
    await using vmcp = await serve({ backends: [httpBackend("b", old.url)], operational });
    await eventually("it is asked", () => old.requests.length > 0);
    old.set({ fault: undefined });
    await eventually("it is served", async () => (await callTool(vmcp.url, "b_who")).text === "old", backMs);
  }
});

for (const era of ["old", "new"] as const) {
  test(`what ${era === "old" ? "a server with sessions" : "a stateless server"} changes right after it was listed is not missed`, async () => {
    let isChanged = false;
    const later = () => {
      const answer = isChanged ? [...tools, plainTool("late")] : tools;
      if (!isChanged) setImmediate(() => server.announce("tools"));
      isChanged = true;
      return `{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[${answer.join(",")}]}`;
    };
    await using server = era === "old" ? await startBackend() : await startStatelessBackend();
    server.set({ methods: { "tools/list": later } });
    await using vmcp = await serve({ backends: [httpBackend("b", server.url)] });
    await eventually("it is listed", async () => (await ask(vmcp.url, "tools/list")).body.includes("b_late"), 3_000);
  });
}

/** Settles when the gateway knows that the backend is away. */
async function isNoticed({ address }: Served): Promise<void> {
  await eventually("the gateway notices", async () => {
    const status = await (await fetch(`${address}/status`)).text();
    return status.includes("unhealthy");
  });
}

function tell(t: TestContext, what: string, startedMs: number): void {
  t.diagnostic(`${what}: after ${(performance.now() - startedMs).toFixed(0)} ms`);
}
