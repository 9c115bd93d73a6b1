import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import {
  type BackendScript,
  type Call,
  type Handler,
  plainTool,
  type Backend as Server,
  startBackend,
  textResult,
} from "../../test/support/backend.ts";
import { eventually } from "../../test/support/eventually.ts";
import { type Backend, createBackend } from "../backends/backend.ts";
import { BackendError } from "../backends/errors.ts";
import { createLimit, type Limit } from "../backends/limit.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { abilitiesOf, createCallers } from "../session/callers.ts";
import type { Session } from "../session/session.ts";
import { createParkedCalls, type ParkedCalls, type ParkedCallsOptions, type Retry, type Turn } from "./parked-calls.ts";

const log = pino({ level: "silent" });
const everything = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };

/** Servers whose tools wait for nothing any more. */
const over = new WeakSet<Server>();

/** A scripted server of the session era behind a backend of ours, and callers without sessions in front of it. */
async function setUp(t: TestContext, calls: Readonly<Record<string, Handler>>, options: Partial<ParkedCallsOptions> = {}) {
  const script: BackendScript = { tools: Object.keys(calls).map((name) => plainTool(name)), calls };
  const server = await startBackend(script);
  const callers = createCallers({ idleMs: 60_000, callersMax: 10, clientInfo: '{"name":"vmcp","version":"1"}' });
  const backend = createBackend({
    spec: create(BackendSchema, { name: "scripted", url: server.url, transport: "streamable-http" }),
    credential: sameForAll([]),
    breaker: { enabled: true, failureThreshold: 50, openMs: 60_000 },
    log,
    onMessage: () => undefined,
    onChange: () => undefined,
  });
  t.after(async () => {
    over.add(server);
    await callers[Symbol.asyncDispose]();
    await backend.retire(0);
    await server[Symbol.asyncDispose]();
  });
  await backend.firstAttempt;
  const parked = createParkedCalls({ log, personMs: 20_000, ...options });
  const caller = (subject = "s", declared: Record<string, unknown> = everything) =>
    callers.of({
      virtualServer: "v",
      identity: { issuer: "i", subject, isAnonymous: false },
      capabilities: abilitiesOf(declared),
    })?.session as Session;
  const session = caller();
  /** Nobody waits for anything any more. */
  const isClean = () => parked.size === 0 && [...callers.all()].every((one) => one.calls.size === 0);
  return { server, backend, parked, caller, session, isClean };
}

interface Started {
  readonly limit: Limit;
  readonly heard: string[];
  readonly turn: Promise<Turn>;
  /** The backend's own answer, whoever waits for it. */
  readonly ran: Promise<Message>;
}

function start(
  parked: ParkedCalls,
  { session, backend }: { session: Session; backend: Backend },
  name: string,
  { timeoutMs = 10_000, token }: { timeoutMs?: number; token?: string } = {},
): Started {
  const limit = createLimit();
  const heard: string[] = [];
  const meta = token === undefined ? "" : `,"_meta":{"progressToken":${token}}`;
  const message = readMessage(request("tools/call", `{"name":"${name}"${meta}}`, "7"));
  const notify = ({ json }: Message) => void heard.push(json.toString());
  const ran = Promise.withResolvers<Message>();
  ran.promise.catch(() => undefined);
  const turn = parked.start({
    session,
    backend,
    limit,
    timeoutMs,
    notify,
    run(hear) {
      const answer = backend.call(session, message, { timeoutMs, limit, onMessage: hear });
      ran.resolve(answer);
      return answer;
    },
  });
  return { limit, heard, turn, ran: ran.promise };
}

const back = (responses: Readonly<Record<string, string>> = {}, more: Partial<Retry> = {}): Retry => ({
  responses: new Map(Object.entries(responses)),
  notify: () => undefined,
  progressToken: undefined,
  signal: new AbortController().signal,
  ...more,
});

type Asked = Extract<Turn, { inputRequests: string }>;
function asked(turn: Turn | undefined): Asked {
  assert.ok(turn && "inputRequests" in turn, `not asked, but ${turn && "answer" in turn ? turn.answer.json : turn}`);
  return turn;
}
const questionsOf = (turn: Turn | undefined) =>
  JSON.parse(asked(turn).inputRequests) as Record<string, { method: string; params?: unknown }>;
