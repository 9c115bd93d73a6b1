// `tools/call`: to the tool's backend, under the backend's own name for it.
import type { Route } from "../aggregation/view.ts";
import { type Edit, withMembers, withoutMembers } from "../mcp/scan.ts";
import { noteUris } from "../session/handed-out.ts";
import { type Call, invalidParams, type Method } from "./call.ts";
import { forward, replaceParam } from "./forward.ts";
import { callAsTask } from "./task-tools.ts";

export const callTool: Method = async (call) => {
  const { name } = call.params;
  if (typeof name !== "string") return invalidParams(call, '"name" is not a string');
  const route = call.view.tools.get(name);
  if (!route) return invalidParams(call, `unknown tool: ${name}`);
  const response = route.needsTask ? await callAsTask(call, route) : await forward(call, route, plainEdits(call, name, route));
  noteUris(call.session.handedOut, route.backend, response);
  return response.json;
};

function plainEdits(call: Call, name: string, { original }: Route): Edit[] {
  const { json, params } = call.message;
  if (!params || call.params.task === undefined) return replaceParam(call, "name", name, original);
  // We offer no tasks, so the wish for one is to be ignored (MCP 2025-11-25, tasks, capabilities). A backend would start one
  // that the client has no way to reach.
  const plain = withoutMembers(json.subarray(params.start, params.end), ["task"]);
  return [{ ...params, text: withMembers(plain, { name: JSON.stringify(original) }) }];
}
