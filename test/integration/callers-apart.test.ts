// Two users behind one shared credential, which backends can't tell apart: what the gateway gave one of them is worth nothing to
// the other. Configuration knows anonymous callers only, so the data plane is put together here, with names that come in a header.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { askInSession, askStateless, kinds } from "../support/asking-tools.ts";
import { type Backend, type Handler, plainTool, startBackend } from "../support/backend.ts";
import { mcpHeaders, type RawAnswer, send } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { type StatelessBackend, startStatelessBackend } from "../support/stateless-backend.ts";
import { able, ask, listen, type RpcResult, read, type StatelessAnswer, tasksExtension } from "../support/stateless-client.ts";
import { startTwoUserGateway, type TwoUserGateway } from "../support/two-user-gateway.ts";

type User = "ann" | "bob";

const stack = new AsyncDisposableStack();
const isOver = new AbortController();
const capabilities = { ...able, extensions: { [tasksExtension]: {} } };
const secret = "ann's own words";
const args = { rounds: [{ who: kinds.elicitation.question }], secret };
const note = (era: string) => `note://${era}`;
const noteResource = (era: string) => `{"uri":"${note(era)}","name":"note"}`;
let sessionful: Backend;
let stateless: StatelessBackend;
let gateway: TwoUserGateway;

before(async () => {
  const tools = [plainTool("ask"), plainTool("also_ask"), ...Array.from({ length: 80 }, (_, i) => long(i))];
  const offered = { tools: { listChanged: true }, resources: { subscribe: true }, prompts: {} };
  const nothing: Handler = () => "{}";
  const askIt = askInSession(() => sessionful, isOver.signal);
  sessionful = stack.use(
    await startBackend({
      tools,
      resources: [noteResource("session")],
      initialize: JSON.stringify({
        protocolVersion: "2025-11-25",
        capabilities: offered,
        serverInfo: { name: "s", version: "1" },
      }),
      methods: { "resources/subscribe": nothing, "resources/unsubscribe": nothing },
      calls: { ask: askIt, also_ask: askIt },
    }),
  );
  stateless = stack.use(
    await startStatelessBackend({
      tools: [...tools, plainTool("job")],
      resources: [noteResource("stateless")],
      prompts: [`{"name":"ask"}`],
      calls: { ask: askStateless, also_ask: askStateless, job: () => `{"resultType":"task","taskId":"t/1","status":"working"}` },
      tasks: {
        get: ({ params }) =>
          `{"resultType":"complete","taskId":"${params.taskId}","status":"working","statusMessage":"${secret}"}`,
        update: () => `{"resultType":"complete"}`,
        cancel: () => `{"resultType":"complete"}`,
      },
    }),
  );
  gateway = stack.use(await startTwoUserGateway({ s: sessionful.url, m: stateless.url }));
});
after(() => {
  isOver.abort();
  return stack.disposeAsync();
});