function textOf(turn: Turn | undefined): string {
  assert.ok(turn && "answer" in turn, "no answer");
  return JSON.parse(turn.answer.json.toString()).result.content[0].text;
}

const ask = (id: string, method = "elicitation/create", params = '{"message":"?","requestedSchema":{}}') =>
  `{"jsonrpc":"2.0","id":${id},"method":"${method}","params":${params}}`;
const withdraw = (id: string) => `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id}}}`;
const progress = (token: unknown, done: number) =>
  `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":${JSON.stringify(token)},"progress":${done}}}`;

/** What the server was answered under an id of its own, once it was. */
const answerTo = (server: () => Server, id: string) =>
  eventually(`an answer to ${id}`, () => bodiesOf(server(), id)[0] ?? (over.has(server()) && "{}"));
const bodiesOf = (server: Server, id: string) =>
  server.requests.filter(({ message }) => message?.id === id && message.method === undefined).map(({ body }) => body);

/** A tool that asks these, waits for every answer, and gives them all. */
const asking =
  (server: () => Server, ...questions: readonly [id: string, method?: string, params?: string][]): Handler =>
  async ({ notify }) => {
    for (const question of questions) notify(ask(...question));
    const answers = await Promise.all(questions.map(([id]) => answerTo(server, id)));
    return textResult(answers.join("\n"));
  };

/** A tool that asks once, and ends when it is told to. */
function held(question = ask('"q"')) {
  const end = Promise.withResolvers<string>();
  let call: Call | undefined;
  const tool: Handler = (made) => {
    call = made;
    made.notify(question);
    return end.promise;
  };
  return { tool, end: (text: string) => end.resolve(textResult(text)), say: (raw: string) => call?.notify(raw) };
}

test("questions that come together are asked together, and the answers reach the backend as they were given", async (t) => {
  let server = undefined as unknown as Server;
  const params =
    '{"elicitationId":"e","mode":"url","url":"https://a","message":"\\u00e9","n":9007199254740993,"_meta":{"progressToken":1,"a/b":1.0}}';
  const sampling = '{"messages":[],"maxTokens":1.0,"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}';
  const tool = asking(
    () => server,
    ["1", "elicitation/create", params],
    ['"1"', "sampling/createMessage", sampling],
    ["2.0", "roots/list", "{}"],
  );
  const { parked, isClean, ...rest } = await setUp(t, { tool });
  server = rest.server;
  const turn = asked(await start(parked, rest, "tool").turn);
  assert.equal(
    turn.inputRequests,
    '{"input-1":{"method":"elicitation/create","params":{"mode":"url","url":"https://a","message":"\\u00e9","n":9007199254740993,"_meta":{"a/b":1.0}}},' +
      '"input-2":{"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1.0}},' +
      '"input-3":{"method":"roots/list","params":{}}}',
  );
  assert.equal(parked.size, 1);
  assert.equal(rest.session.calls.size, 1, "what is parked is in use");
  const given = {
    "input-1": '{"action":"accept", "n":9007199254740993}',
    "input-2": '{"role":"x"}',
    "input-3": '{"roots":[1.0]}',
  };
  const done = await parked.resume(turn.job, turn.round, back(given));
  assert.deepEqual(textOf(done).split("\n"), [
    `{"jsonrpc":"2.0","id":1,"result":${given["input-1"]}}`,
    `{"jsonrpc":"2.0","id":"1","result":${given["input-2"]}}`,
    `{"jsonrpc":"2.0","id":2.0,"result":${given["input-3"]}}`,
  ]);
  assert.ok(isClean());
});

test("a call that asks nothing is answered, and nothing is parked", async (t) => {
  const { parked, isClean, ...rest } = await setUp(t, { tool: () => textResult("done") });
  assert.equal(textOf(await start(parked, rest, "tool").turn), "done");
  assert.ok(isClean());
});

test("a call that fails before it asks fails, and nothing is parked", async (t) => {
  const { parked, isClean, server, ...rest } = await setUp(t, { tool: () => textResult("done") });
  server.set({ fault: { status: 413 } });
  await assert.rejects(start(parked, rest, "tool").turn, BackendError);
  assert.ok(isClean());
});

