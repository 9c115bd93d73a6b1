import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { eventually } from "../../test/support/eventually.ts";
import { readMessage, request } from "../mcp/json-rpc.ts";
import { NoCredentialError, sameForAll } from "../outgoing-auth/credential.ts";
import { BackendError } from "./errors.ts";
import { createHttpEndpoint, type HttpEndpoint } from "./http-endpoint.ts";
import { type ClientFacts, gateway } from "./leg.ts";

const log = pino({ level: "silent" });
const json = { "content-type": "application/json" };

/** An HTTP answer; "hang" is none at all. */
type Answer = { readonly status: number; readonly body?: string; readonly type?: string } | "hang";
/** What a server answers, by method; `*` for any other. */
type Manners = Readonly<Record<string, Answer | ((id: string) => Answer)>>;

const result = (id: string, value: unknown) => `{"jsonrpc":"2.0","id":${id},"result":${JSON.stringify(value)}}`;
const error = (id: string | undefined, code: number, data?: unknown) =>
  `{"jsonrpc":"2.0",${id === undefined ? "" : `"id":${id},`}"error":${JSON.stringify({ code, message: "no", data })}}`;
const refuse =
  (status: number, code: number, data?: unknown) =>
  (id: string): Answer => ({ status, body: error(id, code, data) });

const discovered = (supportedVersions: unknown = ["2026-07-28"]) => ({
  supportedVersions,
  capabilities: { tools: {} },
  resultType: "complete",
});
const statelessServer: Manners = {
  "server/discover": (id) => ({ status: 200, body: result(id, discovered()) }),
  initialize: refuse(400, -32022, { supported: ["2026-07-28"], requested: "2025-11-25" }),
  "*": (id) => ({ status: 200, body: result(id, { resultType: "complete" }) }),
};
const sessionServer: Manners = {
  "server/discover": refuse(400, -32000),
  initialize: (id) => ({ status: 200, body: result(id, { protocolVersion: "2025-11-25", capabilities: {}, serverInfo: {} }) }),
  "*": (id) => ({ status: 200, body: result(id, {}) }),
};

