import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Backend,
  type BackendScript,
  type Handler,
  plainTool,
  rawError,
  startBackend,
  textResult,
} from "../../test/support/backend.ts";
import { directCalls } from "../../test/support/direct-call.ts";
import { eventually } from "../../test/support/eventually.ts";
import { createLimit } from "../backends/limit.ts";
import { readMessage } from "../mcp/json-rpc.ts";
import { callAsTask } from "./task-tools.ts";

const route = { backend: "scripted", original: "research", needsTask: true } as const;
const times = { pollMin: 10, pollMax: 20, task: 20_000 };
const task = (status: string, more: Record<string, unknown> = {}) => ({ taskId: "t/1", status, ttl: null, ...more });
const created = (status = "working", more: Record<string, unknown> = {}) => JSON.stringify({ task: task(status, more) });
const state = (status: string, more: Record<string, unknown> = {}) => JSON.stringify(task(status, more));

/** A server whose task goes through the given states, one a look; the last one stays. */
function startTasks(states: readonly string[], result: Handler, script: Partial<BackendScript> = {}): Promise<Backend> {
  let looks = 0;
  const get: Handler = () => states[Math.min(looks++, states.length - 1)] as string;
  return startBackend({
    tools: [plainTool("research")],
    calls: { research: () => created() },
    ...script,
    methods: { "tasks/get": get, "tasks/result": result, "tasks/cancel": () => state("cancelled"), ...script.methods },
  });
}

const call = { name: "exposed", arguments: { topic: "mcp" }, _meta: { progressToken: 7 } };

test("a task is started, followed to its end, and its result is the answer to the call", async () => {
  const result = '{"content":[],"big":12345678901234567890,"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t/1"}}}';
  await using backend = await startTasks([state("working"), state("working"), state("completed")], () => result);
  await using calls = await directCalls({ scripted: backend.url });
  const answer = await callAsTask(calls.call("tools/call", call, { id: '"mine"' }), route, times);
  assert.equal(answer.json.toString(), `{"jsonrpc":"2.0","id":"mine","result":${result}}`);
  const { params } = JSON.parse(backend.bodies("tools/call")[0] as string) as { params: unknown };
  assert.deepEqual(params, { ...call, name: "research", task: { ttl: times.task } });
  assert.equal(backend.bodies("tasks/get").length, 3);
  const asked = backend.requests.filter(({ message }) => message?.method?.startsWith("tasks/"));
  assert.ok(asked.every(({ message }) => message?.params.taskId === "t/1"));
  assert.equal(new Set(asked.map(({ message }) => message?.id)).size, 4, "every request has an id of its own");
  assert.deepEqual(backend.bodies("tasks/cancel"), []);
});

const why = { statusMessage: "the library is closed" };
const ends: [string, string, Handler, Record<string, unknown>][] = [
  [
    "failed, with a result",
    state("failed", why),
    () => '{"content":[],"isError":true}',
    { result: { content: [], isError: true } },
  ],
  [
    "failed, with an error that says why",
    state("failed", why),
    () => rawError('{"code":-1,"message":"no","data":[1]}'),
    { error: { code: -1, message: "no", data: [1] } },
  ],
  [
    "failed, with an error that does not",
    state("failed", why),
    () => rawError('{"code":-32603,"message":"no result"}'),
    { error: { code: -32603, message: "no result", data: { taskStatus: "failed", ...why } } },
  ],
  [
    "cancelled by the backend",
    state("cancelled"),
    () => rawError('{"code":-32603,"message":"no result"}'),
    { error: { code: -32603, message: "no result" } },
  ],
];
for (const [name, last, result, wanted] of ends) {
  test(`a task that ends ${name}: the client gets what there is`, async () => {
    await using backend = await startTasks([last], result);
    await using calls = await directCalls({ scripted: backend.url });
    const answer = await callAsTask(calls.call("tools/call", call), route, times);
    assert.deepEqual(JSON.parse(answer.json.toString()), { jsonrpc: "2.0", id: 1, ...wanted });
  });
}

