// `completion/complete`: from the backend of the prompt or resource template it refers to.
import type { Route } from "../aggregation/view.ts";
import { resultResponse } from "../mcp/json-rpc.ts";
import { member } from "../mcp/scan.ts";
import { type Call, invalidParams, type Method } from "./call.ts";
import { departedAnswer } from "./departed.ts";
import { forward } from "./forward.ts";
import { routeOfUri } from "./resources-read.ts";

const nothing = {
  session: JSON.stringify({ completion: { values: [] } }),
  stateless: JSON.stringify({ resultType: "complete", completion: { values: [] } }),
};

export const complete: Method = async (call) => {
  const ref = call.params.ref as { type?: unknown; name?: unknown; uri?: unknown } | undefined;
  const key = ref?.type === "ref/prompt" ? "name" : ref?.type === "ref/resource" ? "uri" : undefined;
  const exposed = key && ref?.[key];
  if (typeof exposed !== "string" || !key) return invalidParams(call, '"ref" names neither a prompt nor a resource');
  const route = routeOfRef(call, key, exposed);
  if (!route)
    return (
      departedAnswer(call, key === "name" ? "prompts" : "templates", exposed) ??
      invalidParams(call, `unknown ${key === "name" ? "prompt" : "resource"}: ${exposed}`)
    );
  // Other backends may have made us offer completions; this one would answer "method not found".
  const catalog = call.server.backends.get(route.backend)?.catalog;
  if (catalog && catalog.facts.capabilities.completions === undefined) return resultResponse(call.id, nothing[call.session.era]);
  const { json, params } = call.message;
  const refSpan = params && member(json, params.start, "ref");
  const span = refSpan && member(json, refSpan.start, key);
  const edits = span && route.original !== exposed ? [{ ...span, text: JSON.stringify(route.original) }] : [];
  return (await forward(call, route, edits)).json;
};

function routeOfRef(call: Call, key: "name" | "uri", exposed: string): Route | undefined {
  if (key === "name") return call.view.prompts.get(exposed);
  return call.view.templates.get(exposed) ?? routeOfUri(call, exposed);
}
