// Two proxies behind a balancer without stickiness are one server to clients without sessions too: what one replica began the
// other goes on with, though no session says who has it.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, type TestContext, test } from "node:test";
import { askInSession, askStateless, kinds, type Round, stateOf } from "../support/asking-tools.ts";
import { type Backend, type Handler, plainTool, startBackend, textResult } from "../support/backend.ts";
import { type Balancer, startBalancer } from "../support/balancer.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { openDualClient } from "../support/dual-client.ts";
import { eventually } from "../support/eventually.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";
import { freePort, type RunningVmcp, startVmcp } from "../support/processes.ts";
import { completeText, type StatelessBackend, startStatelessBackend } from "../support/stateless-backend.ts";
import { able, ask, callTool, listen, type RpcResult, taskable } from "../support/stateless-client.ts";

process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex"); // the proxies inherit it

const stack = new AsyncDisposableStack();
const isOver = new AbortController();
let mesh: Mesh;
let balancer: Balancer;
let sessionful: Backend;
let stateless: StatelessBackend;

const tools = ["ask", "hand_out", "then_hang"].map((name) => plainTool(name));
const handedOut = (era: string) => `handed-out://${era}/1`;
const link = (era: string) => `{"content":[{"type":"resource_link","uri":"${handedOut(era)}","name":"l"}]`;
const note = (era: string) => `note://${era}`;
const noteResource = (era: string) => `{"uri":"${note(era)}","name":"${era} note"}`;
const contents = (uri: string) => `"contents":[{"uri":"${uri}","text":"read"}]}`;
const orders = [
  [0, 1],
  [1, 0],
] as const;

before(async () => {
  sessionful = stack.use(await startSessionful());
  stateless = stack.use(
    await startStatelessBackend({
      tools: [...tools, plainTool("job")],
      resources: [noteResource("stateless")],
      reads: { [handedOut("stateless")]: () => `{"resultType":"complete",${contents(handedOut("stateless"))}` },
      calls: {
        ask: askStateless,
        hand_out: () => `${link("stateless")},"resultType":"complete"}`,
        job: () => `{"resultType":"task","taskId":"t/1","status":"working","ttlMs":60000,"createdAt":"2026-07-28T00:00:00Z"}`,
      },
      tasks: { get: ({ params }) => `{"resultType":"complete","taskId":${JSON.stringify(params.taskId)},"status":"working"}` },
    }),
  );
  // Large enough that two lists of different eras don't fit on one page, nor on two.
  const many = Array.from({ length: 130 }, (_, i) => plainTool(`t${i}`, "x".repeat(9_000)));
  const wide = stack.use(await startBackend({ tools: many, calls: { t129: () => textResult("the last") } }));
  const wider = stack.use(await startStatelessBackend({ tools: many, calls: { t129: () => completeText("the last") } }));
  mesh = stack.use(await startMesh(2));
  balancer = stack.use(await startBalancer(mesh.proxies.map(({ address }) => address)));
  const both = [httpBackend("s", sessionful.url), httpBackend("m", stateless.url)];
  const { code, stderr } = await mesh.apply([
    virtualServer("team", { backends: both }),
    virtualServer("wide", { backends: [httpBackend("s", wide.url), httpBackend("m", wider.url)] }),
  ]);
  assert.equal(code, 0, stderr);
  for (const proxy of mesh.proxies) await becomesReady(proxy);
});
after(() => {
  isOver.abort();
  return stack.disposeAsync();
});

const { elicitation, sampling, roots } = kinds;
const stories: readonly (readonly [name: string, rounds: readonly Round[], answers: readonly object[]])[] = [
  ["elicitation", [{ a: elicitation.question }], [elicitation.answer]],
  ["sampling", [{ a: sampling.question }], [sampling.answer]],
  ["roots", [{ a: roots.question }], [roots.answer]],
  [
    "several questions at once",
    [{ a: elicitation.question, b: sampling.question, c: roots.question }],
    [elicitation.answer, sampling.answer, roots.answer],
  ],
  ["two rounds", [{ a: elicitation.question }, { b: roots.question }], [elicitation.answer, roots.answer]],
];

