// Too much work: who wants too much is told so, what is left is for the others, and what ends work is always taken.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import {
  bearer,
  mcpHeaders,
  openRawSession,
  type RawAnswer,
  type RawSession,
  type SentHeaders,
  send,
} from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Issuer, startIssuer } from "../support/issuer.ts";
import { type Served, serve } from "../support/serve.ts";

const audience = "https://vmcp.example";
const stack = new AsyncDisposableStack();
let url: string;
let issuer: Issuer;

before(async () => {
  const slow = async () => {
    await new Promise((resolve) => setTimeout(resolve, 150));
    return textResult("done");
  };
  url = stack.use(
    await startBackend({ tools: [plainTool("slow"), plainTool("quick")], calls: { slow, quick: () => textResult("done") } }),
  ).url;
  issuer = stack.use(await startIssuer());
});
after(() => stack.disposeAsync());

interface Limit {
  readonly name: string;
  readonly used: number;
  readonly limit: number;
  readonly refused?: number;
}

async function limitsOf({ address }: Served): Promise<ReadonlyMap<string, Limit>> {
  const { status, body } = await send(`${address}/status`);
  assert.equal(status, 200);
  return new Map((JSON.parse(body) as { limits: Limit[] }).limits.map((limit) => [limit.name, limit]));
}

const asToken = async (sub: string): Promise<SentHeaders> =>
  bearer(await issuer.token({ sub, audience, expiresInSeconds: 3_600 }));

/** Keeps many calls on their way until it is stopped; gives what came of them. */
function flood(session: RawSession, many: number): { readonly answers: RawAnswer[]; stop(): Promise<void> } {
  const answers: RawAnswer[] = [];
  let isOver = false;
  let id = 1_000;
  const workers = Array.from({ length: many }, async () => {
    while (!isOver) answers.push(await session.ask("tools/call", '{"name":"b_slow"}', String(id++)));
  });
  return {
    answers,
    async stop() {
      isOver = true;
      await Promise.all(workers);
    },
  };
}

function assertShed({ status, headers, body }: RawAnswer, wanted: number, reason: string): void {
  assert.equal(status, wanted, body);
  assert.match(String(headers["retry-after"]), /^([1-9]|[12]\d|30)$/);
  assert.deepEqual((JSON.parse(body) as { error: { data: unknown } }).error.data, {
    reason,
    retryable: true,
    outcome: "not_executed",
  });
}

test("one identity that floods is told 429, others notice nothing, and afterwards it is served again", async () => {
  const incomingAuth = { type: "oidc", oidc: { issuer: issuer.issuer, audience, insecureAllowHttp: true } };
  await using vmcp = await serve({ backends: [httpBackend("b", url)], incomingAuth }, ["--max-in-flight", "20"]);
  const [loud, quiet] = await Promise.all(
    ["loud", "quiet"].map(async (sub) => openRawSession(vmcp.url, "2025-11-25", await asToken(sub))),
  );
  assert.ok(loud && quiet);
  await quiet.result("tools/call", '{"name":"b_quick"}');
  const flooding = flood(loud, 150);
  for (let i = 0; i < 30; i++) {
    const answer: RawAnswer = await quiet.ask("tools/call", '{"name":"b_quick"}', String(i));
    assert.equal(answer.status, 200, answer.body);
  }
  await eventually("the flood is refused", () => flooding.answers.some(({ status }) => status === 429));
  await flooding.stop();
  const refused = flooding.answers.filter(({ status }) => status !== 200);
  for (const answer of refused) assertShed(answer, 429, "caller_over_share");
  assert.equal((await limitsOf(vmcp)).get("in_flight_of_one_caller")?.refused, refused.length);
  await eventually("the flood is over", async () => (await loud.ask("tools/call", '{"name":"b_quick"}')).status === 200, 5_000);
});

