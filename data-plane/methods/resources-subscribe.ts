// `resources/subscribe` and `resources/unsubscribe`: with the backend that owns the URI, on the session's own leg.
import { resultResponse } from "../mcp/json-rpc.ts";
import { invalidParams, type Method, noSuchResource } from "./call.ts";
import { forward, replaceParam } from "./forward.ts";
import { routeOfUri } from "./resources-read.ts";

const subscriptionsMax = 1_000;

export const subscribe: Method = async (call) => {
  const { uri } = call.params;
  if (typeof uri !== "string") return invalidParams(call, '"uri" is not a string');
  const { subscriptions } = call.session;
  if (subscriptions.size >= subscriptionsMax && !subscriptions.has(uri))
    return invalidParams(call, `a session has at most ${subscriptionsMax} subscriptions`);
  const route = routeOfUri(call, uri);
  if (!route) return noSuchResource(call, uri);
  const response = await forward(call, route, replaceParam(call, "uri", uri, route.original));
  if (!response.error) subscriptions.set(uri, route);
  return response.json;
};

export const unsubscribe: Method = async (call) => {
  const { uri } = call.params;
  if (typeof uri !== "string") return invalidParams(call, '"uri" is not a string');
  const route = call.session.subscriptions.get(uri) ?? routeOfUri(call, uri);
  call.session.subscriptions.delete(uri);
  // On a backend that sessions share, another session may still want to hear; its notices just don't reach this one.
  if (!route || call.server.backends.get(route.backend)?.isShared) return resultResponse(call.id, "{}");
  return (await forward(call, route, replaceParam(call, "uri", uri, route.original))).json;
};
