// `tools/call`: to the tool's backend, under the backend's own name for it.
import type { Route } from "../aggregation/view.ts";
import type { CallOptions } from "../backends/backend.ts";
import { errorCodes, errorResponse, type Message } from "../mcp/json-rpc.ts";
import { holdsNonObject, wrapStructuredContent } from "../mcp/output-schema.ts";
import { paramHeadersOf, paramMismatch } from "../mcp/param-headers.ts";
import { type Edit, splice, withMembers, withoutMembers } from "../mcp/scan.ts";
import { statelessErrors } from "../mcp/stateless.ts";
import { noteUris } from "../session/handed-out.ts";
import { type Call, invalidParams, type Method } from "./call.ts";
import { departedAnswer, drainingRoute } from "./departed.ts";
import { forward, replaceParam } from "./forward.ts";
import { signIn } from "./sign-in.ts";
import { callAsTask } from "./task-tools.ts";
import { withOwnTaskId } from "./tasks.ts";

export const callTool: Method = async (call) => {
  const { name } = call.params;
  if (typeof name !== "string") return invalidParams(call, '"name" is not a string');
  const route = call.view.tools.get(name) ?? drainingRoute(call, "tools", name);
  if (!route)
    return departedAnswer(call, "tools", name) ?? quarantineAnswer(call, name) ?? invalidParams(call, `unknown tool: ${name}`);
  if (route.isSignIn) return (await signIn(call, route.backend)).json;
  const mayBeStateless = call.server.backends.get(route.backend)?.catalog?.facts.era !== "session";
  const wrong = call.stateless && paramMismatch(route.paramHeaders ?? [], call.params.arguments, call.headers);
  if (wrong !== undefined) return errorResponse(call.id, { code: statelessErrors.headerMismatch, message: wrong });
  const response = route.needsTask
    ? await callAsTask(call, route)
    : await forward(call, route, plainEdits(call, name, route), mayBeStateless ? headersFor(call, route) : {});
  const noting = noteUris(call.session, route.backend, response);
  if (noting !== undefined) await noting;
  if (call.stateless) return withOwnTaskId(call, route, response);
  return route.isWrapped || mayBeStateless ? asObject(response, route) : response.json;
};

/** Of a tool that has changed since it was approved; undefined when it is none. */
function quarantineAnswer(call: Call, name: string): Buffer | undefined {
  const route = call.view.quarantined.get(name);
  if (!route) return undefined;
  const words = "its definition is not the one that was approved, so it is not called until an operator approves it";
  return errorResponse(call.id, {
    code: errorCodes.internal,
    message: `tool "${name}" of backend "${route.backend}" is in quarantine: ${words}`,
    data: { reason: "tool_quarantined", backend: route.backend, outcome: "not_executed" },
  });
}

function plainEdits(call: Call, name: string, { original }: Route): Edit[] {
  const { json, params } = call.message;
  if (!params || call.params.task === undefined) return replaceParam(call, "name", name, original);
  // We offer no tasks, so the wish for one is to be ignored (MCP 2025-11-25, tasks, capabilities). A backend would start one
  // that the client has no way to reach.
  const plain = withoutMembers(json.subarray(params.start, params.end), ["task"]);
  return [{ ...params, text: withMembers(plain, { name: JSON.stringify(original) }) }];
}

/** The headers that repeat arguments, and how to get them anew when the tool has changed. */
function headersFor(call: Call, { backend: name, original, paramHeaders }: Route): Pick<CallOptions, "headers" | "freshHeaders"> {
  const own = paramHeadersOf(paramHeaders ?? [], call.params.arguments);
  const unknown = call.stateless ? otherParamHeaders(call.headers, own) : {};
  return {
    headers: { ...unknown, ...own },
    async freshHeaders() {
      const backend = call.server.backends.get(name);
      await backend?.relist();
      const tool = backend?.catalogOf(call.session)?.tools.find(({ key }) => key === original);
      return tool && { ...unknown, ...paramHeadersOf(tool.paramHeaders ?? [], call.params.arguments) };
    },
  };
}

/** Those of the caller that we know nothing about: the backend may, and refuses them when they are wrong. */
function otherParamHeaders(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  own: object,
): Record<string, string> {
  const others: Record<string, string> = {};
  for (const name in headers) {
    const value = headers[name];
    if (name.startsWith("mcp-param-") && !Object.hasOwn(own, name) && typeof value === "string") others[name] = value;
  }
  return others;
}

/** Structured content that is no object breaks clients of the session era, whatever the tool's schema says. */
function asObject({ json, result }: Message, { isWrapped }: Route): Buffer {
  if (!result) return json;
  const before = json.subarray(result.start, result.end);
  return isWrapped || holdsNonObject(before) ? splice(json, [{ ...result, text: wrapStructuredContent(before) }]) : json;
}