for (const [name, rounds, answers] of stories) {
  for (const [asking, answering] of orders) {
    for (const backend of ["s", "m"]) {
      test(`${name} inside a call to "${backend}" on replica ${asking}, answered on replica ${answering}`, async () => {
        const args = { rounds };
        let given = 0;
        let asked = await callTool(teamOn(asking), `${backend}_ask`, args, { capabilities: able });
        for (const [i, round] of rounds.entries()) {
          const { resultType, inputRequests = {}, requestState } = asked.result;
          assert.equal(resultType, "input_required", asked.body);
          assert.deepEqual(Object.values(inputRequests), Object.values(round));
          const keys = Object.keys(inputRequests);
          const inputResponses = Object.fromEntries(keys.map((key) => [key, answers[given++]]));
          const params = { name: `${backend}_ask`, arguments: args, inputResponses, requestState };
          const replica = i % 2 === 0 ? answering : asking;
          asked = await ask(teamOn(replica), "tools/call", params, { id: `"retry-${i}"`, capabilities: able });
          assert.equal(asked.id, `retry-${i}`);
        }
        assert.equal(asked.result.resultType, "complete", asked.body);
        assert.deepEqual(JSON.parse(asked.text), answers);
      });
    }
  }
}

test("a stateless server gets back the state it gave, to the letter, and its client never sees it", async () => {
  const args = { rounds: [{ who: elicitation.question }] };
  const asked = await callTool(teamOn(0), "m_ask", args, { capabilities: able });
  assert.ok(!asked.body.includes("quoted"), asked.body);
  await answer(1, "m_ask", args, asked.result, { who: elicitation.answer });
  const params = stateless.received("tools/call").at(-1)?.message?.params ?? {};
  assert.equal(params.requestState, stateOf(1, []));
  assert.deepEqual(params.inputResponses, { who: elicitation.answer });
});

test("questions that were not answered are asked again, by the other replica too", async () => {
  const args = { rounds: [{ a: elicitation.question, b: roots.question }] };
  const asked = await callTool(teamOn(0), "s_ask", args, { capabilities: able });
  const [first = "", second = ""] = Object.keys(asked.result.inputRequests ?? {});
  const again = await answer(1, "s_ask", args, asked.result, { [first]: elicitation.answer, nonsense: {} });
  assert.deepEqual(again.result.inputRequests, { [second]: roots.question }, again.body);
  const done = await answer(0, "s_ask", args, again.result, { [second]: roots.answer });
  assert.deepEqual(JSON.parse(done.text), [elicitation.answer, roots.answer]);
});

test("the calls parked on a replica that was killed are gone at once, also when it is back", { timeout: 30_000 }, async (t) => {
  const port = await freePort();
  const args = { rounds: [{ a: elicitation.question }] };
  const owner = await startProxy("short-lived", port);
  const parked = [];
  for (let i = 0; i < 4; i++) parked.push(await callTool(`${owner.address}/team/mcp`, "s_ask", args, { capabilities: able }));
  // A connection to the owner that is kept alive must not make a difference.
  const [used, ...others] = parked;
  await answer(0, "s_ask", args, used?.result, { "input-1": elicitation.answer });
  owner.kill("SIGKILL");
  await owner.ended;
  for (const [i, replica] of [0, 1].entries()) await isGone(t, replica, args, others[i]?.result);
  await using _back = await startProxy("short-lived", port);
  for (const replica of [0, 1]) await isGone(t, replica, args, others[2]?.result);
});

async function isGone(t: TestContext, replica: number, args: object, result: RpcResult | undefined): Promise<void> {
  const startedMs = performance.now();
  const { status, id, error, body } = await answer(replica, "s_ask", args, result, { "input-1": elicitation.answer });
  const tookMs = performance.now() - startedMs;
  t.diagnostic(`replica ${replica} knew after ${tookMs.toFixed(0)} ms`);
  assert.equal(error?.code, -32602, body);
  assert.deepEqual([status, id], [200, "again"]);
  assert.ok(tookMs < 2_000, `${tookMs} ms`);
}

test("a retry that its owner has taken ends, with its id, when the owner is killed", { timeout: 20_000 }, async () => {
  const owner = await startProxy("killed-later");
  const asked = await callTool(`${owner.address}/team/mcp`, "s_then_hang", {}, { capabilities: able });
  const calls = sessionful.requests.length;
  const retry = answer(0, "s_then_hang", {}, asked.result, { "input-1": elicitation.answer });
  await eventually("the backend has the answer", () => sessionful.requests.length > calls);
  owner.kill("SIGKILL");
  const startedMs = performance.now();
  const { status, id, error, body } = await retry;
  assert.ok(performance.now() - startedMs < 2_000);
  assert.ok(error, `${status} ${body}`);
  assert.equal(id, "again", `${status} ${body}`);
});

