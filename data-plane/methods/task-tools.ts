// Calls of tools that only run as tasks (MCP 2025-11-25, experimental tasks). The client calls plainly and waits for its answer;
// the gateway starts the task, follows it to its end and answers with what came of it.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Route } from "../aggregation/view.ts";
import type { Backend } from "../backends/backend.ts";
import { BackendError } from "../backends/errors.ts";
import type { Hear } from "../backends/leg.ts";
import { abortSignalOf, createLimit } from "../backends/limit.ts";
import { type Message, parseSpan, readMessage, request, withId } from "../mcp/json-rpc.ts";
import { type Edit, member, type Span, splice, withMembers, withoutMembers } from "../mcp/scan.ts";
import { backendFailure, type Call } from "./call.ts";
import { forward } from "./forward.ts";
import { runParkable } from "./forward-stateless.ts";

/** Milliseconds. */
export interface TaskTimes {
  /** Bounds of the pause between two looks at a task, whatever the backend asks for. */
  readonly pollMin: number;
  readonly pollMax: number;
  /** What a task may take, and what a person may who is asked something in its course. */
  readonly task: number;
}

const defaultTimes: TaskTimes = { pollMin: 100, pollMax: 5_000, task: 10 * 60_000 };
const pollMsDefault = 1_000;
const cancelMs = 5_000;
const failuresMax = 3;
const relatedTask = "io.modelcontextprotocol/related-task";

/**
 * The response to the client's call: what `tasks/result` gives, or why there is nothing. Every look at the task has the
 * backend's usual deadline, the whole has `times.task`. When the call ends before the task, the task is cancelled.
 */
export async function callAsTask(call: Call, route: Route, times = defaultTimes): Promise<Message> {
  const started = await forward(call, route, taskEdits(call, route, times));
  const task = createdTask(started);
  const backend = call.server.backends.get(route.backend);
  // An error, or a result: a backend may run the call at once.
  if (!task || !backend) return started;
  const run = (hear?: Hear) => follow({ call, backend, task, times, hear });
  try {
    if (!call.stateless) return withId(await run(), call.id);
    return await runParkable(call, call.stateless, { backend, timeoutMs: times.task, run });
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    return readMessage(backendFailure(call, backend.name, afterStart(error)));
  }
}

function taskEdits({ message: { json, params } }: Call, { original }: Route, times: TaskTimes): Edit[] {
  if (!params) return [];
  // Kept as long as we may ask for it, and no longer.
  const task = JSON.stringify({ ttl: times.task });
  return [{ ...params, text: withMembers(json.subarray(params.start, params.end), { name: JSON.stringify(original), task }) }];
}

/** Whatever went wrong with a look at the task: the call itself was taken. */
function afterStart({ code, message, cause }: BackendError): BackendError {
  return new BackendError(code, "unknown", message, cause);
}

interface Task {
  readonly id: string;
  readonly status: unknown;
  readonly statusMessage: unknown;
  readonly pollMs: number;
}

/** The task that a response says was created. */
function createdTask(response: Message): Task | undefined {
  const { json, result } = response;
  if (!result || json[result.start] !== 0x7b || member(json, result.start, "content")) return undefined;
  const span = member(json, result.start, "task");
  return span && readTask(response, span);
}

function readTask(response: Message, span: Span): Task | undefined {
  const { taskId, status, statusMessage, pollInterval } = readObject(response, span);
  if (typeof taskId !== "string") return undefined;
  return { id: taskId, status, statusMessage, pollMs: typeof pollInterval === "number" ? pollInterval : pollMsDefault };
}

/** Parsed; empty when it is no object. */
function readObject(response: Message, span: Span | undefined): Record<string, unknown> {
  try {
    return Object(parseSpan(response, span)) as Record<string, unknown>;
  } catch {
    return {}; // the scanner lets pass what no parser reads
  }
}

const finalStates: ReadonlySet<unknown> = new Set(["completed", "failed", "cancelled"]);

interface Following {
  readonly call: Call;
  readonly backend: Backend;
  readonly task: Task;
  readonly times: TaskTimes;
  /** Hears what the backend says and asks, instead of the client. */
  readonly hear: Hear | undefined;
}

