// Where a call of a tool goes, and what decides it: the rules that are declared, with the names that a proxy reported. Pure.
import type { JsonObject } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { ViewEntry } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { operationalWithDefaults } from "../compiler/defaults.ts";
import { nearest } from "../resources/nearest.ts";
import { formatPath, type Problem } from "../resources/problems.ts";
import { authorize } from "./authorize.ts";
import type { Observed, ObservedProxy } from "./observed.ts";
import { type Member, type Server, strategyOf } from "./servers.ts";

export interface RouteQuery {
  readonly server: Server;
  readonly tool: string;
  /** Of the caller's token; undefined: nobody signed in. */
  readonly claims: JsonObject | undefined;
  readonly observed: Observed;
}

export type Outcome = "routed" | "denied" | "hidden" | "not-found" | "unavailable" | "unknown";

export interface Route {
  readonly outcome: Outcome;
  readonly reason: string;
  readonly backend: string;
  readonly original: string;
  readonly exposed: string;
  readonly steps: readonly Step[];
  readonly health: readonly { readonly proxy: string; readonly state: string; readonly error: string }[];
  readonly suggestions: readonly string[];
}

export interface Step {
  readonly rule: "authorization" | "override" | "visibility" | "name" | "credential" | "deadline";
  readonly said: string;
  readonly where: string;
}

export function explainRoute(query: RouteQuery): Route {
  const { server, tool, claims, observed } = query;
  const entries = observed.views
    .find(({ virtualServer }) => virtualServer === server.id)
    ?.entries.filter(({ kind }) => kind === "tool");
  const caller = authorize(server, tool, claims);
  const access: Step = { rule: "authorization", said: caller.said, where: caller.where };
  const found = entries?.find(({ exposed }) => exposed === tool);
  if (found === undefined) return { ...nowhere, ...missing(query, entries), steps: [access] };
  const member = server.backends.find(({ name }) => name === found.backend);
  const steps = [access, ...namingSteps(server, found), ...(member ? callSteps(server, member) : [])];
  const health = member ? healthOf(member, observed.proxies) : [];
  const route = {
    backend: member?.fullName ?? found.backend,
    original: found.original,
    exposed: found.exposed,
    steps,
    health,
    suggestions: [],
  };
  const unusable = health.length > 0 && health.every(({ state }) => state === "unhealthy" || state === "unauthenticated");
  if (!caller.isAllowed) return { ...route, outcome: "denied", reason: caller.said };
  if (unusable)
    return { ...route, outcome: "unavailable", reason: `no proxy can use ${JSON.stringify(found.backend)} at the moment` };
  return {
    ...route,
    outcome: "routed",
    reason: `it is tool ${JSON.stringify(found.original)} of ${JSON.stringify(found.backend)}`,
  };
}

const nowhere = { backend: "", original: "", exposed: "", health: [], suggestions: [] };

type Missing = Pick<Route, "outcome" | "reason"> & Partial<Route>;

function missing({ server, tool }: RouteQuery, entries: readonly ViewEntry[] | undefined): Missing {
  if (entries === undefined) {
    const said = byPrefix(server, tool);
    return { outcome: "unknown", reason: `no connected proxy has reported yet what the backends list${said && `; ${said}`}` };
  }
  const hidden = entries.find(({ exposed, original, backend }) => exposed === "" && isMeant(server, { tool, original, backend }));
  if (hidden) {
    const { backend, original } = hidden;
    const member = server.backends.find(({ name }) => name === backend);
    const [step] = namingSteps(server, hidden).slice(-1);
    return {
      outcome: hidden.decidedBy === "unhealthy" ? "unavailable" : "hidden",
      reason: `tool ${JSON.stringify(original)} of ${JSON.stringify(backend)} is kept from clients: ${step?.said}`,
      backend: member?.fullName ?? backend,
      original,
    };
  }
  const others = entries.filter(({ exposed, original }) => exposed !== "" && original === tool).map(({ exposed }) => exposed);
  if (others.length > 0)
    return { outcome: "not-found", reason: `clients know ${JSON.stringify(tool)} under another name`, suggestions: others };
  if (server.spec.compositeTools.some(({ name }) => name === tool))
    return { outcome: "not-found", reason: "it is a composite tool, and those have no effect in this version" };
  const listed = entries.flatMap(({ exposed }) => (exposed === "" ? [] : [exposed]));
  const near = new Set([nearest(tool, listed) ?? [], ...listed.filter((exposed) => isNear(exposed, tool))].flat());
  return {
    outcome: "not-found",
    reason: `no backend of ${JSON.stringify(server.id)} lists it`,
    suggestions: [...near].slice(0, 5),
  };
}

/** By its own name, its new one, or as it would be called with its prefix. */
function isMeant(server: Server, { tool, original, backend }: { tool: string; original: string; backend: string }): boolean {
  const renamed = rulesOf(server, backend)?.rules.overrides[original]?.name || original;
  return [original, renamed, prefixOf(server, backend) + renamed].includes(tool);
}

