// What a declaration alone shows: nothing has to run for it.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Problem } from "../resources/problems.ts";
import { callerFindings, credentialFindings } from "./credentials.ts";
import { type Finding, finding } from "./findings.ts";
import { addressesOf, placeOf, type Server, shownAddress } from "./servers.ts";

type Path = Problem["path"];

export interface DeclaredOptions {
  readonly declared: readonly Resource[];
  /** Discovery runs, and may find others. */
  readonly mayGrow: boolean;
}

export function declaredFindings(servers: readonly Server[], options: DeclaredOptions): Finding[] {
  const rules = [
    backendFindings,
    nameFindings,
    hiddenFindings,
    ruleFindings,
    credentialFindings,
    callerFindings,
    operationalFindings,
  ];
  const found = servers.flatMap((server) => rules.flatMap((rule) => rule(server, options)));
  // Several virtual servers may share what is wrong.
  const unique = new Map(
    [...unused(servers, options), ...found].map((one) => [`${one.code} ${one.resource} ${one.path.join(".")}`, one]),
  );
  return [...unique.values()];
}

function unused(servers: readonly Server[], { declared }: DeclaredOptions): Finding[] {
  const groups = new Set(servers.filter(({ spec }) => spec.backends.length === 0).map(({ spec }) => `groups/${spec.groupRef}`));
  const policies = new Set(servers.map(({ spec }) => `authPolicies/${spec.authPolicyRef}`));
  return declared.flatMap(({ name: resource, spec }) => {
    if (spec.case === "group" && !groups.has(resource))
      return [
        finding({
          code: "VMCP0102",
          resource,
          path: [],
          message: "no virtual server aggregates this group",
          hint: "name it as groupRef, or delete it",
        }),
      ];
    if (spec.case === "authPolicy" && !policies.has(resource))
      return [
        finding({
          code: "VMCP0103",
          resource,
          path: [],
          message: "no virtual server has this policy",
          hint: "name it as authPolicyRef, or delete it",
        }),
      ];
    return [];
  });
}

function backendFindings({ resource, spec, backends }: Server, { declared, mayGrow }: DeclaredOptions): Finding[] {
  const findings: Finding[] = [];
  if (backends.length === 0 && !mayGrow) {
    findings.push(
      finding({
        code: "VMCP0104",
        resource,
        path: ["groupRef"],
        message: `group ${JSON.stringify(spec.groupRef)} has no backends, so there are no tools`,
        hint: "add backends to the group, or start a discovery provider that finds them",
      }),
    );
  }
  const members = declared.filter(({ name }) => name.startsWith(`groups/${spec.groupRef}/backends/`)).length;
  if (spec.backends.length > 0 && members > 0) {
    findings.push(
      finding({
        code: "VMCP0105",
        resource,
        path: ["groupRef"],
        message: `${members} declared ${members === 1 ? "backend" : "backends"} of group ${JSON.stringify(spec.groupRef)} don't count, because backends are listed here`,
        hint: "move them to the group, or all of them here",
      }),
    );
  }
  const owners = new Map<string, string>();
  for (const { name, fullName, spec: backend } of backends) {
    for (const address of addressesOf(backend)) {
      const other = owners.get(address);
      if (other === undefined) owners.set(address, name);
      else if (other !== name)
        findings.push(
          finding({
            code: "VMCP0402",
            ...placeOf(resource, fullName),
            message: `backends ${JSON.stringify(other)} and ${JSON.stringify(name)} are both ${shownAddress(address)}, so each of its tools is there twice`,
            hint: "remove one of them",
          }),
        );
    }
  }
  return findings;
}

function nameFindings({ resource, spec, backends }: Server): Finding[] {
  const { conflictResolution, conflictResolutionConfig, tools = [] } = spec.aggregation ?? {};
  const format = conflictResolutionConfig?.prefixFormat || "{workload}_";
  const prefixOf = (workload: string) => (conflictResolution === "prefix" ? format.replaceAll("{workload}", workload) : "");
  const owners = new Map<string, string>();
  const findings: Finding[] = [];
  for (const [at, { workload, overrides, excludeAll }] of tools.entries()) {
    if (excludeAll || !backends.some(({ name }) => name === workload)) continue;
    for (const [original, { name }] of Object.entries(overrides)) {
      const exposed = prefixOf(workload) + name;
      const other = owners.get(exposed);
      if (name !== "" && other !== undefined && other !== workload && conflictResolution !== "manual")
        findings.push(
          finding({
            code: "VMCP0201",
            resource,
            path: ["aggregation", "tools", at, "overrides", original, "name"],
            message: `tools of ${JSON.stringify(other)} and ${JSON.stringify(workload)} would both be named ${JSON.stringify(exposed)}`,
            hint: "choose another name for one of them",
          }),
        );
      if (name !== "") owners.set(exposed, workload);
    }
  }
  return findings;
}