for (const backend of ["s", "m"] as const) {
  const name = `${backend}_ask`;
  const retryOf = ({ requestState, inputRequests = {} }: RpcResult) => ({
    name,
    arguments: args,
    requestState,
    inputResponses: Object.fromEntries(Object.keys(inputRequests).map((key) => [key, kinds.elicitation.answer])),
  });
  const begin = async () => {
    const asked = await as("ann", "tools/call", { name, arguments: args });
    assert.equal(asked.result.resultType, "input_required", asked.body);
    return retryOf(asked.result);
  };
  const finish = async (retry: object) => {
    const done = await as("ann", "tools/call", retry);
    assert.deepEqual(JSON.parse(done.text || "0"), [kinds.elicitation.answer], done.body);
  };

  test(`another user's requestState for "${backend}" is refused, and is still good for its owner`, async () => {
    const retry = await begin();
    await isRefused(() => as("bob", "tools/call", retry));
    await finish(retry);
  });

  test(`a requestState for "${backend}" is void for any other call`, async () => {
    const retry = await begin();
    const other = { rounds: [], secret };
    for (const changed of [
      { ...retry, arguments: other },
      { ...retry, arguments: { ...args, more: 1 } },
      { ...retry, arguments: undefined },
      { ...retry, name: `${backend}_also_ask` },
      { ...retry, name: `${backend === "s" ? "m" : "s"}_ask` },
      { ...retry, more: true },
    ])
      await isRefused(() => as("ann", "tools/call", changed));
    await isRefused(() => as("ann", "prompts/get", { ...retry, name: "m_ask" }));
    await isRefused(() => as("ann", "resources/read", { ...retry, uri: note("stateless") }));
    await isRefused(() => as("ann", "tools/list", { requestState: retry.requestState }));
    await finish(retry);
  });

  test(`a requestState for "${backend}" that was changed anywhere is refused`, async () => {
    const retry = await begin();
    const state = String(retry.requestState);
    const places = [
      0,
      1,
      2,
      3,
      4,
      15,
      20,
      30,
      Math.floor(state.length / 2),
      state.length - 20,
      state.length - 2,
      state.length - 1,
    ];
    const changed = places.map((i) => state.slice(0, i) + (state[i] === "A" ? "B" : "A") + state.slice(i + 1));
    const others = [
      state.slice(0, -1),
      `${state}A`,
      `${state}=`,
      `${state}\n`,
      state.slice(1),
      state + state,
      "",
      "s1.",
      "x",
      1,
      {},
    ];
    for (const requestState of [...changed, ...others])
      await isRefused(() => as("ann", "tools/call", { ...retry, requestState }));
    await finish(retry);
  });

  test(`a requestState for "${backend}" is void on another virtual server`, async () => {
    const retry = await begin();
    const url = gateway.url.replace("/team/", "/other/");
    await isRefused(() => ask(url, "tools/call", retry, { id: `"no"`, capabilities, headers: { "x-user": "ann" } }));
    await finish(retry);
  });

  if (backend === "s")
    test("a parked call goes on once: its requestState is void after use, also when it is used twice at once", async () => {
      const retry = await begin();
      await finish(retry);
      await isRefused(() => as("ann", "tools/call", retry));
      const twice = await begin();
      const answers = await Promise.all([as("ann", "tools/call", twice), as("ann", "tools/call", twice)]);
      const codes = answers.map(({ error }) => error?.code);
      assert.deepEqual(codes.toSorted(), [-32602, undefined], JSON.stringify(codes));
    });
}

test("a cursor is good for the user who got it, in either era, and for nobody else", async () => {
  const first = await as("ann", "tools/list");
  const cursor = first.result.nextCursor;
  assert.ok(cursor, "the list has pages");
  await isRefused(() => as("bob", "tools/list", { cursor }));
  for (const changed of [cursor.slice(1), `${cursor}A`, cursor.split(".")[0], `${cursor.slice(0, -1)}!`])
    await isRefused(() => as("ann", "tools/list", { cursor: changed }));
  await isRefused(() => as("ann", "resources/list", { cursor }));
  assert.ok((await as("ann", "tools/list", { cursor })).result.tools);

  const [ann, bob] = [await openSession("ann"), await openSession("bob")];
  const own = (await ann("tools/list")).result.nextCursor;
  assert.ok(own);
  await isRefused(() => bob("tools/list", { cursor: own }));
  await isRefused(() => as("bob", "tools/list", { cursor: own }));
  assert.ok((await ann("tools/list", { cursor: own })).result.tools);
});

test("a task is known to the user who has it, and to nobody else", async () => {
  const { taskId } = (await as("ann", "tools/call", { name: "m_job" })).result;
  assert.ok(typeof taskId === "string" && !taskId.includes("t/1"), String(taskId));
  for (const method of ["tasks/get", "tasks/update", "tasks/cancel"]) {
    const more = method === "tasks/update" ? { inputResponses: {} } : {};
    await isRefused(() => as("bob", method, { taskId, ...more }));
    await isRefused(() => as("ann", method, { taskId: "t/1", ...more }));
    assert.equal((await as("ann", method, { taskId, ...more })).error, undefined, method);
  }
});