/** Follows a task to its end; throws BackendError, or the reason the call was ended for. */
async function follow(options: Following): Promise<Message> {
  const { call, backend, times, hear } = options;
  const { session, limit, relay } = call;
  const timeoutMs = call.server.timeoutMs(backend.name);
  const gaveUp = new AbortController();
  const signal = AbortSignal.any([abortSignalOf(limit.signal), gaveUp.signal]);
  let task = options.task;
  let failures = 0;

  /** A request of our own; undefined when the backend can't be reached, but may be in a moment. */
  async function ask(method: string, answerMs: number): Promise<Message | undefined> {
    signal.throwIfAborted();
    const own = createLimit();
    const stop = (): void => own.abort(signal.reason);
    const onMessage: Hear = (said) => {
      if (said.method === "notifications/tasks/status") return undefined; // the client knows of no task
      if (hear) return hear(asOfPlainCall(said));
      let taken: Promise<void> | undefined;
      const isAsked = relay.toClient(session, backend, asOfPlainCall(said), (message) => {
        taken = call.notify(message);
      });
      if (isAsked) for (const each of [own, limit]) each.arm(times.task); // a person takes time
      return taken;
    };
    signal.addEventListener("abort", stop, { once: true });
    try {
      const answer = await backend.call(session, taskRequest(method, task.id), { timeoutMs: answerMs, limit: own, onMessage });
      failures = 0;
      return answer;
    } catch (error) {
      const isPassing = error instanceof BackendError && error.code === "unavailable" && !signal.aborted;
      if (!isPassing || ++failures >= failuresMax) throw error;
      return undefined;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** What the call comes to, once it is known. */
  async function outcome(): Promise<Message | undefined> {
    if (finalStates.has(task.status)) {
      const response = await ask("tasks/result", timeoutMs);
      return response && withStatus(response, task);
    }
    if (task.status !== "input_required") return undefined;
    // What the task wants to ask the client comes on the stream of this request, which lasts until the task is over. An error
    // before that may be no more than a refusal to wait.
    const response = await ask("tasks/result", times.task);
    return response?.result && response;
  }

  async function look(): Promise<Task> {
    const response = await ask("tasks/get", timeoutMs);
    if (!response) return task;
    const seen = response.result && readTask(response, response.result);
    if (seen) return seen;
    const { message = "what it answers is no task" } = readObject(response, response.error);
    throw new BackendError("bad_answer", "unknown", `it lost the task: ${String(message).slice(0, 200)}`);
  }

  /** The client knows of no task that it could cancel, so we do. */
  function cancel(): void {
    // A session of its own with the backend ends too, and another one would not know the task.
    if (session.hasEnded && !backend.isShared) return;
    const message = taskRequest("tasks/cancel", task.id);
    backend.call(session, message, { timeoutMs: cancelMs, limit: createLimit() }).catch(() => undefined);
  }

  limit.arm(times.task);
  signal.addEventListener("abort", cancel, { once: true });
  try {
    for (;;) {
      const response = await outcome();
      if (response) return response;
      const pauseMs = Math.min(times.pollMax, Math.max(times.pollMin, task.pollMs));
      await sleep(pauseMs, undefined, { signal }).catch(() => signal.throwIfAborted());
      task = await look();
    }
  } catch (error) {
    gaveUp.abort(error);
    throw error;
  } finally {
    limit.disarm();
    signal.removeEventListener("abort", cancel);
  }
}

/** Under an id that no request of the client has, on a session that both use. */
function taskRequest(method: string, taskId: string): Message {
  return readMessage(request(method, JSON.stringify({ taskId }), JSON.stringify(`vmcp-${randomUUID()}`)));
}

/** A question as one of a plain call: clients with tasks of their own look for the named task among those, and refuse. */
function asOfPlainCall(said: Message): Message {
  const { json, id, params } = said;
  if (id === undefined || !params || !json.includes(relatedTask)) return said;
  const meta = member(json, params.start, "_meta");
  if (!meta) return said;
  return readMessage(splice(json, [{ ...meta, text: withoutMembers(json.subarray(meta.start, meta.end), [relatedTask]) }]));
}

/** An error without data also gets what the task said of its end: it is often all that says why. */
function withStatus(response: Message, { status, statusMessage }: Task): Message {
  const { json, error } = response;
  if (!error || typeof statusMessage !== "string" || member(json, error.start, "data")) return response;
  const data = JSON.stringify({ taskStatus: status, statusMessage });
  return readMessage(splice(json, [{ ...error, text: withMembers(json.subarray(error.start, error.end), { data }) }]));
}
