// `resources/read`: from the backend that owns the URI, by exact match, else by the closest template.
import type { Route, View } from "../aggregation/view.ts";
import { errorCodes, errorResponse, type Message } from "../mcp/json-rpc.ts";
import { type Edit, elements, member, splice } from "../mcp/scan.ts";
import { invalidParams, type Method } from "./call.ts";
import { forward, replaceParam } from "./forward.ts";

export const readResource: Method = async (call) => {
  const { uri } = call.params;
  if (typeof uri !== "string") return invalidParams(call, '"uri" is not a string');
  const route = routeOfUri(call.view, uri);
  if (!route)
    return errorResponse(call.id, { code: errorCodes.resourceNotFound, message: `resource not found: ${uri}`, data: { uri } });
  const response = await forward(call, route, replaceParam(call, "uri", uri, route.original));
  return route.original === uri ? response.json : withExposedUris(response, route.original, uri);
};

/** Who owns a URI that a client uses. */
export function routeOfUri(view: View, uri: string): Route | undefined {
  return view.resources.get(uri) ?? view.templateIndex.match(uri);
}

/** The contents of an aliased resource speak of it by its alias, so that the client finds what it asked for. */
function withExposedUris(response: Message, original: string, exposed: string): Buffer {
  const { json, result } = response;
  const contents = result && member(json, result.start, "contents");
  if (!contents) return json;
  const edits = elements(json, contents.start).flatMap((item): Edit[] => {
    const uri = member(json, item.start, "uri");
    return uri && JSON.parse(json.toString("utf8", uri.start, uri.end)) === original
      ? [{ ...uri, text: JSON.stringify(exposed) }]
      : [];
  });
  return splice(json, edits);
}