test("what was not answered is asked again in a new round, and what was answered is not", async (t) => {
  let server = undefined as unknown as Server;
  const { parked, isClean, ...rest } = await setUp(t, { tool: asking(() => server, ["1"], ["2"], ["3"]) });
  server = rest.server;
  const first = asked(await start(parked, rest, "tool").turn);
  const second = asked(await parked.resume(first.job, first.round, back({ "input-2": '{"action":"accept"}', unknown: "{}" })));
  assert.deepEqual(Object.keys(questionsOf(second)), ["input-1", "input-3"]);
  assert.deepEqual([second.job, second.round], [first.job, first.round + 1]);
  const third = asked(await parked.resume(second.job, second.round, back()));
  assert.deepEqual(Object.keys(questionsOf(third)), ["input-1", "input-3"]);
  const all = back({ "input-1": '{"action":"decline"}', "input-2": '{"again":1}', "input-3": '{"action":"cancel"}' });
  await parked.resume(third.job, third.round, all);
  for (const id of ["1", "2", "3"]) assert.equal(bodiesOf(server, id).length, 1);
  assert.ok(isClean());
});

test("a backend may ask again after it was answered, in another round", async (t) => {
  let server = undefined as unknown as Server;
  const { parked, isClean, ...rest } = await setUp(t, {
    async tool({ notify }) {
      for (const id of ["1", "2", "3"]) {
        notify(ask(id));
        await answerTo(() => server, id);
      }
      return textResult("done");
    },
  });
  server = rest.server;
  let turn: Turn | undefined = await start(parked, rest, "tool").turn;
  for (const round of [1, 2, 3]) {
    const question = asked(turn);
    assert.equal(question.round, round);
    assert.deepEqual(Object.keys(questionsOf(question)), [`input-${round}`]);
    turn = await parked.resume(question.job, question.round, back({ [`input-${round}`]: '{"action":"accept"}' }));
  }
  assert.equal(textOf(turn), "done");
  assert.ok(isClean());
});

test("a call that is not there, or a round that is not the last one, can't be gone on with", async (t) => {
  let server = undefined as unknown as Server;
  const { parked, ...rest } = await setUp(t, { tool: asking(() => server, ["1"]) });
  server = rest.server;
  const turn = asked(await start(parked, rest, "tool").turn);
  assert.equal(await parked.resume("unknown", 1, back()), undefined);
  assert.equal(await parked.resume("", 0, back()), undefined);
  for (const round of [0, 2, -1, Number.NaN]) assert.equal(await parked.resume(turn.job, round, back()), undefined);
  const again = asked(await parked.resume(turn.job, turn.round, back()));
  assert.equal(await parked.resume(turn.job, turn.round, back({ "input-1": "{}" })), undefined, "a used round");
  assert.deepEqual(bodiesOf(server, "1"), []);
  assert.match(textOf(await parked.resume(again.job, again.round, back({ "input-1": '{"a":1}' }))), /"a":1/);
  assert.equal(await parked.resume(again.job, again.round, back({ "input-1": '{"a":2}' })), undefined, "a call that is over");
  assert.equal(bodiesOf(server, "1").length, 1);
});

test("of two that go on with the same round one does", async (t) => {
  let server = undefined as unknown as Server;
  const { parked, isClean, ...rest } = await setUp(t, { tool: asking(() => server, ["1"]) });
  server = rest.server;
  const { job, round } = asked(await start(parked, rest, "tool").turn);
  const [one, other] = await Promise.all([
    parked.resume(job, round, back({ "input-1": '{"a":1}' })),
    parked.resume(job, round, back({ "input-1": '{"a":2}' })),
  ]);
  assert.equal(other, undefined);
  assert.match(textOf(one), /"a":1/);
  assert.equal(bodiesOf(server, "1").length, 1);
  assert.ok(isClean());
});

test("a caller that goes while the call runs on ends it, and the backend is told", async (t) => {
  const { tool } = held();
  const { parked, isClean, server, ...rest } = await setUp(t, { tool });
  const { job, round } = asked(await start(parked, rest, "tool").turn);
  const gone = new AbortController();
  const resumed = parked.resume(job, round, back({ "input-1": '{"action":"accept"}' }, { signal: gone.signal }));
  await answerTo(() => server, '"q"');
  const reason = new Error("the client went away");
  gone.abort(reason);
  await assert.rejects(resumed, reason);
  await eventually("the cancellation", () => server.bodies("notifications/cancelled").length > 0);
  assert.ok(isClean());
});

