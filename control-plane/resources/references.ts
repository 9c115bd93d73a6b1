// The rules between declarations: what one names, another must declare.
import { didYouMean } from "./nearest.ts";
import type { Problem } from "./problems.ts";
import type { Path } from "./schema/fields.ts";
import type { VirtualServerPart } from "./schema/virtual-server.ts";

// Maps by backend name: there the name is the key.
const keyed: ReadonlySet<unknown> = new Set(["backends", "perWorkload"]);

/** A declaration whose shape was inspected; `part` is what is sound of it. */
export interface Declared {
  readonly name: string;
  readonly kind: "group" | "backend" | "virtualServer" | "authPolicy" | "revocation";
  readonly part: unknown;
}

export interface ReferenceOptions {
  /** More is declared elsewhere, so what is missing here may be there. */
  readonly isPartial: boolean;
  /** Discovery runs: the groups that it knows right now. A group may have backends that nobody declared, so those that are missing are no error. */
  readonly discovered?: ReadonlySet<string> | undefined;
}

export function referenceProblems(all: readonly Declared[], { isPartial, discovered }: ReferenceOptions): Problem[] {
  const groups = namesOf(all, "group", "groups/");
  const policies = namesOf(all, "authPolicy", "authPolicies/");
  const problems: Problem[] = [];
  for (const { name, kind, part } of all) {
    if (kind === "backend") {
      const [, groupName = ""] = name.split("/");
      if (isPartial || groups.has(groupName)) continue;
      const hint = didYouMean(groupName, groups) ?? `declare it too: kind: Group, name: ${groupName}`;
      problems.push({
        severity: "error",
        message: `group ${JSON.stringify(groupName)} is not declared`,
        hint,
        resource: name,
        path: ["group"],
      });
    }
    if (kind !== "virtualServer" || typeof part !== "object" || part === null) continue;
    const report = reporter(name, problems);
    const value = part as VirtualServerPart;
    const hasOwn = (value.backends ?? []).length > 0;
    const isKnown = value.groupRef === undefined || groups.has(value.groupRef) || discovered?.has(value.groupRef);
    if (value.groupRef !== undefined && !hasOwn && !isKnown && !isPartial) {
      const group = `group ${JSON.stringify(value.groupRef)} is not declared`;
      const hint =
        didYouMean(value.groupRef, [...groups, ...(discovered ?? [])]) ??
        "declare its backends under backends:, or start a discovery provider that knows the group";
      const message =
        discovered === undefined
          ? `${group} here, so it has no backends unless discovery finds them`
          : `${group}, and no discovery provider knows it yet`;
      report("warning", ["groupRef"], message, hint);
    }
    if (value.authPolicyRef !== undefined && !policies.has(value.authPolicyRef) && !isPartial) {
      report(
        "error",
        ["authPolicyRef"],
        `auth policy ${JSON.stringify(value.authPolicyRef)} is not declared`,
        didYouMean(value.authPolicyRef, policies),
      );
    }
    const members = membersOf(value, all, isPartial);
    if (members !== undefined) workloadProblems({ value, members, hasOwn, mayGrow: discovered !== undefined && !hasOwn }, report);
  }
  if (!isPartial) problems.push(...policyProblems(all, discovered !== undefined));
  return problems.map((problem) => ({ ...problem, isReference: true }));
}

type Report = (severity: Problem["severity"], path: Path, message: string, hint?: string) => void;

function reporter(resource: string, problems: Problem[]): Report {
  return (severity, path, message, hint) =>
    problems.push({
      severity,
      message,
      ...(hint !== undefined && { hint }),
      resource,
      path,
      ...(keyed.has(path.at(-2)) && { onKey: true }),
    });
}

// Looking for what was meant costs names × names, and nobody reads more.
const explainedMax = 50;

interface Membership {
  readonly value: VirtualServerPart;
  readonly members: ReadonlySet<string>;
  /** They are the virtual server's own and not a group's. */
  readonly hasOwn: boolean;
  /** Discovery may find others. */
  readonly mayGrow: boolean;
}

