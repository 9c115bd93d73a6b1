// The operator's overrides make names unique. Where they do not, each rival gets its prefix: nothing is lost, nobody
// is called by mistake, and the operator sees `conflict` in the listing.
import { groupByName, prefixed, type Resolver, unrivalled } from "./resolver.ts";

export const manual: Resolver = (candidates, aggregation) => {
  const rivals = groupByName(candidates);
  return candidates.map((candidate) =>
    rivals.get(candidate.wanted)?.length === 1
      ? unrivalled(candidate)
      : { candidate, exposed: prefixed(candidate, aggregation), decidedBy: "conflict" },
  );
};