const immediate: [string, Handler, string][] = [
  ["a result", () => textResult("done"), `"result":${textResult("done")}`],
  ["a result that has a task among its members", () => '{"content":[],"task":{"taskId":"x"}}', '"task":{"taskId":"x"}'],
  ["a result that is no object", () => "7", '"result":7'],
  ["an error", () => rawError('{"code":-32602,"message":"bad topic"}'), '"message":"bad topic"'],
];
for (const [name, research, wanted] of immediate) {
  test(`a backend that answers with ${name} instead of a task: that is the answer`, async () => {
    await using backend = await startTasks([], () => "{}", { calls: { research } });
    await using calls = await directCalls({ scripted: backend.url });
    const answer = await callAsTask(calls.call("tools/call", call), route, times);
    assert.ok(answer.json.includes(wanted), answer.json.toString());
    assert.deepEqual(backend.bodies("tasks/get"), []);
  });
}

test("a task that was over when it started is not looked at again", async () => {
  const calls = { research: () => created("completed", { pollInterval: 1e9 }) };
  await using backend = await startTasks([], () => textResult("done"), { calls });
  await using direct = await directCalls({ scripted: backend.url });
  const answer = await callAsTask(direct.call("tools/call", call), route);
  assert.match(answer.json.toString(), /done/);
  assert.deepEqual(backend.bodies("tasks/get"), []);
});

test("a task that never ends is given up and cancelled, and the client is told that the outcome is unknown", async () => {
  await using backend = await startTasks([state("working", { pollInterval: 0 })], () => "{}");
  await using calls = await directCalls({ scripted: backend.url });
  const answer = await callAsTask(calls.call("tools/call", call), route, { pollMin: 50, pollMax: 60, task: 300 });
  const { error } = JSON.parse(answer.json.toString()) as { error: { data: unknown } };
  assert.deepEqual(error.data, { reason: "backend_timeout", backend: "scripted", outcome: "unknown" });
  assert.ok(backend.bodies("tasks/get").length <= 6, "it is not looked at more often than the shortest pause allows");
  await eventually("the task is cancelled", () => backend.bodies("tasks/cancel").length === 1);
});

test("a client that cancels while the task waits for an answer cancels the task", async () => {
  const forever: Handler = () => new Promise<string>(() => undefined);
  await using backend = await startTasks([state("input_required")], forever);
  await using calls = await directCalls({ scripted: backend.url });
  const limit = createLimit();
  const answer = callAsTask(calls.call("tools/call", call, { limit }), route, times);
  const isAsked = eventually("the result is asked for", () => backend.bodies("tasks/result").length === 1);
  void isAsked.finally(() => limit.abort(new Error("cancelled by the client")));
  await assert.rejects(answer, /cancelled by the client/);
  await eventually("the task is cancelled", () => backend.bodies("tasks/cancel").length === 1);
  await eventually("nobody waits for the result", () => backend.bodies("notifications/cancelled").length === 1);
});

test("a client that cancels while the task is looked at cancels the task, once", async () => {
  const limit = createLimit();
  const get: Handler = () => {
    limit.abort(new Error("cancelled by the client"));
    return state("working");
  };
  await using backend = await startTasks([], () => "{}", { methods: { "tasks/get": get } });
  await using calls = await directCalls({ scripted: backend.url });
  await assert.rejects(callAsTask(calls.call("tools/call", call, { limit }), route, times), /cancelled by the client/);
  const bodies = await eventually("the task is cancelled", () => {
    const sent = backend.bodies("tasks/cancel");
    return sent.length > 0 ? sent : undefined;
  });
  assert.deepEqual(
    bodies.map((body) => (JSON.parse(body) as { params: unknown }).params),
    [{ taskId: "t/1" }],
  );
});

test("a session that ends takes its task calls with it, and opens nothing new", async () => {
  let end: () => void = () => undefined;
  const get: Handler = () => {
    end();
    return state("working");
  };
  await using backend = await startTasks([], () => "{}", { methods: { "tasks/get": get } });
  await using calls = await directCalls({ scripted: backend.url });
  const before = backend.sessions();
  end = calls.endSession;
  await assert.rejects(callAsTask(calls.call("tools/call", call), route, times), /the session ended/);
  await eventually("its session with the backend ends too", () => backend.sessions().length === before.length);
  assert.deepEqual(backend.sessions(), before);
});

