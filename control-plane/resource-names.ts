// The grammar of resource names: which kinds there are and what their names look like.
import type { Resource } from "../proto/gen/vmcp/resource/v1/resource_pb.ts";

export type Kind = "groups" | "backends" | "virtualServers" | "authPolicies" | "revocations";

export interface ParsedName {
  readonly kind: Kind;
  /** The last segment. */
  readonly id: string;
  /** Of a backend, its group. */
  readonly group: string | undefined;
}

// One segment. What it may hold beyond that is for validation, which can say more than "no".
const segment = "([A-Za-z0-9][A-Za-z0-9._-]{0,252})";
// Groups are named where workloads are started, and there a name may have spaces inside.
const groupSegment = "([A-Za-z0-9_-](?:[A-Za-z0-9._ -]{0,251}[A-Za-z0-9._-])?)";

const patterns: readonly (readonly [Kind, RegExp])[] = [
  ["backends", new RegExp(`^groups/${groupSegment}/backends/${segment}$`)],
  ["groups", new RegExp(`^groups/${groupSegment}$`)],
  ["virtualServers", new RegExp(`^virtualServers/${segment}$`)],
  ["authPolicies", new RegExp(`^authPolicies/${segment}$`)],
  ["revocations", new RegExp(`^revocations/${segment}$`)],
];

const specCases = {
  groups: "group",
  backends: "backend",
  virtualServers: "virtualServer",
  authPolicies: "authPolicy",
  revocations: "revocation",
} as const satisfies Record<Kind, NonNullable<Resource["spec"]["case"]>>;

export const kinds: readonly Kind[] = ["groups", "backends", "virtualServers", "authPolicies", "revocations"];

/** Whether a name is that of a revocation: what operators do and not what they declare. */
export function isRevocationName(name: string): boolean {
  return parseName(name)?.kind === "revocations";
}

/** Undefined when the name fits no kind. */
export function parseName(name: string): ParsedName | undefined {
  for (const [kind, pattern] of patterns) {
    const match = pattern.exec(name);
    if (match === null) continue;
    const group = kind === "backends" ? match[1] : undefined;
    return { kind, group, id: match.at(-1) ?? "" };
  }
  return undefined;
}

/** The field of a Resource that holds the spec of a kind. */
export function specCaseOf(kind: Kind): NonNullable<Resource["spec"]["case"]> {
  return specCases[kind];
}
