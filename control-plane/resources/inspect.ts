// One declaration by itself: its shape, then the rules within it. Faults in the shape do not hide the rules, because
// the rules see what is left when everything faulty is taken out.
import type { z } from "zod";
import { type Explained, explain, valueAt } from "./explain.ts";
import type { Problem } from "./problems.ts";
import { type BackendPart, backendListRules, backendRules, backends } from "./schema/backends.ts";
import { groupName, type Path, plainName, type Say, section, within } from "./schema/fields.ts";
import { revocation, revocationRules } from "./schema/revocation.ts";
import { authPolicy, authRules, backend, group, virtualServer, virtualServerRules } from "./schema/virtual-server.ts";

export type SpecKind = "group" | "backend" | "virtualServer" | "authPolicy" | "revocation";

export interface Inspected extends Pick<Explained, "isMeant"> {
  readonly problems: readonly Problem[];
  /** Proto JSON, every value in its normal form; undefined when there are errors in the shape. */
  readonly json: z.core.util.JSONType | undefined;
  /** What is sound of it. */
  readonly part: unknown;
}

/** Any scalar of the text as it is written there, for keys that want text and got `1.10`. */
export type WrittenText = (path: Path) => string | undefined;

/** Kinds as files have them: with what the resource's name holds otherwise, and a group with its backends. */
export type DocumentKind = SpecKind | "groupDocument" | "backendDocument" | "policyDocument";

const kinds: Record<DocumentKind, { schema: z.ZodType; rules: (part: never, say: Say) => void }> = {
  group: { schema: group, rules: () => {} },
  backend: { schema: backend, rules: backendRules },
  virtualServer: { schema: virtualServer, rules: virtualServerRules },
  authPolicy: { schema: authPolicy, rules: authRules },
  revocation: { schema: revocation, rules: revocationRules },
  groupDocument: { schema: section({ name: groupName, ...group.shape, backends: backends.optional() }), rules: groupRules },
  backendDocument: { schema: section({ group: groupName, ...backend.shape }), rules: backendRules },
  policyDocument: { schema: section({ name: plainName, ...authPolicy.shape }), rules: authRules },
};

/** `input` is a spec as proto JSON, or as it stands in a file. */
export function inspect(kind: DocumentKind, input: unknown, writtenText: WrittenText = () => undefined): Inspected {
  const { schema, rules } = kinds[kind];
  let value = input;
  let parsed = schema.safeParse(value);
  if (!parsed.success) {
    value = repair(value, parsed.error.issues, writtenText);
    parsed = schema.safeParse(value);
  }
  const shape: Explained = parsed.success ? { problems: [], isMeant: () => false } : explain(parsed.error.issues, value);
  const part = parsed.success ? parsed.data : prune(value, parsed.error.issues);
  return {
    problems: [...shape.problems, ...ruleProblems(rules, part, shape)],
    isMeant: shape.isMeant,
    json: parsed.success ? (parsed.data as z.core.util.JSONType) : undefined,
    part,
  };
}

function groupRules({ backends: list }: { readonly backends?: readonly (BackendPart | undefined)[] }, say: Say): void {
  if (list !== undefined) backendListRules(list, within(say, "backends"));
}

function ruleProblems(rules: (part: never, say: Say) => void, part: unknown, shape: Explained): Problem[] {
  if (typeof part !== "object" || part === null) return [];
  const faulty = new Set(shape.problems.map((problem) => JSON.stringify(problem.path)));
  const problems: Problem[] = [];
  rules(part as never, (path, message, { hint, severity = "error", onKey = false } = {}) => {
    // What was taken out is missing now, and has been reported for what it was.
    const isKnown = path.some((_, index) => faulty.has(JSON.stringify(path.slice(0, index + 1)))) || faulty.has("[]");
    if (isKnown || shape.isMeant(path)) return;
    problems.push({ severity, message, ...(hint !== undefined && { hint }), path, ...(onKey && { onKey }) });
  });
  return problems;
}

// Their keys are names that somebody chose: one without a value is still meant to be there.
const mapsByName: ReadonlySet<unknown> = new Set([
  "backends",
  "overrides",
  "perWorkload",
  "metadata",
  "env",
  "headers",
  "customAttributes",
  "embeddingHeaders",
  "properties",
]);

/**
 * As Go's YAML reader has it: `1.10` where text is wanted is the text "1.10", a key without a value is not there, and an
 * entry of a map of texts without a value is the empty text.
 */
function repair(input: unknown, issues: readonly z.core.$ZodIssue[], writtenText: WrittenText): unknown {
  const value = structuredClone(input);
  for (const issue of issues) {
    const path = issue.path as Path;
    const seen = valueAt(value, path);
    const key = path.at(-1);
    const parent = valueAt(value, path.slice(0, -1)) as Record<string | number, unknown> | undefined;
    if (key === undefined || parent === undefined || issue.code === "unrecognized_keys") continue;
    const wantsText = issue.code === "invalid_type" && issue.expected === "string" && !/^a duration/.test(issue.message);
    const isEntry = mapsByName.has(path.at(-2));
    if (seen === null && isEntry && wantsText) parent[key] = "";
    else if (seen === null && !isEntry && !Array.isArray(parent)) delete parent[key];
    const isScalar = typeof seen === "number" || typeof seen === "boolean";
    const written = isScalar && wantsText ? writtenText(path) : undefined;
    if (written !== undefined) parent[key] = written;
  }
  return value;
}

function prune(input: unknown, issues: readonly z.core.$ZodIssue[]): unknown {
  const value = structuredClone(input);
  for (const issue of issues) {
    const path = issue.path as Path;
    if (issue.code === "unrecognized_keys") for (const key of issue.keys) remove(value, [...path, key]);
    else if (path.length === 0) return undefined;
    else remove(value, path);
  }
  return value;
}

// Entries of lists stay as undefined, so that the places of the others do not move.
function remove(value: unknown, path: Path): void {
  const parent = valueAt(value, path.slice(0, -1)) as Record<string | number, unknown> | undefined;
  const key = path.at(-1);
  if (typeof parent !== "object" || parent === null || key === undefined || !Object.hasOwn(parent, key)) return;
  if (Array.isArray(parent)) parent[key as number] = undefined;
  else delete parent[key];
}