test("a caller that is gone when its retry comes to be served ends the call", async (t) => {
  const { tool } = held();
  const { parked, isClean, server, ...rest } = await setUp(t, { tool });
  const { job, round } = asked(await start(parked, rest, "tool").turn);
  const signal = AbortSignal.abort(new Error("the client went away"));
  void parked.resume(job, round, back({ "input-1": '{"action":"accept"}' }, { signal })).catch(() => undefined);
  await eventually("the cancellation", () => server.bodies("notifications/cancelled").length > 0, 1_000);
  assert.ok(isClean());
});

test("a caller that goes after its answer does not end a call that is parked again", async (t) => {
  let server = undefined as unknown as Server;
  const { parked, isClean, ...rest } = await setUp(t, { tool: asking(() => server, ["1"], ["2"]) });
  server = rest.server;
  const first = asked(await start(parked, rest, "tool").turn);
  const connection = new AbortController();
  const second = asked(await parked.resume(first.job, first.round, back({ "input-1": "{}" }, { signal: connection.signal })));
  connection.abort();
  await parked.resume(second.job, second.round, back({ "input-2": "{}" }));
  assert.ok(isClean());
});

/** Whoever comes back too late is told so, and not to call again as if nothing had run. */
const hasEnded = (error: unknown) => error instanceof BackendError && error.code === "unanswered" && error.outcome === "unknown";

test("a call that nobody comes back for ends: the backend is told that nobody answers, and to stop", async (t) => {
  let server = undefined as unknown as Server;
  const tool = asking(() => server, ["1"], ["2", "sampling/createMessage", '{"messages":[]}'], ["3", "roots/list", "{}"]);
  const { parked, isClean, ...rest } = await setUp(t, { tool }, { personMs: 100 });
  server = rest.server;
  const { job, round } = asked(await start(parked, rest, "tool").turn);
  const [elicitation, sampling, roots] = await Promise.all(["1", "2", "3"].map((id) => answerTo(() => server, id)));
  assert.deepEqual(JSON.parse(elicitation as string).result, { action: "cancel" });
  assert.equal(JSON.parse(sampling as string).error.code, -1);
  assert.equal(JSON.parse(roots as string).error.code, -32603);
  await eventually("the cancellation", () => server.bodies("notifications/cancelled").length > 0);
  await eventually("nothing left", isClean);
  await assert.rejects(parked.resume(job, round, back({ "input-1": "{}" })), hasEnded);
  for (const id of ["1", "2", "3"]) assert.equal(bodiesOf(server, id).length, 1);
});

test("a call that runs on after its answers has the backend's deadline again", async (t) => {
  const { tool } = held();
  const { parked, isClean, server, ...rest } = await setUp(t, { tool });
  const { job, round } = asked(await start(parked, rest, "tool", { timeoutMs: 200 }).turn);
  const resumed = parked.resume(job, round, back({ "input-1": "{}" }));
  await assert.rejects(resumed, (error) => error instanceof BackendError && error.code === "timeout");
  await eventually("the cancellation", () => server.bodies("notifications/cancelled").length > 0);
  assert.ok(isClean());
});

test("a question that the backend takes back at once is not asked", async (t) => {
  let server = undefined as unknown as Server;
  const { parked, isClean, ...rest } = await setUp(t, {
    async tool({ notify }) {
      for (const said of [ask("1"), ask('"1"'), withdraw("1")]) notify(said);
      return textResult(await answerTo(() => server, '"1"'));
    },
  });
  server = rest.server;
  const turn = asked(await start(parked, rest, "tool").turn);
  assert.deepEqual(Object.keys(questionsOf(turn)), ["input-2"]);
  assert.match(textOf(await parked.resume(turn.job, turn.round, back({ "input-1": '{"a":1}', "input-2": '{"a":2}' }))), /"a":2/);
  assert.deepEqual(bodiesOf(server, "1"), []);
  assert.ok(isClean());
});

test("a question that the backend takes back while it is parked is not answered, and the call goes on", async (t) => {
  const { tool, say, end } = held();
  const { parked, isClean, server, ...rest } = await setUp(t, { tool });
  const { job, round } = asked(await start(parked, rest, "tool").turn);
  say(withdraw('"q"'));
  say(ask('"q2"'));
  // The next question is there when what was said before it has been heard.
  const again = asked(
    await eventually("the other question", async () => {
      const turn = asked(await parked.resume(job, round, back()).then((turn) => turn ?? parked.resume(job, round + 1, back())));
      return "input-2" in questionsOf(turn) && turn;
    }),
  );
  assert.deepEqual(Object.keys(questionsOf(again)), ["input-2"]);
  const resumed = parked.resume(again.job, again.round, back({ "input-1": "{}", "input-2": '{"a":2}' }));
  assert.match(await answerTo(() => server, '"q2"'), /"a":2/);
  end("done");
  assert.equal(textOf(await resumed), "done");
  assert.deepEqual(bodiesOf(server, '"q"'), []);
  assert.ok(isClean());
});

