// Exposed names of tools and prompts: what the strategy wants, made legal, short and unique.
//
// A name says where a call goes, so no backend may get at another's by what it lists. Who is listed first, sorts first or
// is up decides nothing:
// - What the operator decided (an override, the priority order) keeps its name.
// - A prefix belongs to its backend. `x_mail` of `bank` would be `bank_x_mail`, which reads as `mail` of `bank_x`; it gets a
//   hash at its end, whether `bank_x` has such a tool or not.
// - Where names still meet, all of them get a hash, and nobody gets the name they met at: else a backend could first drive
//   another from its name by listing the same, and then take it by listing a third.
import { createHash } from "node:crypto";
import type { Aggregation } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { resolvers } from "./conflicts/registry.ts";
import { type Candidate, type Named, prefixed } from "./conflicts/resolver.ts";

const nameMax = 64; // what model APIs accept
const hashLength = 10; // 40 bits: too many to look for a name whose hash is another's
// No name that a backend chose may end like one that we made, or it could be one that we make.
const madeByUs = new RegExp(`_-[0-9a-f]{${hashLength}}$`);

/**
 * Gives every candidate its name; the result keeps their order. A candidate is named once by its backend and original name.
 * `backends` are all of the virtual server, those that list nothing included. Default: those of the candidates.
 */
export function resolveNames<C extends Candidate>(
  candidates: readonly C[],
  aggregation: Aggregation,
  backends: Iterable<string> = candidates.map(({ backend }) => backend),
): Named<C>[] {
  const resolve = resolvers.get(aggregation.conflictResolution);
  if (!resolve) throw new Error(`conflict strategy "${aggregation.conflictResolution}" is unknown`);
  const isForeign = foreignPrefixes(new Set(backends), aggregation);
  const claims = resolve(candidates, aggregation).map((named) => claimOf(named, isForeign));
  separate(claims);
  return claims.map(({ named, name, decidedBy }) => ({ ...named, exposed: name, decidedBy }));
}

/** A candidate on its way to a name. */
interface Claim {
  readonly named: Named<Candidate>;
  name: string | undefined;
  /** What it was called before a conflict gave it a prefix. */
  readonly firstChoice: string | undefined;
  decidedBy: Named<Candidate>["decidedBy"];
  /** Hashes tried so far. */
  attempts: number;
  /** The operator gave this very name. */
  readonly isFixed: boolean;
}

function claimOf<C extends Candidate>(named: Named<C>, isForeign: IsForeign): Claim & { named: Named<C> } {
  const { candidate, exposed, decidedBy } = named;
  const claim = { named, decidedBy, firstChoice: undefined, attempts: 0, isFixed: false };
  if (exposed === undefined) return { ...claim, name: undefined };
  const firstChoice = decidedBy === "conflict" ? shortened(candidate.wanted, candidate) : undefined;
  const isPrefixed = decidedBy === "prefix" || decidedBy === "conflict";
  if (isPrefixed && isForeign(candidate.backend, exposed))
    return { ...claim, firstChoice, name: hashedName(exposed, candidate, 0), decidedBy: "conflict", attempts: 1 };
  const name = shortened(exposed, candidate);
  if (name !== exposed) return { ...claim, firstChoice, name, decidedBy: "shortened", attempts: 1 };
  return { ...claim, firstChoice, name, isFixed: decidedBy === "override" || decidedBy === "priority" };
}

function shortened(name: string, candidate: Candidate): string {
  const isFine = legal(name) === name && name.length <= nameMax && !madeByUs.test(name);
  return isFine ? name : hashedName(name, candidate, 0);
}

type IsForeign = (backend: string, name: string) => boolean;

/** Says whether a name begins with the prefix of another backend, one that is longer than the backend's own. */
function foreignPrefixes(backends: ReadonlySet<string>, aggregation: Aggregation): IsForeign {
  const prefixOf = (backend: string) => prefixed({ backend, original: "", wanted: "" }, aggregation);
  const prefixes = [...backends].map(prefixOf);
  const within = new Map<string, string[]>(); // nearly always empty lists
  for (const backend of backends) {
    const own = prefixOf(backend);
    within.set(
      backend,
      prefixes.filter((prefix) => prefix.length > own.length && prefix.startsWith(own)),
    );
  }
  return (backend, name) => within.get(backend)?.some((prefix) => name.startsWith(prefix)) ?? false;
}

/**
 * Renames until no two are the same. All that meet are renamed in one round, so their order has no say. Every rename gives an
 * unforeseen name; a backend that lists the names we would give next uses up one of its own with each round.
 */
function separate(claims: readonly Claim[]): void {
  // Whoever came to a name stays in its set, to keep others away, even when it has moved on.
  const visitors = new Map<string, Set<Claim>>();
  let contested = new Set<string>();
  const visit = (name: string, claim: Claim): void => {
    const others = visitors.get(name) ?? new Set();
    visitors.set(name, others.add(claim));
    if (others.size > 1) contested.add(name);
  };
  for (const claim of claims) {
    if (claim.firstChoice !== undefined) visit(claim.firstChoice, claim);
    if (claim.name !== undefined) visit(claim.name, claim);
  }
  for (let round = 0; contested.size > 0; round++) {
    const moving = [...contested].flatMap((name) => moversFrom(name, [...(visitors.get(name) ?? [])]));
    contested = new Set();
    for (const claim of moving) {
      rename(claim, round <= claims.length); // only what is one and the same gets further
      if (claim.name !== undefined) visit(claim.name, claim);
    }
  }
}

function moversFrom(name: string, visitors: readonly Claim[]): Claim[] {
  const here = visitors.filter((claim) => claim.name === name);
  const fixed = here.filter(({ isFixed }) => isFixed);
  return fixed.length === 1 ? here.filter(({ isFixed }) => !isFixed) : here;
}

function rename(claim: Claim, hasHope: boolean): void {
  const { candidate, exposed } = claim.named;
  claim.decidedBy = hasHope ? "conflict" : "shadowed";
  claim.name = hasHope ? hashedName(exposed as string, candidate, claim.attempts++) : undefined;
}

// MCP 2025-11-25, tools, names: letters, digits, `_`, `-`, `.`.
function legal(name: string): string {
  return name.replace(/[^A-Za-z0-9_.-]/g, "_");
}

function hashedName(name: string, { backend, original }: Candidate, attempt: number): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([backend, original, attempt]))
    .digest("hex")
    .slice(0, hashLength);
  return `${legal(name).slice(0, nameMax - hashLength - 2)}_-${hash}`;
}
