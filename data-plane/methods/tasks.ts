// The Tasks extension (io.modelcontextprotocol/tasks), between callers and backends of the stateless era. Ids of tasks are the
// backend's, and say nothing of it: callers get sealed ones, good for them alone.
import type { Route } from "../aggregation/view.ts";
import { BackendError } from "../backends/errors.ts";
import { errorResponse, type Message } from "../mcp/json-rpc.ts";
import { member, parseValue, splice } from "../mcp/scan.ts";
import { statelessErrors, tasksExtension } from "../mcp/stateless.ts";
import { resultTypeOf } from "../mcp/translate.ts";
import { backendFailure, type Call, invalidParams, type Method } from "./call.ts";
import { forward } from "./forward.ts";

/** Whether the caller of a request knows what a task is. */
export function declaresTasks({ stateless }: Pick<Call, "stateless">): boolean {
  const { extensions } = stateless?.envelope.capabilities ?? {};
  return typeof extensions === "object" && extensions !== null && Object.hasOwn(extensions, tasksExtension);
}

/** What a client is told that asks about tasks without declaring that it knows them. */
export const tasksNotDeclared = {
  code: statelessErrors.missingCapability,
  message: "the client declares no tasks",
  data: { requiredCapabilities: { extensions: { [tasksExtension]: {} } } },
} as const;

/** The answer to a call: when it is a task, under an id of the caller's own. */
export function withOwnTaskId(call: Call, { backend }: Route, answer: Message): Buffer {
  if (resultTypeOf(answer) !== "task") return answer.json;
  const { json, result } = answer;
  const span = result && member(json, result.start, "taskId");
  const taskId = span && parseValue(json, span);
  const own =
    typeof taskId === "string" && declaresTasks(call) ? call.tokens.sealTask(call.session, { backend, taskId }) : undefined;
  if (span && own !== undefined) return splice(json, [{ ...span, text: JSON.stringify(own) }]);
  return backendFailure(
    call,
    backend,
    new BackendError("bad_answer", "unknown", "it made a task of the call, which can't be passed on"),
  );
}

/** `tasks/get`, `tasks/update` and `tasks/cancel`: to the backend that runs the task. */
export const aboutTask: Method = async (call) => {
  if (!declaresTasks(call)) return errorResponse(call.id, tasksNotDeclared);
  const { taskId: own } = call.params;
  if (typeof own !== "string") return invalidParams(call, '"taskId" is not a string');
  const task = call.tokens.openTask(call.session, own);
  // Somebody else's task answers like an unknown one.
  if (!task || !call.server.backends.has(task.backend)) return invalidParams(call, "unknown task");
  const { json, params } = call.message;
  const span = params && member(json, params.start, "taskId");
  const edits = span ? [{ ...span, text: JSON.stringify(task.taskId) }] : [];
  const answer = await forward(call, { backend: task.backend, original: task.taskId }, edits);
  return withTaskId(answer, task.taskId, own);
};

/** What the backend says of the task, under the caller's id for it. */
function withTaskId({ json, result }: Message, original: string, own: string): Buffer {
  const span = result && json[result.start] === 0x7b ? member(json, result.start, "taskId") : undefined;
  const isSame = span && parseValue(json, span) === original;
  return span && isSame ? splice(json, [{ ...span, text: JSON.stringify(own) }]) : json;
}