test("a full gateway says 503, takes all that ends work, and recovers", async () => {
  await using vmcp = await serve({ backends: [httpBackend("b", url)] }, ["--max-in-flight", "4"]);
  const session = await openRawSession(vmcp.url);
  const others = await Promise.all(Array.from({ length: 3 }, () => openRawSession(vmcp.url)));
  const flooding = flood(session, 200);
  await eventually("calls are refused", () => flooding.answers.some(({ status }) => status === 503));
  for (const other of others) {
    const own = { ...mcpHeaders, "mcp-session-id": other.id, "mcp-protocol-version": "2025-11-25" };
    const cancel = `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`;
    assert.equal((await send(vmcp.url, { method: "POST", headers: own, body: cancel })).status, 202);
    // The answer to a question that nobody asked: it was read, and not shed.
    const answered = await send(vmcp.url, { method: "POST", headers: own, body: `{"jsonrpc":"2.0","id":"x","result":{}}` });
    assert.equal(answered.status, 400, answered.body);
    for (const path of ["health", "readyz", "status"]) assert.equal((await send(`${vmcp.address}/${path}`)).status, 200);
    assert.equal((await send(vmcp.url, { method: "DELETE", headers: own })).status, 204);
  }
  await flooding.stop();
  for (const answer of flooding.answers) if (answer.status !== 200) assertShed(answer, 503, "gateway_full");
  assert.ok(flooding.answers.some(({ status }) => status === 200));
  const { used, limit } = (await limitsOf(vmcp)).get("in_flight") as Limit;
  assert.deepEqual([used, limit], [0, 4]);
  await eventually(
    "calls are answered",
    async () => (await session.ask("tools/call", '{"name":"b_quick"}')).status === 200,
    5_000,
  );
});

test("calls that wait for a slow backend leave the places to others", async () => {
  const gate = Promise.withResolvers<void>();
  await using backend = await startBackend({
    tools: [plainTool("gated")],
    calls: { gated: () => gate.promise.then(() => textResult("done")) },
  });
  await using vmcp = await serve({ backends: [httpBackend("a", backend.url), httpBackend("b", url)] }, ["--max-in-flight", "4"]);
  const session = await openRawSession(vmcp.url);
  const waiting: Promise<RawAnswer>[] = [];
  for (let i = 1; i <= 12; i++) {
    waiting.push(session.ask("tools/call", '{"name":"a_gated"}', `${i}`));
    await eventually("it is there", () => backend.bodies("tools/call").length === i);
  }
  assert.equal((await session.ask("tools/call", '{"name":"b_quick"}', "99")).status, 200);
  gate.resolve();
  for (const answer of await Promise.all(waiting)) assert.equal(answer.status, 200);
});

test("streams have a bound, and one that ends makes room", async () => {
  await using vmcp = await serve({ backends: [httpBackend("b", url)] }, ["--max-streams", "2"]);
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => openRawSession(vmcp.url)));
  assert.ok(one && two && three);
  const first = await one.stream();
  await using _second = await two.stream();
  const headers = { ...mcpHeaders, "mcp-session-id": three.id, "mcp-protocol-version": "2025-11-25" };
  assertShed(await send(vmcp.url, { headers }), 503, "too_many_streams");
  assert.deepEqual((await limitsOf(vmcp)).get("streams"), { name: "streams", used: 2, limit: 2, refused: 1 });
  await first[Symbol.asyncDispose]();
  await eventually("there is room", async () => (await limitsOf(vmcp)).get("streams")?.used === 1);
  await using _third = await three.stream();
});

test("without memory nobody new is served, but the process says that it lives, and why it refuses", async () => {
  await using vmcp = await serve({ backends: [httpBackend("b", url)] }, ["--memory-limit", "64MB"]);
  const line = await eventually("the log says so", () => vmcp.logs().find(({ event }) => event === "overload.pressure"));
  assert.equal(line.cause, "memory");
  const params = `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}`;
  const body = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":${params}}`;
  assertShed(await send(vmcp.url, { method: "POST", headers: mcpHeaders, body }), 503, "under_pressure");
  assert.equal((await send(`${vmcp.address}/health`)).status, 200);
  assert.ok(((await limitsOf(vmcp)).get("memory_bytes")?.refused ?? 0) >= 1);
});
