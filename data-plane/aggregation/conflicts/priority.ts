// A name that several want goes to the backend listed first; when none of them is listed, each gets its prefix.
import { groupByName, prefixed, type Resolver, unrivalled } from "./resolver.ts";

export const priority: Resolver = (candidates, aggregation) => {
  const order = aggregation.conflictResolutionConfig?.priorityOrder ?? [];
  const rivals = groupByName(candidates);
  return candidates.map((candidate) => {
    const rank = (backend: string): number => (order.includes(backend) ? order.indexOf(backend) : order.length);
    const group = rivals.get(candidate.wanted) ?? [];
    if (group.length === 1) return unrivalled(candidate);
    const best = group.reduce((a, b) => (rank(b.backend) < rank(a.backend) ? b : a));
    if (rank(best.backend) === order.length)
      return { candidate, exposed: prefixed(candidate, aggregation), decidedBy: "conflict" };
    if (best === candidate) return { candidate, exposed: candidate.wanted, decidedBy: "priority" };
    return { candidate, exposed: undefined, decidedBy: "shadowed" };
  });
};
