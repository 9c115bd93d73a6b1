// MCP method → what the gateway does, for requests inside a session. A method without a row is "method not found".
import { resultResponse } from "../mcp/json-rpc.ts";
import type { Method } from "./call.ts";
import { complete } from "./complete.ts";
import { list } from "./lists.ts";
import { getPrompt } from "./prompts-get.ts";
import { readResource } from "./resources-read.ts";
import { subscribe, unsubscribe } from "./resources-subscribe.ts";
import { setLogLevel } from "./set-log-level.ts";
import { callTool } from "./tools-call.ts";

const ping: Method = (call) => resultResponse(call.id, "{}");

export const methods: ReadonlyMap<string, Method> = new Map<string, Method>([
  ["ping", ping],
  ["tools/list", list("tools")],
  ["tools/call", callTool],
  ["prompts/list", list("prompts")],
  ["prompts/get", getPrompt],
  ["resources/list", list("resources")],
  ["resources/templates/list", list("templates")],
  ["resources/read", readResource],
  ["resources/subscribe", subscribe],
  ["resources/unsubscribe", unsubscribe],
  ["completion/complete", complete],
  ["logging/setLevel", setLogLevel],
]);