test("an answer that comes while the call is parked is kept for the caller", async (t) => {
  const { tool, end } = held();
  const { parked, isClean, ...rest } = await setUp(t, { tool });
  const { turn, ran } = start(parked, rest, "tool");
  const { job, round } = asked(await turn);
  end("did without");
  await ran;
  assert.equal(textOf(await parked.resume(job, round, back({ "input-1": '{"action":"accept"}' }))), "did without");
  assert.ok(isClean());
});

test("an answer that comes while the call is parked is not kept for longer than a caller may take", async (t) => {
  const { tool, end } = held();
  const { parked, isClean, ...rest } = await setUp(t, { tool });
  const { turn, ran } = start(parked, rest, "tool");
  const { job, round } = asked(await turn);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  end("did without");
  await ran;
  await new Promise(setImmediate);
  t.mock.timers.tick(10 * 60_000);
  assert.ok(isClean());
  await assert.rejects(parked.resume(job, round, back()), hasEnded);
});

test("an answer that is kept for a caller goes when its session ends", async (t) => {
  const { tool, end } = held();
  const { parked, session, ...rest } = await setUp(t, { tool });
  const { turn, ran } = start(parked, { ...rest, session }, "tool");
  const { job, round } = asked(await turn);
  end("did without");
  await ran;
  for (const call of session.calls.values()) call.abort(new Error("the session ended"));
  await eventually("nothing left", () => parked.size === 0, 1_000);
  assert.equal(await parked.resume(job, round, back()), undefined);
});

test("a call whose session ends while it is parked ends with it", async (t) => {
  let server = undefined as unknown as Server;
  const { parked, isClean, ...rest } = await setUp(t, { tool: asking(() => server, ["1"]) });
  server = rest.server;
  const { job, round } = asked(await start(parked, rest, "tool").turn);
  for (const call of rest.session.calls.values()) call.abort(new Error("the session ended"));
  await eventually("nothing left", isClean);
  await eventually("the cancellation", () => server.bodies("notifications/cancelled").length > 0);
  await assert.rejects(parked.resume(job, round, back()), hasEnded);
});

test("a call whose backend breaks while it is parked is forgotten", async (t) => {
  const { tool } = held();
  const { parked, isClean, server, ...rest } = await setUp(t, { tool });
  const { job, round } = asked(await start(parked, rest, "tool").turn);
  await server.down();
  await eventually("nothing left", isClean);
  await assert.rejects(parked.resume(job, round, back()), hasEnded);
});

test("what a caller can't be asked is refused, and the call goes on", async (t) => {
  let server = undefined as unknown as Server;
  const tool = asking(
    () => server,
    ["1", "sampling/createMessage", '{"messages":[]}'],
    ["2", "elicitation/create", '{"mode":"url","url":"x"}'],
    ["3", "tools/list", "{}"],
  );
  const { parked, isClean, caller, ...rest } = await setUp(t, { tool });
  server = rest.server;
  const session = caller("plain", { elicitation: {} });
  const done = await start(parked, { ...rest, session }, "tool").turn;
  assert.deepEqual(
    textOf(done)
      .split("\n")
      .map((answer) => JSON.parse(answer).error.code),
    [-32601, -32602, -32601],
  );
  assert.ok(isClean());
});

test("a call asks at most a hundred questions", async (t) => {
  let server = undefined as unknown as Server;
  const ids = Array.from({ length: 101 }, (_, i) => String(i + 1));
  const tool: Handler = async ({ notify }) => {
    for (const id of ids) notify(ask(id));
    return textResult(await answerTo(() => server, "101"));
  };
  const { parked, isClean, ...rest } = await setUp(t, { tool });
  server = rest.server;
  const started = start(parked, rest, "tool");
  const first = await started.turn;
  if ("inputRequests" in first) assert.equal(Object.keys(questionsOf(first)).length, 100);
  // The answer may come while the questions are on their way.
  for (let turn: Turn | undefined = first; turn && "inputRequests" in turn; )
    turn = await parked.resume(turn.job, turn.round, back());
  assert.equal(JSON.parse(await answerTo(() => server, "101")).error.code, -32603);
  await eventually("nothing left", isClean);
});