test("the pages of a long list of both eras come from either replica", async () => {
  const names: string[] = [];
  const before = balancer.counts.slice();
  let cursor: string | undefined;
  let pages = 0;
  do {
    const { result, body } = await ask(`${balancer.address}/wide/mcp`, "tools/list", cursor === undefined ? {} : { cursor });
    assert.equal(result.resultType, "complete", body.slice(0, 300));
    names.push(...(result.tools as { name: string }[]).map(({ name }) => name));
    cursor = result.nextCursor;
    pages++;
  } while (cursor !== undefined);
  assert.ok(pages >= 3, `${pages} pages`);
  for (const [i, count] of balancer.counts.entries()) assert.ok(count > (before[i] as number), `replica ${i}`);
  const wanted = ["m", "s"].flatMap((name) => Array.from({ length: 130 }, (_, i) => `${name}_t${i}`));
  assert.deepEqual(names.toSorted(), wanted.toSorted());
  for (const name of ["m_t129", "s_t129"]) assert.equal((await callTool(`${balancer.address}/wide/mcp`, name)).text, "the last");
});

test("the SDK's client elicits and samples through the balancer, from servers of both eras", async () => {
  await using dual = await openDualClient(`${balancer.address}/team/mcp`, {
    era: "stateless",
    onElicit: () => ({ action: "accept", content: { name: "Ada" } }),
    onSample: () => ({ model: "m", role: "assistant", content: { type: "text", text: "sampled" } }),
    onRoots: () => ({ roots: [{ uri: "file:///work" }] }),
  });
  const rounds = [{ a: elicitation.question }, { b: sampling.question, c: roots.question }];
  const exchanges = balancer.exchanges.length;
  for (let i = 0; i < 3; i++) {
    for (const name of ["s_ask", "m_ask"]) {
      assert.deepEqual(JSON.parse(await dual.call(name, { rounds })), [elicitation.answer, sampling.answer, roots.answer]);
    }
    await dual.client.listTools(undefined, { cacheMode: "refresh" }); // turns the balancer by one
  }
  const retries = balancer.exchanges.slice(exchanges).filter((one) => one.body().includes(`"requestState":`));
  assert.deepEqual(new Set(retries.map(({ backend }) => backend)), new Set([0, 1]));
});

for (const era of ["session", "stateless"] as const) {
  test(`a change of a ${era} server's tools reaches a listen on either replica within 0.5 s`, async (t) => {
    const filter = { toolsListChanged: true };
    await using here = await listen(teamOn(0), filter, { id: `"here"` });
    await using there = await listen(teamOn(1), filter, { id: "7" });
    const server = era === "session" ? sessionful : stateless;
    server.set({ tools: [...tools, plainTool("job"), plainTool(`new_${era}`)] });
    const startedMs = performance.now();
    server.announce("tools");
    await Promise.all(
      [here, there].map(async (stream, replica) => {
        const { params } = await stream.next("notifications/tools/list_changed");
        const tookMs = performance.now() - startedMs;
        t.diagnostic(`replica ${replica}: ${tookMs.toFixed(0)} ms`);
        assert.ok(tookMs < 1_500, `${tookMs} ms`);
        assert.deepEqual(params?._meta, { "io.modelcontextprotocol/subscriptionId": replica === 0 ? "here" : 7 });
        const { body } = await ask(teamOn(replica), "tools/list");
        assert.ok(body.includes(`_new_${era}"`), "what it tells of can be listed at once");
      }),
    );
  });

  test(`updates of a ${era} server's resource reach the listens that asked for it, on either replica`, async () => {
    const uri = note(era);
    const update = () =>
      era === "session"
        ? sessionful.push(`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"${uri}"}}`)
        : stateless.updated(uri);
    await using other = await listen(teamOn(0), { toolsListChanged: true, resourceSubscriptions: [note("nobody")] });
    for (const replica of [0, 1]) {
      await using stream = await listen(teamOn(replica), { resourceSubscriptions: [uri] }, { id: `"n${replica}"` });
      assert.deepEqual(stream.honored, { resourceSubscriptions: [uri] });
      update();
      const { params } = await stream.next("notifications/resources/updated");
      assert.equal(params?.uri, uri);
      assert.deepEqual(params?._meta, { "io.modelcontextprotocol/subscriptionId": `n${replica}` });
      const methods = new Set(stream.messages.map(({ method }) => method));
      assert.equal(methods.size, 2, "the acknowledgement, and nothing but updates");
    }
    assert.deepEqual(
      other.messages.filter(({ method }) => method === "notifications/resources/updated"),
      [],
    );
    if (era === "session")
      await eventually("nobody is subscribed", () => {
        const count = (method: string) => sessionful.bodies(method).length;
        return count("resources/subscribe") === 2 && count("resources/unsubscribe") === 2;
      });
  });

  test(`a URI that a ${era} server handed out is read where it was, and nowhere else asked of whoever might have it`, async () => {
    const name = `${era === "session" ? "s" : "m"}_hand_out`;
    assert.equal((await callTool(teamOn(0), name)).result.content?.length, 1);
    const { result } = await ask(teamOn(0), "resources/read", { uri: handedOut(era) });
    assert.equal((result.contents as { text: string }[])[0]?.text, "read");
    const { error } = await ask(teamOn(1), "resources/read", { uri: handedOut(era) });
    assert.deepEqual([error?.code, error?.data], [-32602, { uri: handedOut(era) }]);
  });
}

