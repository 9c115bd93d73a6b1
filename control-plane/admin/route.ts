// Where a call would go, and why.
import { create, type JsonObject } from "@bufbuild/protobuf";
import { type ExplainRouteRequest, ExplainRouteResponseSchema, RouteOutcome } from "../../proto/gen/vmcp/admin/v1/route_pb.ts";
import { explainRoute, type Outcome } from "../analysis/route.ts";
import { indexServers } from "../analysis/servers.ts";
import type { Discovery } from "../discovery/discovery.ts";
import { overlay } from "../discovery/merge.ts";
import type { Fleet } from "../push/fleet.ts";
import { isHeard } from "../push/rows.ts";
import type { WholeFleet } from "../push/whole-fleet.ts";
import type { Store } from "../store/store.ts";
import { notFound } from "./declare.ts";
import { invalid } from "./requests.ts";

export interface RouterOptions {
  readonly store: Pick<Store, "list">;
  readonly fleet: Pick<Fleet, "views">;
  readonly wholeFleet: Pick<WholeFleet, "proxies">;
  readonly discovery: Pick<Discovery, "current">;
}

const outcomes = {
  routed: RouteOutcome.ROUTED,
  denied: RouteOutcome.DENIED,
  hidden: RouteOutcome.HIDDEN,
  "not-found": RouteOutcome.NOT_FOUND,
  unavailable: RouteOutcome.UNAVAILABLE,
  unknown: RouteOutcome.UNKNOWN,
} as const satisfies Record<Outcome, RouteOutcome>;

/** Throws AdminError when there is no such virtual server; that there is no such tool is an answer. */
export async function routeOf({ store, fleet, wholeFleet, discovery }: RouterOptions, request: ExplainRouteRequest) {
  const { virtualServer, tool, claims } = request;
  if (tool === "") throw invalid([{ field: "tool", description: "say which" }]);
  const { resources } = await store.list();
  const server = indexServers(overlay(resources, discovery.current())).find(({ id }) => id === virtualServer);
  if (server === undefined) throw notFound(`virtualServers/${virtualServer}`);
  const { proxy, views } = fleet.views();
  const proxies = wholeFleet
    .proxies()
    .filter(isHeard)
    .map(({ node, backends }) => ({ id: node?.id ?? "", address: node?.address ?? "", backends }));
  const { outcome, steps, health, suggestions, ...route } = explainRoute({
    server,
    tool,
    claims: claims as JsonObject | undefined,
    observed: { views, proxies, changed: [] },
  });
  return create(ExplainRouteResponseSchema, {
    ...route,
    ...{ outcome: outcomes[outcome], proxy },
    steps: [...steps],
    health: [...health],
    suggestions: [...suggestions],
  });
}