/** A server whose manners may change, and an endpoint of ours for it. */
async function setUp(t: TestContext, initial: Manners, times: { sessionVerdictMs?: number } = {}) {
  let manners = initial;
  const received: string[] = [];
  const answer = (id: string | undefined, method: string, response: ServerResponse) => {
    if (id === undefined) return response.writeHead(202).end();
    const manner = manners[method] ?? manners["*"] ?? "hang";
    const said = typeof manner === "function" ? manner(id) : manner;
    if (said === "hang") return undefined;
    return response.writeHead(said.status, said.type ? { "content-type": said.type } : json).end(said.body);
  };
  const server = createServer(async (incoming, response) => {
    const body = await text(incoming);
    if (incoming.method !== "POST") return void response.writeHead(incoming.method === "DELETE" ? 200 : 405).end();
    const { id, method } = JSON.parse(body);
    received.push(method);
    answer(id === undefined ? undefined : JSON.stringify(id), method, response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const endpoint = createHttpEndpoint({ url: `http://127.0.0.1:${port}/mcp`, credential: sameForAll([]), log, ...times });
  t.after(async () => {
    await endpoint.close();
    server.closeAllConnections();
    server.close();
  });
  return {
    endpoint,
    asked: () => received.filter((method) => method === "server/discover").length,
    received,
    become: (next: Manners) => {
      manners = next;
    },
  };
}

const never = new AbortController().signal;
const open = (endpoint: HttpEndpoint, client: ClientFacts = gateway, signal = never) => endpoint.openLeg(client, signal);
const call = readMessage(request("tools/list", "{}", "1"));
const failure = (code: string, outcome: string) => (thrown: unknown) => {
  assert.ok(thrown instanceof BackendError, String(thrown));
  assert.deepEqual([thrown.code, thrown.outcome], [code, outcome]);
  return true;
};

type Verdict = readonly [
  what: string,
  discover: Answer | ((id: string) => Answer),
  era: "session" | "stateless",
  isRemembered: boolean,
];
const verdicts: Verdict[] = [
  ["says what it is", (id) => ({ status: 200, body: result(id, discovered()) }), "stateless", true],
  [
    "says what it is on a stream",
    (id) => ({ status: 200, type: "text/event-stream", body: `: hi\n\ndata: ${result(id, discovered())}\n\n` }),
    "stateless",
    true,
  ],
  [
    "speaks our revision among others",
    (id) => ({ status: 200, body: result(id, discovered(["2099-01-01", "2026-07-28", "2025-11-25"])) }),
    "stateless",
    true,
  ],
  [
    "says that it speaks older revisions",
    (id) => ({ status: 200, body: result(id, discovered(["2025-11-25"])) }),
    "session",
    true,
  ],
  ["says nothing of revisions", (id) => ({ status: 200, body: result(id, { capabilities: {} }) }), "session", true],
  [
    "refuses the revision, and names older ones",
    refuse(400, -32022, { supported: ["2025-11-25", "2025-06-18"] }),
    "session",
    true,
  ],
  ["refuses the revision, and names none", refuse(400, -32022, { supported: [] }), "session", true],
  ["refuses the revision without a list", refuse(400, -32022), "session", true],
  ["refuses the revision with something that is no list", refuse(400, -32022, { supported: "2026-07-28" }), "session", true],
  ["refuses the revision with a list of nonsense", refuse(400, -32022, { supported: [1, null, {}, ""] }), "session", true],
  ["does not know the method, in band", refuse(200, -32601), "session", true],
  ["does not know the method, with its status", refuse(404, -32601), "session", true],
  ["finds the parameters wrong", refuse(400, -32602), "session", true],
  ["wants a session", refuse(400, -32000), "session", true],
  ["wants a session, in other words", refuse(400, -32600), "session", true],
  ["wants a session, under no id", { status: 400, body: error(undefined, -32000) }, "session", true],
  ["wants a session, under the id null", { status: 400, body: error("null", -32000) }, "session", true],
  ["knows no session of that id", refuse(404, -32001), "session", true],
  ...[400, 404, 405, 406, 409, 410, 415, 422].map(
    (status): Verdict => [`answers ${status} without a word of MCP`, { status, type: "text/plain", body: "no" }, "session", true],
  ),
  ["answers 400 with other JSON", { status: 400, body: '{"detail":"bad request"}' }, "session", true],
  ["answers 400 with nothing", { status: 400 }, "session", true],
  ...[500, 502, 503].map(
    (status): Verdict => [`answers ${status}`, { status, type: "text/plain", body: "oops" }, "session", false],
  ),
  ["answers 503 in words of MCP", refuse(503, -32603), "session", false],
  ["answers with a page", { status: 200, type: "text/html", body: "<html>hello</html>" }, "session", false],
  ["answers with nothing", { status: 200 }, "session", false],
  ["answers with half of a message", { status: 200, body: '{"jsonrpc":"2.0","id":' }, "session", false],
  ["redirects", { status: 302, type: "text/plain" }, "session", false],
  ["does not answer", "hang", "session", false],
];
for (const [what, discover, era, isRemembered] of verdicts)
  test(`a server that ${what} is taken for one of the ${era} era, ${isRemembered ? "and not asked again" : "until it is asked again"}`, async (t) => {
    const { endpoint, asked } = await setUp(t, { ...sessionServer, "server/discover": discover });
    assert.equal((await open(endpoint)).facts.era, era);
    assert.equal(asked(), 1);
    if (discover === "hang") return; // once is slow enough
    assert.equal((await open(endpoint)).facts.era, era);
    assert.equal(asked(), isRemembered ? 1 : 2);
  });

const refusals: [what: string, discover: Answer | ((id: string) => Answer), code: string, outcome: string][] = [
  ["answers 401", { status: 401 }, "unauthorized", "not_executed"],
  ["answers 403", { status: 403 }, "unauthorized", "not_executed"],
  ["answers 401 in words of MCP", refuse(401, -32000), "unauthorized", "not_executed"],
  ["speaks newer revisions alone", refuse(400, -32022, { supported: ["2099-01-01"] }), "bad_answer", "not_executed"],
  [
    "says that it speaks newer ones",
    (id) => ({ status: 200, body: result(id, discovered(["2099-01-01"])) }),
    "bad_answer",
    "not_executed",
  ],
];
for (const [what, discover, code, outcome] of refusals)
  test(`a server that ${what} is of no era yet: no session is tried, and it is asked again`, async (t) => {
    const { endpoint, asked, received, become } = await setUp(t, { ...sessionServer, "server/discover": discover });
    await assert.rejects(open(endpoint), failure(code, outcome));
    assert.deepEqual(received, ["server/discover"]);
    become(statelessServer);
    assert.equal((await open(endpoint)).facts.era, "stateless");
    assert.equal(asked(), 2);
  });

test("a server that refuses the revision once that it says it speaks is asked once more", async (t) => {
  let asked = 0;
  const { endpoint } = await setUp(t, {
    ...statelessServer,
    "server/discover": (id) =>
      asked++ === 0
        ? { status: 400, body: error(id, -32022, { supported: ["2026-07-28"] }) }
        : { status: 200, body: result(id, discovered()) },
  });
  assert.equal((await open(endpoint)).facts.era, "stateless");
  assert.equal(asked, 2);
});

test("a server that can't be reached is of no era, and is asked again when it can", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  const endpoint = createHttpEndpoint({ url: `http://127.0.0.1:${port}/mcp`, credential: sameForAll([]), log });
  t.after(() => endpoint.close());
  for (let i = 0; i < 2; i++) await assert.rejects(open(endpoint), failure("unavailable", "not_executed"));
});

test("a credential that can't be had is said, and nothing is sent", async (t) => {
  const { endpoint: other, received } = await setUp(t, statelessServer);
  await open(other);
  const credential = { ...sameForAll([]), show: () => Promise.reject(new NoCredentialError("no token")) };
  const endpoint = createHttpEndpoint({ url: "http://127.0.0.1:1/mcp", credential, log });
  t.after(() => endpoint.close());
  await assert.rejects(open(endpoint), failure("no_credential", "not_executed"));
  assert.equal(received.length, 1);
});

for (const [what, manners] of [
  ["stateless", statelessServer],
  ["session", sessionServer],
] as const)
  test(`legs of the ${what} era that are opened together ask once, and so do those after them`, async (t) => {
    const { endpoint, asked } = await setUp(t, manners);
    const legs = await Promise.all(Array.from({ length: 8 }, () => open(endpoint)));
    assert.ok(legs.every(({ facts }) => facts.era === what));
    await Promise.all(legs.map(() => open(endpoint)));
    assert.equal(asked(), 1);
  });

test("a server with sessions is asked again after a while, and what it learned meanwhile ends the sessions before", async (t) => {
  const { endpoint, asked, become } = await setUp(t, sessionServer, { sessionVerdictMs: 30 });
  const before = await open(endpoint);
  await open(endpoint);
  assert.equal(asked(), 1);
  become(statelessServer);
  const after = await eventually("it is asked again", async () => {
    const leg = await open(endpoint);
    return leg.facts.era === "stateless" && leg;
  });
  assert.match(before.closedBy ?? "", /another revision/);
  assert.equal(after.closedBy, undefined);
});

test("legs that are opened together fail together, and those after them ask again", async (t) => {
  const { endpoint, asked, become } = await setUp(t, { "*": { status: 401 } });
  const outcomes = await Promise.allSettled(Array.from({ length: 4 }, () => open(endpoint)));
  assert.ok(outcomes.every(({ status }) => status === "rejected"));
  assert.equal(asked(), 1);
  become(statelessServer);
  await open(endpoint);
  assert.equal(asked(), 2);
});

test("who no longer waits does not spoil it for who still does", async (t) => {
  const { endpoint, asked } = await setUp(t, statelessServer);
  const gone = new AbortController();
  const [one, other] = [open(endpoint, gateway, gone.signal), open(endpoint)];
  gone.abort(new Error("gone"));
  await assert.rejects(one, /gone/);
  assert.equal((await other).facts.era, "stateless");
  assert.equal(asked(), 1);
});

const otherWords: [what: string, refusal: Answer | ((id: string) => Answer)][] = [
  ["wants a session", refuse(400, -32000)],
  ["knows no session of that id", refuse(404, -32001)],
  ["refuses the revision", refuse(400, -32022, { supported: ["2025-11-25"] })],
  ["refuses without a word of MCP", { status: 400, type: "text/plain", body: "Missing session ID" }],
  ["has nothing there", { status: 404, type: "text/plain" }],
];
for (const [what, refusal] of otherWords)
  test(`a server that opens sessions only from now on, and ${what}, is met with a session`, async (t) => {
    const { endpoint, become } = await setUp(t, statelessServer);
    const [leg, idle] = [await open(endpoint), await open(endpoint)];
    await leg.request(call, { signal: never });
    become({ ...sessionServer, "tools/list": refusal });
    // The call can be made again: it did not run.
    await assert.rejects(leg.request(call, { signal: never }), failure("session_gone", "not_executed"));
    assert.ok(leg.closedBy && idle.closedBy, "nobody uses what was opened before");
    become(sessionServer);
    const next = await open(endpoint);
    assert.equal(next.facts.era, "session");
    assert.equal(next.closedBy, undefined);
    await next.request(call, { signal: never });
  });

test("a server that opens sessions only from now on is found out by looking after it", async (t) => {
  const { endpoint, become } = await setUp(t, statelessServer);
  const leg = await open(endpoint);
  const ping = readMessage(request("ping", undefined, "2"));
  await leg.request(ping, { signal: never });
  become(sessionServer);
  await assert.rejects(leg.request(ping, { signal: never }), failure("session_gone", "not_executed"));
  assert.equal((await open(endpoint)).facts.era, "session");
});

test("what is wrong with one request is no doubt in the server", async (t) => {
  const { endpoint, become, asked } = await setUp(t, statelessServer);
  const leg = await open(endpoint);
  for (const [status, code] of [
    [404, -32601],
    [400, -32602],
    [400, -32020],
    [400, -32021],
    [500, -32603],
    [200, -32000],
  ] as const) {
    become({ ...statelessServer, "tools/list": refuse(status, code) });
    const answer = await leg.request(call, { signal: never });
    assert.match(answer.json.toString(), new RegExp(`"code":${code}`));
  }
  become({ ...statelessServer, "tools/list": { status: 502 } });
  await assert.rejects(leg.request(call, { signal: never }), failure("unavailable", "unknown"));
  assert.equal(leg.closedBy, undefined);
  assert.equal(asked(), 1);
});

for (const status of [413, 429])
  test(`an answer ${status} is no doubt in the server`, async (t) => {
    const { endpoint, become } = await setUp(t, statelessServer);
    const leg = await open(endpoint);
    become({ ...statelessServer, "tools/list": { status } });
    await assert.rejects(leg.request(call, { signal: never }), failure("refused", "not_executed"));
    assert.equal(leg.closedBy, undefined);
  });

const newWords: [what: string, initialize: Answer | ((id: string) => Answer)][] = [
  ["refuses the revision", refuse(400, -32022, { supported: ["2026-07-28"] })],
  ["refuses it in band", refuse(200, -32022, { supported: ["2026-07-28"] })],
  ["does not know the method", refuse(404, -32601)],
  ["has nothing there", { status: 404, type: "text/plain" }],
  ["refuses without a word of MCP", { status: 400, type: "text/plain" }],
];
for (const [what, initialize] of newWords)
  test(`a server that opens no sessions from now on, and ${what}, is met without`, async (t) => {
    const { endpoint, become, asked } = await setUp(t, sessionServer);
    assert.equal((await open(endpoint)).facts.era, "session");
    become({ ...statelessServer, initialize });
    assert.equal((await open(endpoint)).facts.era, "stateless");
    assert.equal(asked(), 2);
  });

test("a server that fails to open a session is not asked for its era for ever", async (t) => {
  const { endpoint, become, received } = await setUp(t, sessionServer);
  await open(endpoint);
  become({ ...sessionServer, initialize: refuse(400, -32603) });
  received.length = 0;
  await assert.rejects(open(endpoint), failure("bad_answer", "not_executed"));
  assert.deepEqual(received, ["initialize", "server/discover", "initialize"]);
});

test("an endpoint that is closed while it asks opens nothing", async (t) => {
  const { endpoint, received } = await setUp(t, { "*": "hang" });
  const opening = open(endpoint);
  opening.catch(() => undefined);
  await eventually("the question", () => received.length === 1);
  await endpoint.close();
  await assert.rejects(opening, BackendError);
  await assert.rejects(open(endpoint), BackendError);
  assert.deepEqual(received, ["server/discover"]);
});
