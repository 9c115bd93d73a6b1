// What a request must look like before anything is read or written.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { type Kind, kinds, type ParsedName, parseName, specCaseOf } from "../resource-names.ts";
import type { Listing } from "../store/store.ts";
import { AdminError, type FieldViolation } from "./errors.ts";

const resourcesMax = 1000;
const pageSizeDefault = 50;
const pageSizeMax = 1000;

/** Names, kinds and duplicates of resources to apply; all violations at once. */
export function checkResources(resources: readonly Resource[], limit = resourcesMax): void {
  const violations: FieldViolation[] = [];
  const seen = new Set<string>();
  if (resources.length > limit) violations.push({ field: "resources", description: `at most ${limit} at once` });
  for (const [at, { name, spec }] of resources.slice(0, limit).entries()) {
    const field = `resources[${at}]`;
    const parsed = parseName(name);
    if (parsed === undefined) violations.push({ field: `${field}.name`, description: unknownName(name) });
    else if (parsed.kind === "revocations")
      violations.push({ field: `${field}.name`, description: "sessions are revoked by RevokeSessions (vmcpctl session revoke)" });
    else if (spec.case !== specCaseOf(parsed.kind))
      violations.push({ field: `${field}.spec`, description: wrongSpec(parsed, spec.case) });
    if (seen.has(name)) violations.push({ field: `${field}.name`, description: `"${name}" is there twice` });
    seen.add(name);
  }
  if (violations.length > 0) throw invalid(violations);
}

/** Throws INVALID_REQUEST when the name fits no kind. */
export function checkName(name: string): ParsedName {
  const parsed = parseName(name);
  if (parsed === undefined) throw invalid([{ field: "name", description: unknownName(name) }]);
  return parsed;
}

/** Throws REVISION_MISMATCH when the store has moved on; 0 expects nothing. */
export function checkRevision({ revision }: Listing, expected: bigint): void {
  if (expected === 0n || expected === revision) return;
  throw new AdminError("REVISION_MISMATCH", `the store is at revision ${revision}, not ${expected}`, {
    metadata: { revision: String(revision), expectedRevision: String(expected) },
  });
}

/** Undefined for all kinds. */
export function checkKind(kind: string): Kind | undefined {
  if (kind === "") return undefined;
  const known = kinds.find((one) => one === kind);
  if (known === undefined) throw invalid([{ field: "kind", description: `"${kind}" is none of ${kinds.join(", ")}` }]);
  return known;
}

/** 0 is the default, and more than the maximum is the maximum. */
export function checkPageSize(pageSize: number): number {
  if (pageSize < 0) throw invalid([{ field: "page_size", description: `${pageSize} is negative` }]);
  return pageSize === 0 ? pageSizeDefault : Math.min(pageSize, pageSizeMax);
}

/** A page token that is a number of the store; undefined for the first page. */
export function checkPosition(pageToken: string): bigint | undefined {
  if (pageToken === "") return undefined;
  if (!/^\d{1,18}$/.test(pageToken)) throw invalid([{ field: "page_token", description: "not a token of this list" }]);
  return BigInt(pageToken);
}

export function invalid(violations: readonly FieldViolation[]): AdminError {
  const [first] = violations;
  const more = violations.length > 1 ? `, and ${violations.length - 1} more` : "";
  return new AdminError("INVALID_REQUEST", `${first?.field}: ${first?.description}${more}`, { violations });
}

function unknownName(name: string): string {
  return `"${name.slice(0, 100)}" is not groups/{group}, groups/{group}/backends/{backend}, virtualServers/{name}, authPolicies/{name} or revocations/{id}`;
}

function wrongSpec({ kind }: ParsedName, found: string | undefined): string {
  return `a name of ${kind} wants ${specCaseOf(kind)}, found ${found ?? "nothing"}`;
}
