// What shows only while proxies run: the names that tools really got, and how backends are.
import { isIP } from "node:net";
import type { BackendStatus, ViewEntry, VirtualServerView } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Problem } from "../resources/problems.ts";
import { ruleForNoTool, toolRules } from "./declared.ts";
import { type Finding, type FindingCode, finding } from "./findings.ts";
import type { Server } from "./servers.ts";

// A prefix that is wrong makes as many conflicts as there are tools; nobody reads more of one kind.
const entriesMax = 20;

export interface Observed {
  /** As one proxy sees them. */
  readonly views: readonly VirtualServerView[];
  /** Those connected. */
  readonly proxies: readonly ObservedProxy[];
  /** Tools that are not what was approved. */
  readonly changed: readonly ChangedTool[];
}

export interface ChangedTool {
  /** Resource name. */
  readonly backend: string;
  /** The backend's own name for it. */
  readonly tool: string;
}

export interface ObservedProxy {
  readonly id: string;
  /** Where its MCP endpoint listens. */
  readonly address: string;
  readonly backends: readonly BackendStatus[];
}

export function observedFindings(servers: readonly Server[], { views, proxies, changed }: Observed): Finding[] {
  const byServer = new Map(views.map((view) => [view.virtualServer, view.entries]));
  return [
    ...servers.flatMap((server) => {
      const entries = byServer.get(server.id) ?? [];
      return [...entryFindings(server, entries), ...ruleFindings(server, entries), ...networkFindings(server, proxies)];
    }),
    ...availabilityFindings(servers, proxies),
    ...changed.map(changedFinding),
  ];
}

const codeOfDecision: Readonly<Record<string, FindingCode>> = {
  conflict: "VMCP0201",
  shadowed: "VMCP0202",
  shortened: "VMCP0203",
};

function entryFindings({ resource }: Server, entries: readonly ViewEntry[]): Finding[] {
  const path = ["aggregation", "conflictResolution"];
  return Object.entries(codeOfDecision).flatMap(([decision, code]) => {
    const found = entries.filter(({ decidedBy }) => decidedBy === decision);
    const told = found.slice(0, entriesMax).map(({ kind, backend, original, exposed }) => {
      const what = `${kind} ${JSON.stringify(original)} of ${JSON.stringify(backend)}`;
      const message =
        exposed === "" ? `${what} can't be called: another has its name` : `${what} is ${JSON.stringify(exposed)} for clients`;
      const hint = kind === "tool" ? "rename it: aggregation.tools[].overrides" : undefined;
      return finding({ code, resource, path, message, hint });
    });
    const more = found.length - told.length;
    return more > 0 ? [...told, finding({ code, resource, path, message: `and ${more} more` })] : told;
  });
}

function ruleFindings(server: Server, entries: readonly ViewEntry[]): Finding[] {
  const tools = entries.filter(({ kind }) => kind === "tool");
  const exposed = new Set(tools.map((tool) => tool.exposed));
  // Of a backend that lists nothing, nobody knows what it would list.
  const listing = new Set(tools.map(({ backend }) => backend));
  if (server.backends.some(({ name }) => !listing.has(name))) return notOffered(server, tools, listing);
  const composites = new Set(server.spec.compositeTools.map(({ name }) => name));
  const forNothing = toolRules(server).filter(({ tool }) => !exposed.has(tool) && !composites.has(tool));
  return [
    ...notOffered(server, tools, listing),
    ...forNothing.map((rule) => ruleForNoTool(rule, "no tool is exposed under this name")),
  ];
}

function notOffered({ resource, spec }: Server, tools: readonly ViewEntry[], listing: ReadonlySet<string>): Finding[] {
  return (spec.aggregation?.tools ?? []).flatMap(({ workload, filter, overrides }, at) => {
    if (!listing.has(workload)) return [];
    const originals = new Set(tools.filter(({ backend }) => backend === workload).map(({ original }) => original));
    const renamed = Object.entries(overrides).map(([original, { name }]) => name || original);
    const path = ["aggregation", "tools", at];
    const report = (inside: Problem["path"], tool: string) =>
      finding({
        code: "VMCP0302",
        resource,
        path: [...path, ...inside],
        message: `backend ${JSON.stringify(workload)} lists no tool ${JSON.stringify(tool)}`,
        hint: "see what it lists: vmcpctl get tools",
      });
    return [
      ...Object.keys(overrides)
        .filter((original) => !originals.has(original))
        .map((original) => report(["overrides", original], original)),
      ...filter.flatMap((name, index) =>
        originals.has(name) || renamed.includes(name) ? [] : [report(["filter", index], name)],
      ),
    ];
  });
}

function networkFindings({ incomingAuth }: Server, proxies: readonly ObservedProxy[]): Finding[] {
  if (incomingAuth?.value.type !== "anonymous") return [];
  const reachable = proxies.filter(({ address }) => !isLoopback(address)).map(({ id, address }) => `${id} (${address})`);
  if (reachable.length === 0) return [];
  const message = `everybody may call it on ${reachable.slice(0, 5).join(", ")}${reachable.length > 5 ? ` and ${reachable.length - 5} more` : ""}`;
  const hint = "let callers sign in with incomingAuth type oidc, or let the proxies listen on 127.0.0.1";
  return [finding({ code: "VMCP0502", resource: incomingAuth.resource, path: ["incomingAuth", "type"], message, hint })];
}

function availabilityFindings(servers: readonly Server[], proxies: readonly ObservedProxy[]): Finding[] {
  const members = new Map(servers.flatMap(({ backends }) => backends.map((member) => [member.fullName, member] as const)));
  return [...members.keys()].flatMap((fullName): Finding[] => {
    const seen = proxies.flatMap(({ backends }) => backends.filter(({ name }) => name === fullName));
    const bad = seen.filter(({ state }) => state === "unhealthy" || state === "unauthenticated");
    if (seen.length === 0 || bad.length < seen.length) return [];
    const why = bad[0]?.error ? `: ${bad[0].error}` : "";
    return [
      finding({
        code: "VMCP0401",
        ...resourceOf(fullName),
        message: `all ${seen.length} ${seen.length === 1 ? "proxy that knows" : "proxies that know"} it find it ${bad[0]?.state}${why}`,
        hint: `vmcpctl describe backend ${fullName.split("/").at(-1)}`,
      }),
    ];
  });
}

function changedFinding({ backend, tool }: ChangedTool): Finding {
  return finding({
    code: "VMCP0304",
    ...resourceOf(backend),
    message: `tool ${JSON.stringify(tool)} is not what was approved`,
    hint: "look at it: vmcpctl get tools --changed; then: vmcpctl approve tools",
  });
}

/** A backend of a virtual server is a part of it. */
function resourceOf(fullName: string): { resource: string; path: Problem["path"] } {
  const [, server = "", name = ""] = /^(virtualServers\/[^/]+)\/backends\/(.+)$/.exec(fullName) ?? [];
  return server === "" ? { resource: fullName, path: [] } : { resource: server, path: ["backends", name] };
}

/** Of `http://host:port` or `host:port`. What can't be read is not said to be open. */
function isLoopback(address: string): boolean {
  const host = URL.parse(address.includes("://") ? address : `http://${address}`)?.hostname ?? "";
  const bare = host.replace(/^\[|\]$/g, "");
  if (isIP(bare) === 0) return true;
  return bare === "::1" || bare.startsWith("127.");
}
