// What is answered about something whose backend has just left.
import type { Route } from "../aggregation/view.ts";
import type { ListKind } from "../backends/catalog.ts";
import { BackendError, backendGone } from "../backends/errors.ts";
import { backendFailure, type Call } from "./call.ts";

/** The response that says that its backend is gone, so that nobody takes it for a mistake of the client's; undefined when it is one. */
export function departedAnswer(call: Call, kind: ListKind, name: string): Buffer | undefined {
  const route = call.server.departed.routeOf(kind, name);
  if (!route) return undefined;
  const back = call.server.backends.get(route.backend);
  if (back?.catalog) return undefined; // what it has now is known
  const notListed = "it is back, and was not listed yet";
  return backendFailure(call, route.backend, back ? new BackendError("unavailable", "not_executed", notListed) : backendGone());
}

/** Where a call goes on that waits for its caller at a backend which has left meanwhile. */
export function drainingRoute(call: Call, kind: ListKind, name: string): Route | undefined {
  return call.stateless?.state?.kind === "parked" ? call.server.departed.routeOf(kind, name) : undefined;
}