function hiddenFindings({ resource, spec }: Server): Finding[] {
  const { tools = [], excludeAllTools = false } = spec.aggregation ?? {};
  const findings: Finding[] = [];
  const report = (path: Path, message: string, hint: string) =>
    findings.push(finding({ code: "VMCP0301", resource, path, message, hint }));
  for (const [at, { workload, overrides, filter, excludeAll }] of tools.entries()) {
    const path = ["aggregation", "tools", at];
    const isHidden = excludeAll || excludeAllTools;
    if (isHidden && (filter.length > 0 || Object.keys(overrides).length > 0)) {
      const why = excludeAll ? "excludeAll" : "excludeAllTools";
      report(
        path,
        `${why} hides all tools of ${JSON.stringify(workload)}, so its filter and overrides do nothing`,
        `remove ${why}, or the rules`,
      );
      continue;
    }
    for (const [original, { name }] of Object.entries(overrides)) {
      const listed = name || original;
      if (filter.length > 0 && !filter.includes(listed))
        report(
          [...path, "overrides", original],
          `the filter does not list ${JSON.stringify(listed)}, so the override is for a hidden tool`,
          `add ${JSON.stringify(listed)} to the filter`,
        );
    }
  }
  for (const [tool, composite] of spec.compositeTools.entries()) {
    for (const [step, { tool: called }] of composite.steps.entries()) {
      const rules = tools.find(({ workload }) => called.startsWith(`${workload}.`));
      if (rules === undefined) continue;
      const original = called.slice(rules.workload.length + 1);
      const listed = rules.overrides[original]?.name || original;
      if (rules.excludeAll || (rules.filter.length > 0 && !rules.filter.includes(listed)))
        report(
          ["compositeTools", tool, "steps", step, "tool"],
          `${JSON.stringify(called)} is hidden from clients, and the workflow calls it`,
          "that may be meant: workflows may use what clients don't see",
        );
    }
  }
  return findings;
}

/** With prefixes, each exposed name begins with one of them: what does not is nobody's. */
function ruleFindings({ resource, spec, incomingAuth, backends }: Server, { mayGrow }: DeclaredOptions): Finding[] {
  const { conflictResolution, conflictResolutionConfig } = spec.aggregation ?? {};
  if (conflictResolution !== "prefix" || mayGrow || backends.length === 0) return [];
  const format = conflictResolutionConfig?.prefixFormat || "{workload}_";
  const prefixes = backends.map(({ name }) => format.replaceAll("{workload}", name));
  const composites = new Set(spec.compositeTools.map(({ name }) => name));
  return toolRules({ resource, spec, incomingAuth }).flatMap((rule) =>
    composites.has(rule.tool) || prefixes.some((prefix) => rule.tool.startsWith(prefix))
      ? []
      : [ruleForNoTool(rule, `with prefix ${JSON.stringify(format)} no tool can have this name`)],
  );
}

export interface ToolRule {
  readonly resource: string;
  readonly path: Path;
  /** As clients see it. */
  readonly tool: string;
}

/** Rules that are for one tool, by the name that clients see. */
export function toolRules({ resource, spec, incomingAuth }: Pick<Server, "resource" | "spec" | "incomingAuth">): ToolRule[] {
  const limits = (spec.rateLimiting?.tools ?? []).map(({ name }, at) => ({
    resource,
    path: ["rateLimiting", "tools", at, "name"],
    tool: name,
  }));
  const scopes = (incomingAuth?.value.oidc?.toolScopes ?? []).map(({ tool }, at) => ({
    resource: incomingAuth?.resource ?? resource,
    path: ["incomingAuth", "oidc", "toolScopes", at, "tool"],
    tool,
  }));
  return [...scopes, ...limits];
}

export function ruleForNoTool({ resource, path, tool }: ToolRule, why: string): Finding {
  return finding({
    code: "VMCP0303",
    resource,
    path,
    message: `the rule is for ${JSON.stringify(tool)}, and ${why}`,
    hint: "name the tool as clients see it: vmcpctl get tools",
  });
}

function operationalFindings({ resource, spec }: Server): Finding[] {
  if (spec.operational?.failureHandling?.circuitBreaker?.enabled !== false) return [];
  const path = ["operational", "failureHandling", "circuitBreaker", "enabled"];
  return [
    finding({
      code: "VMCP0601",
      resource,
      path,
      message: "without a breaker every call to a backend that is down waits for its timeout",
      hint: "leave it on, and raise failureThreshold where it opens too early",
    }),
  ];
}