test("a task that was made on one replica is known to the other, and what is heard of it there", async () => {
  const options = { capabilities: taskable };
  for (const [making, asking] of orders) {
    const { taskId } = (await callTool(teamOn(making), "m_job", {}, options)).result;
    const { result, body } = await ask(teamOn(asking), "tasks/get", { taskId }, options);
    assert.deepEqual([result.taskId, result.status], [taskId, "working"], body);
    await using stream = await listen(teamOn(asking), { taskIds: [taskId] }, options);
    assert.deepEqual(stream.honored, { taskIds: [taskId] });
    await eventually("the server is asked", () => stateless.listens().some(({ filter }) => filter.taskIds?.includes("t/1")));
    const said = `"taskId":"t/1","status":"completed","result":{"content":[]}`;
    stateless.push((tag) => `{"jsonrpc":"2.0","method":"notifications/tasks","params":{"_meta":{${tag}},${said}}}`);
    const { params } = await stream.next("notifications/tasks");
    assert.deepEqual([params?.taskId, params?.status], [taskId, "completed"]);
  }
});

const teamOn = (replica: number) => `${mesh.proxies[replica]?.address}/team/mcp`;

/** Calls again, with what was asked for. */
function answer(replica: number, name: string, args: object, asked: RpcResult | undefined, inputResponses: object) {
  const params = { name, arguments: args, inputResponses, requestState: asked?.requestState };
  return ask(teamOn(replica), "tools/call", params, { id: `"again"`, capabilities: able });
}

/** A server with sessions that takes subscriptions. */
async function startSessionful(): Promise<Backend> {
  const capabilities = { tools: { listChanged: true }, resources: { subscribe: true, listChanged: true } };
  const serverInfo = { name: "scripted", version: "1" };
  const subscribe: Handler = () => "{}";
  const thenHang: Handler = ({ notify }) => {
    notify(JSON.stringify({ jsonrpc: "2.0", id: "hang", ...elicitation.question }));
    return new Promise(() => undefined);
  };
  const backend: Backend = await startBackend({
    tools,
    resources: [noteResource("session")],
    reads: { [handedOut("session")]: () => `{${contents(handedOut("session"))}` },
    initialize: JSON.stringify({ protocolVersion: "2025-11-25", capabilities, serverInfo }),
    methods: { "resources/subscribe": subscribe, "resources/unsubscribe": subscribe },
    calls: { ask: askInSession(() => backend, isOver.signal), hand_out: () => `${link("session")}}`, then_hang: thenHang },
  });
  return backend;
}

async function startProxy(id: string, port = 0): Promise<RunningVmcp> {
  const flags = ["--control-plane", mesh.controlPlane.adminAddress, "--port", String(port)];
  return becomesReady(stack.use(await startVmcp(["proxy", "--id", id, ...flags])));
}

/** Settles when the proxy lists the tools of every backend. */
async function becomesReady(proxy: RunningVmcp): Promise<RunningVmcp> {
  for (const server of ["team", "wide"]) {
    await eventually(`${proxy.address} serves ${server}`, async () => {
      const { body } = await ask(`${proxy.address}/${server}/mcp`, "tools/list");
      return server === "wide" ? body.includes('"m_t') : body.includes('"s_ask"') && body.includes('"m_ask"');
    });
    if (server === "wide") await eventually("both lists", async () => (await openList(`${proxy.address}/wide/mcp`)) === 260);
  }
  return proxy;
}

async function openList(url: string): Promise<number> {
  let count = 0;
  let cursor: string | undefined;
  do {
    const { result } = await ask(url, "tools/list", cursor === undefined ? {} : { cursor });
    count += (result.tools as unknown[]).length;
    cursor = result.nextCursor;
  } while (cursor !== undefined);
  return count;
}