test("a task outlives a moment in which its backend can't be reached", async () => {
  let looks = 0;
  const get: Handler = async () => {
    if (looks++ > 0) return state("completed");
    await backend.down();
    await backend.up();
    return state("working");
  };
  await using backend = await startTasks([], () => textResult("done"), { methods: { "tasks/get": get } });
  await using calls = await directCalls({ scripted: backend.url });
  const patient = { pollMin: 500, pollMax: 500, task: 20_000 };
  assert.match((await callAsTask(calls.call("tools/call", call), route, patient)).json.toString(), /done/);
});

test("a backend that goes away during a task: the client is told that the outcome is unknown", async () => {
  const get: Handler = async () => {
    await backend.down();
    return state("working");
  };
  await using backend = await startTasks([], () => "{}", { methods: { "tasks/get": get } });
  await using calls = await directCalls({ scripted: backend.url });
  const answer = await callAsTask(calls.call("tools/call", call), route, times);
  const { error } = JSON.parse(answer.json.toString()) as { error: { data: unknown } };
  assert.deepEqual(error.data, { reason: "backend_unavailable", backend: "scripted", outcome: "unknown" });
});

const losses: [string, Handler, RegExp][] = [
  ["forgot the task", () => rawError('{"code":-32602,"message":"Task not found"}'), /lost the task: Task not found/],
  ["answers with no task", () => "[]", /lost the task: what it answers is no task/],
  ["answers with no JSON", () => '{"taskId":tru}', /lost the task: what it answers is no task/],
];
for (const [name, get, wanted] of losses) {
  test(`a backend that ${name}: the client is told that the outcome is unknown`, async () => {
    await using backend = await startTasks([], () => "{}", { methods: { "tasks/get": get } });
    await using calls = await directCalls({ scripted: backend.url });
    const answer = (await callAsTask(calls.call("tools/call", call), route, times)).json.toString();
    assert.match(answer, wanted);
    assert.match(answer, /"outcome":"unknown"/);
  });
}

test("what a task asks reaches the client as of a plain call, and the answer reaches the task", async () => {
  const related = { "io.modelcontextprotocol/related-task": { taskId: "t/1" } };
  const question = { message: "Which?", requestedSchema: { type: "object", properties: {} }, _meta: { ...related, mine: 1 } };
  const waits: Handler = async ({ notify }) => {
    notify(JSON.stringify({ jsonrpc: "2.0", method: "notifications/tasks/status", params: task("input_required") }));
    notify(JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params: { progressToken: 7, progress: 1 } }));
    notify(JSON.stringify({ jsonrpc: "2.0", id: 99, method: "elicitation/create", params: question }));
    const answer = await eventually("the client's answer", () => backend.requests.find(({ message }) => message?.id === "99"));
    return textResult(`heard ${JSON.stringify((JSON.parse(answer.body) as { result: unknown }).result)}`);
  };
  await using backend = await startTasks([state("input_required")], waits);
  await using calls = await directCalls({ scripted: backend.url }, { elicitation: {} });
  const answering = callAsTask(calls.call("tools/call", call), route, times);
  const asked = await eventually("the question", () => calls.sent.find((said) => said.includes("elicitation/create")));
  const { id, params } = JSON.parse(asked) as { id: string; params: unknown };
  assert.deepEqual(params, { ...question, _meta: { mine: 1 } });
  const answer = `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":{"action":"accept","content":{}}}`;
  assert.equal(calls.relay.answer(calls.session, calls.server.listenerOf, readMessage(Buffer.from(answer))), true);
  assert.match((await answering).json.toString(), /heard .*accept/);
  assert.deepEqual(
    calls.sent.map((said) => (JSON.parse(said) as { method: string }).method),
    ["notifications/progress", "elicitation/create"],
  );
});

test("a backend that won't wait in tasks/result is asked again when the task is over", async () => {
  let asked = 0;
  const result: Handler = () => (asked++ === 0 ? rawError('{"code":-32602,"message":"not yet"}') : textResult("done"));
  await using backend = await startTasks([state("input_required"), state("completed")], result);
  await using calls = await directCalls({ scripted: backend.url });
  assert.match((await callAsTask(calls.call("tools/call", call), route, times)).json.toString(), /done/);
});