/** What the rules did to the name of a tool, and why it is listed or not. */
function namingSteps(server: Server, { backend, original, exposed, decidedBy }: ViewEntry): Step[] {
  const { spec } = server;
  const found = rulesOf(server, backend);
  const override = found?.rules.overrides[original];
  const renamed = override?.name || original;
  const at = (...path: Problem["path"]) => `${server.resource}: ${formatPath(["aggregation", ...path])}`;
  const steps: Step[] = [];
  if (override && found)
    steps.push({
      rule: "override",
      said: renamed === original ? "its texts are replaced" : `it is renamed to ${JSON.stringify(renamed)}`,
      where: at("tools", found.index, "overrides", original),
    });
  const isVisible = decidedBy !== "filter" && decidedBy !== "excluded";
  const filter = found?.rules.filter ?? [];
  if (spec.aggregation?.excludeAllTools)
    steps.push({ rule: "visibility", said: "all tools are excluded", where: at("excludeAllTools") });
  else if (found?.rules.excludeAll)
    steps.push({
      rule: "visibility",
      said: `all tools of ${JSON.stringify(backend)} are excluded`,
      where: at("tools", found.index, "excludeAll"),
    });
  else if (found && filter.length > 0)
    steps.push({
      rule: "visibility",
      said: `the filter ${isVisible ? "lists" : "does not list"} ${JSON.stringify(renamed)}`,
      where: at("tools", found.index, "filter"),
    });
  else if (!isVisible)
    steps.push({
      rule: "visibility",
      said: `tools of backends without an entry are hidden, and ${JSON.stringify(backend)} has none`,
      where: at("defaultToolVisibility"),
    });
  else steps.push({ rule: "visibility", said: `all tools of ${JSON.stringify(backend)} are listed`, where: "" });
  if (decidedBy === "unhealthy")
    steps.push({
      rule: "visibility",
      said: `${JSON.stringify(backend)} is unhealthy, and its tools are hidden meanwhile`,
      where: `${server.resource}: operational.failureHandling.partialFailureMode`,
    });
  else if (decidedBy === "quarantine")
    steps.push({
      rule: "visibility",
      said: "it is not what was approved, and in quarantine until it is approved again",
      where: at("toolChanges"),
    });
  else if (isVisible) steps.push(nameStep(server, { exposed, decidedBy, renamed }, at));
  return steps;
}

interface Naming {
  readonly exposed: string;
  readonly decidedBy: string;
  readonly renamed: string;
}

function nameStep({ spec }: Server, { exposed, decidedBy, renamed }: Naming, at: (...path: Problem["path"]) => string): Step {
  const format = spec.aggregation?.conflictResolutionConfig?.prefixFormat || "{workload}_";
  const strategy = spec.aggregation?.conflictResolution || "prefix";
  const said: Readonly<Record<string, string>> = {
    prefix: `strategy prefix puts ${JSON.stringify(format)} before it`,
    priority: "several backends want the name, and this one stands first in priorityOrder",
    shadowed: "several backends want the name, and one that stands before this in priorityOrder has it",
    conflict: `several want the name ${JSON.stringify(renamed)}, so each gets another`,
    shortened: "the name is too long or has characters that clients refuse, so it ends in a hash",
    override: "nobody else wants its new name",
    unique: "nobody else wants the name",
  };
  const result = exposed === "" ? "" : `: ${JSON.stringify(exposed)}`;
  const path =
    decidedBy === "priority" || decidedBy === "shadowed" ? ["conflictResolutionConfig", "priorityOrder"] : ["conflictResolution"];
  return { rule: "name", said: `${said[decidedBy] ?? `strategy ${strategy} decided ${decidedBy}`}${result}`, where: at(...path) };
}

/** What happens to a call on its way. */
function callSteps(server: Server, { name }: Member): Step[] {
  const shown = strategyOf(server, name);
  const { timeouts } = operationalWithDefaults(server.spec.operational);
  const own = timeouts?.perWorkload[name];
  const deadline = own ?? timeouts?.default;
  return [
    {
      rule: "credential",
      said: shown ? `the backend is shown ${shown.strategy.type}` : "the backend is shown nothing",
      where: shown ? `${shown.resource}: ${formatPath(shown.path)}` : "",
    },
    {
      rule: "deadline",
      said: `the call may take ${deadline ? durationMs(deadline) / 1000 : "?"} s`,
      where: own ? `${server.resource}: ${formatPath(["operational", "timeouts", "perWorkload", name])}` : "",
    },
  ];
}

function healthOf({ fullName }: Member, proxies: readonly ObservedProxy[]): Route["health"] {
  return proxies.flatMap(({ id, backends }) =>
    backends.filter(({ name }) => name === fullName).map(({ state, error }) => ({ proxy: id, state, error })),
  );
}

function rulesOf({ spec }: Server, backend: string) {
  const tools = spec.aggregation?.tools ?? [];
  const index = tools.findIndex(({ workload }) => workload === backend);
  const rules = tools[index];
  return rules && { index, rules };
}

function prefixOf({ spec }: Server, backend: string): string {
  const format = spec.aggregation?.conflictResolutionConfig?.prefixFormat || "{workload}_";
  return format.replaceAll("{workload}", backend);
}

/** What the prefix alone says; empty when it says nothing. */
function byPrefix(server: Server, tool: string): string {
  if ((server.spec.aggregation?.conflictResolution || "prefix") !== "prefix") return "";
  const fitting = server.backends.filter(({ name }) => tool.startsWith(prefixOf(server, name)));
  const [longest] = fitting.sort((a, b) => prefixOf(server, b.name).length - prefixOf(server, a.name).length);
  if (longest === undefined) return "no backend has a prefix like that";
  return `by its prefix it would be ${JSON.stringify(tool.slice(prefixOf(server, longest.name).length))} of ${JSON.stringify(longest.name)}`;
}

function isNear(exposed: string, tool: string): boolean {
  const [a, b] = [exposed.toLowerCase(), tool.toLowerCase()];
  return a.includes(b) || b.includes(a) || a.endsWith(`_${b}`);
}
