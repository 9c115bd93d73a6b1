// `resources/read`: from the backend that owns the URI, by exact match, else by the closest template, else from the backend that
// gave the client this URI last, else from the only one that has resources.
import type { Route } from "../aggregation/view.ts";
import type { Message } from "../mcp/json-rpc.ts";
import { type Edit, elements, member, splice } from "../mcp/scan.ts";
import { noteUris } from "../session/handed-out.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { type Call, invalidParams, type Method, noSuchResource } from "./call.ts";
import { departedAnswer, drainingRoute } from "./departed.ts";
import { forward, replaceParam } from "./forward.ts";

export const readResource: Method = async (call) => {
  const { uri } = call.params;
  if (typeof uri !== "string") return invalidParams(call, '"uri" is not a string');
  const route = (await findRouteOfUri(call, uri)) ?? drainingRoute(call, "resources", uri);
  if (!route) return departedAnswer(call, "resources", uri) ?? noSuchResource(call, uri);
  const response = await forward(call, route, replaceParam(call, "uri", uri, route.original));
  await noteUris(call.session, route.backend, response);
  return route.original === uri ? response.json : withExposedUris(response, route.original, uri);
};

/** Who owns a URI that a client uses. */
export function routeOfUri({ view, session, server }: Call, uri: string): Route | undefined {
  const listed = view.resources.get(uri) ?? view.templateIndex.match(uri);
  if (listed) return listed;
  const hasLeft = server.departed.routeOf("resources", uri) !== undefined;
  // Of callers without sessions it is not known here what another replica handed out; where just one backend has resources, it is
  // the one to ask.
  const backend = session.state.links.get(uri) ?? (hasLeft ? undefined : onlyOwner(server));
  return backend !== undefined && server.backends.has(backend) ? { backend, original: uri } : undefined;
}

/** The same, after a look at what other replicas know of the session, if it takes one. */
export async function findRouteOfUri(call: Call, uri: string): Promise<Route | undefined> {
  const known = routeOfUri(call, uri);
  if (known) return known;
  await call.session.refresh();
  return routeOfUri(call, uri);
}

function onlyOwner({ backends }: VirtualServer): string | undefined {
  const owners = [...backends.values()].filter(({ catalog }) => !catalog || catalog.facts.capabilities.resources !== undefined);
  return owners.length === 1 ? owners[0]?.name : undefined;
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
