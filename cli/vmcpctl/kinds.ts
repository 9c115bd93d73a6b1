// What an operator may call things on the command line.
import { nearest } from "../../control-plane/resources/nearest.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";

/** Collections of declared resources, as the admin API names them. */
export type ResourceKind = "groups" | "backends" | "virtualServers" | "authPolicies" | "revocations";

/** Everything that `get` knows. */
export type AnyKind = ResourceKind | "proxies" | "providers" | "tools" | "prompts" | "resources";

const aliases: Readonly<Record<AnyKind, readonly string[]>> = {
  groups: ["group", "g"],
  backends: ["backend", "be", "workload", "workloads", "wl"],
  virtualServers: ["virtualserver", "virtualservers", "vs"],
  authPolicies: ["authpolicy", "authpolicies", "ap"],
  revocations: ["revocation", "rv"],
  proxies: ["proxy", "px"],
  providers: ["provider", "discovery"],
  tools: ["tool"],
  prompts: ["prompt"],
  resources: ["resource"],
};

const resourceKinds: ReadonlySet<AnyKind> = new Set([
  "groups",
  "backends",
  "virtualServers",
  "authPolicies",
  "revocations",
] satisfies ResourceKind[]);

/** As they are typed. */
export const allKinds: readonly string[] = Object.keys(aliases).map((kind) => kind.toLowerCase());

export const kindsHelp = `kinds: ${Object.entries(aliases)
  .map(([kind, others]) => `${kind.toLowerCase()} (${others.filter((name) => name !== kind.toLowerCase()).join(", ")})`)
  .join(", ")}`;

/** What `wait --for` takes. */
export const conditionsHelp = `conditions:
  condition=Programmed  of what is declared: all connected proxies run it
  condition=Healthy     of a backend: every connected proxy can use it
  condition=Synced      of a proxy, or of all: it runs the newest
  revision=N            of a proxy, or of all: it runs that or a later one; of what is declared: it was changed by that or a later one
  create, delete        of what is declared`;

/** Any spelling → kind. Throws a usage error that guesses what was meant. */
export function parseKind(text: string): AnyKind {
  const wanted = text.toLowerCase();
  for (const [kind, others] of Object.entries(aliases)) {
    if (kind.toLowerCase() === wanted || others.includes(wanted)) return kind as AnyKind;
  }
  const guess = nearest(
    text,
    Object.entries(aliases).flatMap(([kind, others]) => [kind.toLowerCase(), ...others]),
  );
  throw new ExitError(exitCodes.usage, `unknown kind "${text}"${guess ? `; did you mean "${guess}"?` : ""}\n${kindsHelp}`);
}

/** The same for what can be applied and deleted. */
export function parseResourceKind(text: string): ResourceKind {
  const kind = parseKind(text);
  if (!isResourceKind(kind)) throw new ExitError(exitCodes.usage, `${kind} are observed, not declared`);
  return kind;
}

export function isResourceKind(kind: AnyKind): kind is ResourceKind {
  return resourceKinds.has(kind);
}

export interface Target {
  readonly kind: AnyKind;
  /** Undefined: all of the kind. */
  readonly name: string | undefined;
}

/** `vs dev`, `vs/dev`, and full names as they are printed: `virtualServers/dev`, `groups/g/backends/b`. */
export function parseTarget(first: string, second: string | undefined): Target {
  const backend = /^groups\/([^/]+)\/backends\/([^/]+)$/.exec(first);
  if (backend && second === undefined) return { kind: "backends", name: `${backend[1]}/${backend[2]}` };
  const slash = first.indexOf("/");
  if (slash < 0) return { kind: parseKind(first), name: second };
  if (second !== undefined) throw new ExitError(exitCodes.usage, `"${first}" names one already; what is "${second}"?`);
  return { kind: parseKind(first.slice(0, slash)), name: first.slice(slash + 1) };
}
