// What a schema found wrong, as problems: what was seen, what was wanted, and what was probably meant.
import type { z } from "zod";
import { didYouMean, nearest } from "./nearest.ts";
import type { Problem } from "./problems.ts";
import type { Path } from "./schema/fields.ts";
import { isSecretPath } from "./secrets.ts";

// Looking for what was meant costs time, and nobody reads more.
const explainedMax = 200;

export interface Explained {
  readonly problems: readonly Problem[];
  /** Whether a mistyped key stands where the key of this path is missing: then one report is enough. */
  isMeant(path: Path): boolean;
}

/** `input` is what was parsed. */
export function explain(issues: readonly z.core.$ZodIssue[], input: unknown): Explained {
  const meantPaths = new Set<string>();
  const isMeant = (path: Path) => meantPaths.has(JSON.stringify(path));
  const problems: { problem: Problem; isMissing: boolean }[] = [];
  for (const issue of issues.slice(0, explainedMax)) {
    const path = issue.path as Path;
    if (issue.code === "unrecognized_keys") {
      const known = issue.message.split(" ");
      for (const key of issue.keys.slice(0, explainedMax)) {
        const meant = nearest(key, known);
        if (meant !== undefined) meantPaths.add(JSON.stringify([...path, meant]));
        problems.push({ problem: unknownKey([...path, key], key, known), isMissing: false });
      }
    } else if (issue.code === "invalid_key") {
      const key = String(path.at(-1));
      const wanted = issue.issues[0]?.message ?? "another key";
      problems.push({
        problem: { severity: "error", message: `found the key ${show(key)}, wanted ${wanted}`, path, onKey: true },
        isMissing: false,
      });
    } else {
      const seen = valueAt(input, path);
      const isMissing = seen === undefined && typeof path.at(-1) === "string";
      problems.push({ problem: isMissing ? missing(path, issue) : wrong(path, seen, issue), isMissing });
    }
  }
  const told = problems.filter(({ problem, isMissing }) => !(isMissing && isMeant(problem.path)));
  return { problems: told.map(({ problem }) => problem), isMeant };
}

function unknownKey(path: Path, key: string, known: readonly string[]): Problem {
  const hint = didYouMean(key, known) ?? `known here: ${known.join(", ")}`;
  return { severity: "error", message: `unknown key ${show(key)}`, hint, path, onKey: true };
}

function missing(path: Path, issue: z.core.$ZodIssue): Problem {
  return { severity: "error", message: `key ${show(path.at(-1))} is missing`, hint: `wanted ${issue.message}`, path };
}

function wrong(path: Path, seen: unknown, issue: z.core.$ZodIssue): Problem {
  const shown = isSecretPath(path) && typeof seen !== "object" ? "a value that is not shown here" : describe(seen);
  const words = issue.code === "invalid_value" ? issue.values.map(String) : [];
  const hint = didYouMean(seen, words) ?? hintFor(seen, issue);
  return { severity: "error", message: `found ${shown}, wanted ${issue.message}`, ...(hint !== undefined && { hint }), path };
}

function hintFor(seen: unknown, issue: z.core.$ZodIssue): string | undefined {
  if (typeof seen === "number" && issue.message.startsWith("a duration"))
    return `numbers have no unit; write "${seen}s" for seconds`;
  if (issue.code !== "invalid_type" || typeof seen !== "string") return undefined;
  if (issue.expected === "boolean" && /^(yes|on|y|1|no|off|n|0|true|false)$/i.test(seen)) {
    return `write ${/^(yes|on|y|1|true)$/i.test(seen) ? "true" : "false"}, without quotes`;
  }
  if (issue.expected === "array" && !issue.message.includes(" maps")) return `write [${show(seen)}]`;
  return /^\d+$/.test(seen) ? "write the number without quotes" : undefined;
}

/** A value in a few words. */
function describe(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "object") return "a map";
  return typeof value === "string" ? show(value) : `the ${typeof value} ${String(value)}`;
}

const shownMax = 60;

function show(value: unknown): string {
  const text = String(value);
  const bare = text.replace(/(:\/\/)[^\s/@]{1,256}@/, "$1***@");
  return JSON.stringify(bare.length > shownMax ? `${bare.slice(0, shownMax)}…` : bare);
}

export function valueAt(input: unknown, path: Path): unknown {
  let value = input;
  for (const part of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Record<string | number, unknown>)[part];
  }
  return value;
}