for (const [whose, options, subjects] of [
  ["of one caller", { callerJobsMax: 2 }, ["s", "s", "s"]],
  ["of all callers", { jobsMax: 2 }, ["s", "t", "u"]],
] as const)
  test(`calls ${whose} are parked up to a number, then backends hear that there is no room`, async (t) => {
    let server = undefined as unknown as Server;
    let calls = 0;
    const tool: Handler = async ({ notify }) => {
      const id = String(++calls);
      notify(ask(id));
      return textResult(await answerTo(() => server, id));
    };
    const { parked, isClean, caller, ...rest } = await setUp(t, { tool }, options);
    server = rest.server;
    const turns: Turn[] = [];
    for (const subject of subjects) turns.push(await start(parked, { ...rest, session: caller(subject) }, "tool").turn);
    assert.match(textOf(turns[2]), /-32603.*too many/);
    for (const turn of turns.slice(0, 2).map(asked)) await parked.resume(turn.job, turn.round, back({ "input-1": "{}" }));
    assert.ok(isClean());
    asked(await start(parked, { ...rest, session: caller("s") }, "tool").turn); // there is room again
  });

test("calls that ask at the same moment are bounded like others", async (t) => {
  let server = undefined as unknown as Server;
  let calls = 0;
  const together = Promise.withResolvers<void>();
  const tool: Handler = async ({ notify }) => {
    const id = String(++calls);
    if (calls === 6) together.resolve();
    await together.promise;
    notify(ask(id));
    return textResult(await answerTo(() => server, id));
  };
  const { parked, ...rest } = await setUp(t, { tool }, { callerJobsMax: 2 });
  server = rest.server;
  const turns = await Promise.all(Array.from({ length: 6 }, () => start(parked, rest, "tool").turn));
  assert.equal(parked.size, 2);
  assert.equal(turns.filter((turn) => "inputRequests" in turn).length, 2);
});

test("what a backend says goes to whoever waits: under the first token, to nobody, under the token of the retry", async (t) => {
  const { tool, say, end } = held(progress("first", 1));
  const { parked, isClean, server, ...rest } = await setUp(t, {
    async tool(call) {
      const done = tool(call);
      const { progressToken } = (call.params as { _meta: { progressToken: unknown } })._meta;
      call.notify(progress(progressToken, 2));
      call.notify(ask('"q"'));
      await answerTo(() => server, '"q"');
      call.notify(progress(progressToken, 4));
      call.notify('{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}}');
      return done;
    },
  });
  const started = start(parked, rest, "tool", { token: '"t\\u00e9"' });
  const { job, round } = asked(await started.turn);
  const first = await eventually("the progress before", () => started.heard.length > 0 && started.heard);
  assert.deepEqual(first, [
    '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t\\u00e9","progress":2}}',
  ]);
  say('{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"while parked"}}');
  const heard: string[] = [];
  const retry = back({ "input-1": "{}" }, { progressToken: "2.0", notify: ({ json }) => void heard.push(json.toString()) });
  const resumed = parked.resume(job, round, retry);
  await eventually("the progress after", () => heard.length >= 2);
  end("done");
  await resumed;
  assert.deepEqual(
    heard.filter((said) => !said.includes("while parked")),
    [
      '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":2.0,"progress":4}}',
      '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}}',
    ],
  );
  assert.equal(started.heard.length, 1);
  assert.ok(isClean());
});

test("a retry without a progress token hears of no progress", async (t) => {
  let server = undefined as unknown as Server;
  const { parked, ...rest } = await setUp(t, {
    async tool({ notify, params }) {
      notify(ask("1"));
      await answerTo(() => server, "1");
      notify(progress((params as { _meta: { progressToken: unknown } })._meta.progressToken, 1));
      return textResult("done");
    },
  });
  server = rest.server;
  const { job, round } = asked(await start(parked, rest, "tool", { token: "1" }).turn);
  const heard: string[] = [];
  await parked.resume(job, round, back({ "input-1": "{}" }, { notify: ({ json }) => void heard.push(json.toString()) }));
  assert.deepEqual(heard, []);
});