test("what is heard of a task reaches the listens of the user who has it, and no others", async () => {
  const { taskId } = (await as("ann", "tools/call", { name: "m_job" })).result;
  const { taskId: bobs } = (await as("bob", "tools/call", { name: "m_job" })).result; // the same task, as the server sees it
  await using ann = await listenAs("ann", { taskIds: [taskId] });
  await using bob = await listenAs("bob", { taskIds: [taskId, "t/1"], toolsListChanged: true });
  assert.deepEqual(ann.honored, { taskIds: [taskId] });
  assert.deepEqual(bob.honored, { toolsListChanged: true });
  await eventually("the server is asked", () => stateless.listens().some(({ filter }) => filter.taskIds?.includes("t/1")));
  const said = `"taskId":"t/1","status":"working","statusMessage":"${secret}"`;
  stateless.push((tag) => `{"jsonrpc":"2.0","method":"notifications/tasks","params":{"_meta":{${tag}},${said}}}`);
  assert.equal((await ann.next("notifications/tasks")).params?.taskId, taskId);
  await using later = await listenAs("bob", { taskIds: [bobs] });
  assert.deepEqual(later.honored, { taskIds: [bobs] });
  assert.equal(bob.messages.length, 1, "the acknowledgement alone");
});

for (const era of ["session", "stateless"] as const) {
  test(`updates of a ${era} server's resource reach the listens of the user who asked for it, and no others`, async () => {
    const uri = note(era);
    const update = () =>
      era === "session"
        ? sessionful.push(`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"${uri}"}}`)
        : stateless.updated(uri);
    // Bob has used the server as well, so there is a session of his with it, and a stream.
    await using bob = await listenAs("bob", { toolsListChanged: true, resourcesListChanged: true });
    await as("bob", "tools/call", { name: "s_ask", arguments: { rounds: [] } });
    await using ann = await listenAs("ann", { resourceSubscriptions: [uri] });
    assert.deepEqual(ann.honored, { resourceSubscriptions: [uri] });
    update();
    await ann.next("notifications/resources/updated");
    await using too = await listenAs("bob", { resourceSubscriptions: [uri] });
    update();
    await too.next("notifications/resources/updated"); // anything of the first update would have come before
    assert.deepEqual(
      bob.messages.map(({ method }) => method),
      ["notifications/subscriptions/acknowledged"],
    );
  });
}

test("a listen that a server refuses takes nothing from those who listen already", async () => {
  const uri = note("stateless");
  await using ann = await listenAs("ann", { resourceSubscriptions: [uri] });
  assert.deepEqual(ann.honored, { resourceSubscriptions: [uri] });
  const refusal = `{"jsonrpc":"2.0","error":{"code":-32602,"message":"too much"}}`;
  stateless.set({ faults: { "subscriptions/listen": { status: 400, body: refusal } } });
  const refused = stateless.received("subscriptions/listen").length;
  const { taskId } = (await as("bob", "tools/call", { name: "m_job" })).result;
  await using _bob = await listenAs("bob", { taskIds: [taskId] });
  await eventually("it is refused", () => stateless.received("subscriptions/listen").length > refused);
  stateless.set({ faults: {} });
  await eventually(
    "she hears",
    () => {
      stateless.updated(uri);
      return ann.messages.some(({ method }) => method === "notifications/resources/updated");
    },
    3_000,
  );
});

