// What a declaration alone shows: nothing has to run for it.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Problem } from "../resources/problems.ts";
import { isPlainRemote } from "../resources/schema/fields.ts";
import { type Finding, finding } from "./findings.ts";
import { addressesOf, type Server, strategyOf } from "./servers.ts";

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
            message: `backends ${JSON.stringify(other)} and ${JSON.stringify(name)} are both ${shown(address)}, so each of its tools is there twice`,
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

function credentialFindings(server: Server): Finding[] {
  const { resource: serverName, backends } = server;
  const findings: Finding[] = [];
  const byDefault = new Set<string>();
  for (const { name, fullName, spec } of backends) {
    const shownTo = strategyOf(server, name);
    if (shownTo === undefined) continue;
    const plain = addressesOf(spec).find(isPlainRemote);
    if (plain !== undefined)
      findings.push(
        finding({
          code: "VMCP0501",
          ...placeOf(serverName, fullName),
          message: `${JSON.stringify(name)} is shown credentials (${shownTo.strategy.type}) over plain http at ${shown(plain)}`,
          hint: "use https: anybody on the way can read and use them",
        }),
      );
    const isFixed = shownTo.strategy.type === "header_injection" || shownTo.strategy.type === "client_credentials";
    const isShared = isFixed && shownTo.path.at(-1) === "default";
    const [address] = addressesOf(spec);
    const host = address === undefined ? undefined : URL.parse(address)?.host;
    if (isShared && host !== undefined) byDefault.add(host);
  }
  const { outgoingAuth } = server;
  if (outgoingAuth && byDefault.size > 1)
    findings.push(
      finding({
        code: "VMCP0505",
        resource: outgoingAuth.resource,
        path: ["outgoingAuth", "default"],
        message: `the same credential goes to ${byDefault.size} servers: ${[...byDefault].sort().slice(0, 5).join(", ")}`,
        hint: "name the backend that it is for below outgoingAuth.backends",
      }),
    );
  return findings;
}

const dayMs = 24 * 60 * 60;

function callerFindings(server: Server): Finding[] {
  const { incomingAuth, backends } = server;
  if (incomingAuth === undefined) return [];
  const { resource, value } = incomingAuth;
  const findings: Finding[] = [];
  const { oidc } = value;
  for (const [path, issuer] of oidc
    ? [
        [["incomingAuth", "oidc"], oidc] as const,
        ...oidc.additionalIssuers.map((one, at) => [["incomingAuth", "oidc", "additionalIssuers", at], one] as const),
      ]
    : []) {
    const plain = [issuer.issuer, issuer.jwksUrl, issuer.introspectionUrl].find(
      (address) => address !== "" && isPlainRemote(address),
    );
    if (plain !== undefined)
      findings.push(
        finding({
          code: "VMCP0504",
          resource,
          path: [...path, "insecureAllowHttp"],
          message: `${shown(plain)} is plain http, so anybody on the way can forge tokens`,
          hint: "use https; insecureAllowHttp is for tests",
        }),
      );
    const [age, skew] = [issuer.maxTokenAge, issuer.clockSkew].map((duration) => Number(duration?.seconds ?? 0n));
    if ((age ?? 0) > dayMs)
      findings.push(
        finding({
          code: "VMCP0507",
          resource,
          path: [...path, "maxTokenAge"],
          message: `tokens are accepted for ${Math.round((age ?? 0) / 3600)} hours after they were issued`,
          hint: "24h, the default, is more than access tokens need",
        }),
      );
    if ((skew ?? 0) > 60)
      findings.push(
        finding({
          code: "VMCP0507",
          resource,
          path: [...path, "clockSkew"],
          message: `tokens are accepted for ${skew} s after they ended`,
          hint: "set the clocks right, and leave clockSkew at 30s",
        }),
      );
  }
  const acting = backends.filter(({ name }) =>
    ["header_injection", "client_credentials"].includes(strategyOf(server, name)?.strategy.type ?? ""),
  );
  if (value.type === "anonymous" && acting.length > 0)
    findings.push(
      finding({
        code: "VMCP0506",
        resource,
        path: ["incomingAuth", "type"],
        message: `nobody signs in, and ${acting
          .map(({ name }) => JSON.stringify(name))
          .slice(0, 5)
          .join(", ")} ${acting.length === 1 ? "is" : "are"} shown the gateway's own credentials`,
        hint: "let callers sign in with incomingAuth type oidc, or keep the endpoint on this machine",
      }),
    );
  return findings;
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

/** A backend of a group is a resource; one of a virtual server is a part of it. */
function placeOf(server: string, fullName: string): { resource: string; path: Path } {
  return fullName.startsWith("groups/")
    ? { resource: fullName, path: ["url"] }
    : { resource: server, path: ["backends", fullName.split("/").at(-1) ?? ""] };
}

/** Without what a secret may be. */
function shown(address: string): string {
  const url = URL.parse(address);
  return url === null ? "an address" : `${url.protocol}//${url.host}${url.pathname}`;
}
