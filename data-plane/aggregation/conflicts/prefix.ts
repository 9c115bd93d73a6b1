// Every name gets its backend's prefix, conflict or not.
import { prefixed, type Resolver } from "./resolver.ts";

export const prefix: Resolver = (candidates, aggregation) =>
  candidates.map((candidate) => ({ candidate, exposed: prefixed(candidate, aggregation), decidedBy: "prefix" }));