test("a user's session is nothing to others, with or without a session of their own", async () => {
  const ann = await openSession("ann");
  assert.ok((await ann("tools/list")).result.tools);
  const headers = { ...mcpHeaders, "mcp-session-id": ann.id, "mcp-protocol-version": "2025-11-25" };
  const body = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`;
  const stolen = await send(gateway.url, { method: "POST", headers: { ...headers, "x-user": "bob" }, body });
  assert.equal(stolen.status, 404);
  // Whoever shows another's session ends it, unless the operator chose otherwise.
  assert.equal((await send(gateway.url, { method: "POST", headers: { ...headers, "x-user": "ann" }, body })).status, 404);
  // In the other era the header says nothing at all: what answers is Bob's own.
  const { requestState } = (await as("ann", "tools/call", { name: "s_ask", arguments: args })).result;
  const params = { name: "s_ask", arguments: args, requestState };
  await isRefused(() =>
    ask(gateway.url, "tools/call", params, {
      id: `"no"`,
      capabilities,
      headers: { "x-user": "bob", "mcp-session-id": ann.id },
    }),
  );
});

test("a URI that was handed out to one user is not found by another", async () => {
  const uri = "handed-out://1";
  const given = `{"content":[{"type":"resource_link","uri":"${uri}","name":"l"}],"resultType":"complete"}`;
  stateless.set({ calls: { ask: () => given } });
  await as("ann", "tools/call", { name: "m_ask" });
  await isRefused(() => as("bob", "resources/read", { uri }));
});

test("a caller without a name is not served", async () => {
  const answer = await ask(gateway.url, "tools/list");
  assert.equal(answer.status, 401);
});

test("the calls of one user that wait for input leave room for those of others", async () => {
  const before = sessionful.bodies("tools/call").length;
  const abilities = [{ elicitation: {} }, { elicitation: {}, roots: {} }];
  const waiting = abilities.flatMap((declared) =>
    Array.from({ length: 90 }, () =>
      ask(
        gateway.url,
        "tools/call",
        { name: "s_ask", arguments: args },
        { capabilities: declared, headers: { "x-user": "ann" } },
      ),
    ),
  );
  const all = Promise.allSettled(waiting);
  // More than these the gateway may refuse, but then it has to answer.
  await eventually("enough of them wait", () => sessionful.bodies("tools/call").length >= before + 90);
  await Promise.race([all, sleep(1_000, undefined)]);
  const bobs = as("bob", "tools/call", { name: "s_ask", arguments: { rounds: [] } });
  const outcome = await Promise.race([bobs, sleep(3_000, undefined)]);
  isOver.abort(); // the server gives up on all of them
  await all;
  assert.equal(outcome?.text, "[]", "an answer within 3 s");
});

/** The answer is a clean error under the request's id, without a word of the other user's, and no backend heard of the request. */
async function isRefused(act: () => Promise<StatelessAnswer>): Promise<void> {
  const before = [sessionful.requests.length, stateless.requests.length];
  const { status, id, error, body } = await act();
  assert.equal(error?.code, -32602, body);
  assert.deepEqual([status, id], [200, "no"], body);
  assert.ok(!body.includes(secret) && !/\b(ann|bob)\b|t\/1"/.test(body), body);
  assert.ok(!/\bat \S+:\d+|node_modules|\.ts\b|"stack"/.test(body), body);
  const isCall = ({ message }: { message: { method: string | undefined } | undefined }) =>
    !/^(subscriptions\/listen|ping|server\/discover|notifications\/|resources\/unsubscribe)/.test(message?.method ?? "ping");
  const calls = [...sessionful.requests.slice(before[0]), ...stateless.requests.slice(before[1])].filter(isCall);
  assert.deepEqual(
    calls.map(({ body: sent }) => sent),
    [],
  );
}

function as(user: User, method: string, params: object = {}): Promise<StatelessAnswer> {
  return ask(gateway.url, method, params, { id: `"no"`, capabilities, headers: { "x-user": user } });
}

const listenAs = (user: User, filter: object) => listen(gateway.url, filter, { capabilities, headers: { "x-user": user } });

interface UserSession {
  (method: string, params?: object): Promise<StatelessAnswer>;
  readonly id: string;
}

async function openSession(user: User): Promise<UserSession> {
  const post = (body: string, more: Record<string, string> = {}): Promise<RawAnswer> =>
    send(gateway.url, { method: "POST", headers: { ...mcpHeaders, "x-user": user, ...more }, body });
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "raw", version: "1" } };
  const { headers } = await post(JSON.stringify({ jsonrpc: "2.0", id: 0, method: "initialize", params }));
  const session = { "mcp-session-id": String(headers["mcp-session-id"]), "mcp-protocol-version": "2025-11-25" };
  const say = async (method: string, given: object = {}) =>
    read(await post(JSON.stringify({ jsonrpc: "2.0", id: "no", method, params: given }), session));
  return Object.assign(say, { id: session["mcp-session-id"] });
}

/** Fills pages. */
function long(i: number): string {
  return plainTool(`t${i}`, "x".repeat(9_000));
}
