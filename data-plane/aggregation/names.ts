// Exposed names of tools and prompts: what the strategy wants, made legal, unique and short.
import { createHash } from "node:crypto";
import type { Aggregation } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { resolvers } from "./conflicts/registry.ts";
import type { Candidate, Named } from "./conflicts/resolver.ts";

const nameMax = 64; // what model APIs accept
const hashLength = 6;

/** Gives every candidate its name. The same candidates in the same order always get the same names. */
export function resolveNames<C extends Candidate>(candidates: readonly C[], aggregation: Aggregation): Named<C>[] {
  const resolve = resolvers.get(aggregation.conflictResolution);
  if (!resolve) throw new Error(`conflict strategy "${aggregation.conflictResolution}" is unknown`);
  const taken = new Set<string>();
  return resolve(candidates, aggregation).map((named) => {
    if (named.exposed === undefined) return named;
    const legal = legalName(named.exposed, named.candidate);
    let exposed = legal;
    for (let attempt = 1; taken.has(exposed); attempt++) exposed = hashedName(legal, named.candidate, attempt);
    taken.add(exposed);
    return exposed === named.exposed ? named : { ...named, exposed, decidedBy: "shortened" };
  });
}

// MCP 2025-11-25, tools, names: letters, digits, `_`, `-`, `.`.
function legalName(name: string, candidate: Candidate): string {
  const clean = name.replace(/[^A-Za-z0-9_.-]/g, "_");
  return clean === name && name.length <= nameMax ? name : hashedName(clean, candidate, 0);
}

function hashedName(name: string, { backend, original }: Candidate, attempt: number): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([backend, original, attempt]))
    .digest("hex")
    .slice(0, hashLength);
  return `${name.slice(0, nameMax - hashLength - 1)}_${hash}`;
}
