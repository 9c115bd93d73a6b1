// `resources/subscribe` and `resources/unsubscribe`: with the backend that owns the URI, on the session's own leg.
import { resultResponse } from "../mcp/json-rpc.ts";
import { type SessionState, withEntry } from "../session/record.ts";
import { invalidParams, type Method, noSuchResource } from "./call.ts";
import { departedAnswer } from "./departed.ts";
import { forward, replaceParam } from "./forward.ts";
import { findRouteOfUri, routeOfUri } from "./resources-read.ts";

const subscriptionsMax = 1_000;
const charactersMax = 128 * 1024;

export const subscribe: Method = async (call) => {
  const { uri } = call.params;
  if (typeof uri !== "string") return invalidParams(call, '"uri" is not a string');
  const { subscriptions } = call.session.state;
  const characters = subscriptions.keys().reduce((sum, one) => sum + one.length, uri.length);
  if (!subscriptions.has(uri) && (subscriptions.size >= subscriptionsMax || characters > charactersMax))
    return invalidParams(call, `a session has at most ${subscriptionsMax} subscriptions, of ${charactersMax} characters in all`);
  const route = await findRouteOfUri(call, uri);
  if (!route) return departedAnswer(call, "resources", uri) ?? noSuchResource(call, uri);
  const response = await forward(call, route, replaceParam(call, "uri", uri, route.original));
  if (!response.error) await call.session.change(subscribed(uri, { backend: route.backend, original: route.original }));
  return response.json;
};

export const unsubscribe: Method = async (call) => {
  const { uri } = call.params;
  if (typeof uri !== "string") return invalidParams(call, '"uri" is not a string');
  const route = call.session.state.subscriptions.get(uri) ?? routeOfUri(call, uri);
  await call.session.change(subscribed(uri, undefined));
  // On a backend that sessions share, another session may still want to hear; its notices just don't reach this one.
  if (!route || call.server.backends.get(route.backend)?.isShared) return resultResponse(call.id, "{}");
  return (await forward(call, route, replaceParam(call, "uri", uri, route.original))).json;
};

function subscribed(uri: string, route: { backend: string; original: string } | undefined) {
  return (state: SessionState): SessionState => {
    if (!route && !state.subscriptions.has(uri)) return state;
    return { ...state, subscriptions: withEntry(state.subscriptions, uri, route) };
  };
}
