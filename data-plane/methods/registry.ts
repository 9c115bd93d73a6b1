// MCP method → what the gateway does, for requests inside a session and for those of the stateless era. A method without a row
// is "method not found".
import { resultResponse } from "../mcp/json-rpc.ts";
import { tasksExtension } from "../mcp/stateless.ts";
import type { Method } from "./call.ts";
import { complete } from "./complete.ts";
import { discover } from "./initialize.ts";
import { list } from "./lists.ts";
import { getPrompt } from "./prompts-get.ts";
import { readResource } from "./resources-read.ts";
import { subscribe, unsubscribe } from "./resources-subscribe.ts";
import { setLogLevel } from "./set-log-level.ts";
import { aboutTask } from "./tasks.ts";
import { callTool } from "./tools-call.ts";

const ping: Method = (call) => resultResponse(call.id, "{}");

const lists: readonly (readonly [string, Method])[] = [
  ["tools/list", list("tools")],
  ["prompts/list", list("prompts")],
  ["resources/list", list("resources")],
  ["resources/templates/list", list("templates")],
];

const calls: readonly (readonly [string, Method])[] = [
  ["tools/call", callTool],
  ["prompts/get", getPrompt],
  ["resources/read", readResource],
  ["completion/complete", complete],
];

export const methods: ReadonlyMap<string, Method> = new Map<string, Method>([
  ...lists,
  ...calls,
  ["ping", ping],
  ["resources/subscribe", subscribe],
  ["resources/unsubscribe", unsubscribe],
  ["logging/setLevel", setLogLevel],
]);

/** `subscriptions/listen` is not here: its answer is a stream, so the ingress has it. */
export const statelessMethods: ReadonlyMap<string, Method> = new Map<string, Method>([
  ...lists,
  ...calls,
  ["server/discover", discover],
  ["tasks/get", aboutTask],
  ["tasks/update", aboutTask],
  ["tasks/cancel", aboutTask],
]);

/** What some backend must offer, so that a method of the stateless era is there at all. */
export const offersNeeded: ReadonlyMap<string, string> = new Map([
  ["prompts/list", "prompts"],
  ["prompts/get", "prompts"],
  ["resources/list", "resources"],
  ["resources/templates/list", "resources"],
  ["resources/read", "resources"],
  ["completion/complete", "completions"],
  ["tasks/get", tasksExtension],
  ["tasks/update", tasksExtension],
  ["tasks/cancel", tasksExtension],
]);