function workloadProblems({ value, members, hasOwn, mayGrow }: Membership, report: Report): void {
  const unknown = workloadsNamed(value).filter(([, workload]) => !members.has(workload));
  for (const [path, workload] of unknown.slice(0, explainedMax)) {
    const message = hasOwn
      ? `no backend is named ${JSON.stringify(workload)}`
      : `group ${JSON.stringify(value.groupRef)} has no backend ${JSON.stringify(workload)}`;
    report(mayGrow ? "warning" : "error", path, message, meantHint(workload, members));
  }
}

function meantHint(workload: string, members: ReadonlySet<string>): string {
  return didYouMean(workload, members) ?? `known here: ${[...members].slice(0, 20).join(", ")}`;
}

/** A policy may name what only one of its virtual servers has; a name that none of them has is a credential for nobody. */
function policyProblems(all: readonly Declared[], mayGrow: boolean): Problem[] {
  const problems: Problem[] = [];
  const users = Map.groupBy(
    all.flatMap(({ kind, part }) => (kind === "virtualServer" && part ? [part as VirtualServerPart] : [])),
    ({ authPolicyRef }) => authPolicyRef,
  );
  for (const { name, kind, part } of all) {
    if (kind !== "authPolicy") continue;
    const known = (users.get(name.slice("authPolicies/".length)) ?? []).map((server) => membersOf(server, all, false));
    if (known.length === 0 || known.includes(undefined)) continue;
    const members = new Set(known.flatMap((names) => [...(names ?? [])]));
    const { outgoingAuth } = (part ?? {}) as VirtualServerPart;
    const unknown = Object.keys(outgoingAuth?.backends ?? {}).filter((workload) => !members.has(workload));
    const report = reporter(name, problems);
    for (const workload of unknown.slice(0, explainedMax)) {
      const message = `no virtual server with this policy has a backend ${JSON.stringify(workload)}`;
      report(mayGrow ? "warning" : "error", ["outgoingAuth", "backends", workload], message, meantHint(workload, members));
    }
  }
  return problems;
}

/** Every place where a virtual server names a backend. */
function workloadsNamed(value: VirtualServerPart): [Path, string][] {
  const tools = (value.aggregation?.tools ?? []).map(
    (entry, index) => [["aggregation", "tools", index, "workload"], entry?.workload] as const,
  );
  const order = (value.aggregation?.conflictResolutionConfig?.priorityOrder ?? []).map(
    (name, index) => [["aggregation", "conflictResolutionConfig", "priorityOrder", index], name] as const,
  );
  const auth = Object.keys(value.outgoingAuth?.backends ?? {}).map((name) => [["outgoingAuth", "backends", name], name] as const);
  const timeouts = Object.keys(value.operational?.timeouts?.perWorkload ?? {}).map(
    (name) => [["operational", "timeouts", "perWorkload", name], name] as const,
  );
  return [...tools, ...order, ...auth, ...timeouts].flatMap(([path, name]) => (name === undefined ? [] : [[[...path], name]]));
}

/** Names of a virtual server's backends; undefined when they are not all known here. */
function membersOf(value: VirtualServerPart, all: readonly Declared[], isPartial: boolean): ReadonlySet<string> | undefined {
  const own = value.backends ?? [];
  if (own.length > 0) {
    const names = own.map((entry) => entry?.name);
    return names.every((name) => name !== undefined) ? new Set(names) : undefined;
  }
  if (value.groupRef === undefined || isPartial) return undefined;
  const members = namesOf(all, "backend", `groups/${value.groupRef}/backends/`);
  return members.size > 0 && !members.has("") ? members : undefined; // one without a name may be the one that is meant
}

function namesOf(all: readonly Declared[], kind: Declared["kind"], prefix: string): Set<string> {
  return new Set(
    all.filter((entry) => entry.kind === kind && entry.name.startsWith(prefix)).map((entry) => entry.name.slice(prefix.length)),
  );
}
