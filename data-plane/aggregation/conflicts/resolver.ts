// What a conflict strategy is.
import type { Aggregation } from "../../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";

/** Something that wants a name. */
export interface Candidate {
  readonly backend: string;
  /** The backend's name for it. */
  readonly original: string;
  /** The name it asks for: the original, or the operator's override. */
  readonly wanted: string;
}

/** Which rule gave the name; the words of vmcp.discovery.v1.ViewEntry. */
export type Rule = "unique" | "prefix" | "priority" | "override" | "conflict" | "shortened" | "shadowed";

/** The name a candidate got; `exposed` is undefined when another candidate took its place. */
export interface Named<C extends Candidate> {
  readonly candidate: C;
  readonly exposed: string | undefined;
  readonly decidedBy: Rule;
}

/** Decides names; the candidates come sorted by backend, and the result keeps their order. */
export type Resolver = <C extends Candidate>(candidates: readonly C[], aggregation: Aggregation) => Named<C>[];

/** The name with the strategy's prefix before it. */
export function prefixed({ backend, wanted }: Candidate, aggregation: Aggregation): string {
  const format = aggregation.conflictResolutionConfig?.prefixFormat || "{workload}_";
  return format.replaceAll("{workload}", backend) + wanted;
}

/** How often each name is wanted. */
export function groupByName<C extends Candidate>(candidates: readonly C[]): Map<string, C[]> {
  return Map.groupBy(candidates, ({ wanted }) => wanted);
}

/** A name that nobody else wants. */
export function unrivalled<C extends Candidate>(candidate: C): Named<C> {
  return { candidate, exposed: candidate.wanted, decidedBy: candidate.wanted === candidate.original ? "unique" : "override" };
}
