// The text of a configuration file → resources, and every problem with its place in the text.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { type Place, type Problem, printable } from "../resources/problems.ts";
import { type Declared, referenceProblems } from "../resources/references.ts";
import { namelessPrefix, readDocument } from "./documents.ts";
import { effectsOf } from "./effects.ts";
import { secretRanges } from "./masks.ts";
import { parseDocuments } from "./parse.ts";
import { indexLines, type Lines } from "./place.ts";
import type { Fault, Plain, Range } from "./plain.ts";
import { readText } from "./read-text.ts";

export interface LoadResult {
  /** In the order of the file; only those without errors of their own. Use them only when `problems` has no error. */
  readonly resources: Resource[];
  /** In the order of the file. Warnings and refusals name what has no effect in this version. */
  readonly problems: Problem[];
  /** Where something about a resource stands in the text: its value, or the nearest above it. Undefined when it is not of this text. */
  locate(resource: string, path: Problem["path"]): Place | undefined;
}

export interface LoadOptions {
  /** Name shown in problems. */
  readonly file: string;
  /** The text is a part of a larger set, as for `vmcpctl apply`: references to what it does not declare are not reported. */
  readonly partial?: boolean;
  /** Discovery may know groups and backends that are not declared: what is missing is no error. */
  readonly discovery?: boolean;
}

const problemsMax = 100; // nobody reads more, and each costs a look at its line

/** Never throws, and takes less than half a second for any input. Bytes must be UTF-8. */
export function loadConfig(input: string | Uint8Array, { file, partial = false, discovery = false }: LoadOptions): LoadResult {
  const { text, fault } = readText(input);
  if (fault !== undefined) {
    const hidden = secretRanges(text, []);
    const problem = printable(faultProblem(fault, file, indexLines(text, hidden), text, hidden));
    return { resources: [], problems: [problem], locate: () => undefined };
  }
  const { documents, faults } = parseDocuments(text);
  const masks = secretRanges(text, documents);
  const lines = indexLines(text, masks);
  const placed = faults.map((found) => ({ problem: faultProblem(found, file, lines, text, masks), start: found.range.start }));
  if (documents.length === 0 && faults.length === 0)
    return {
      resources: [],
      problems: [{ severity: "error", ...emptyText, path: [], place: lines.place(file, { start: 0, end: 1 }) }],
      locate: () => undefined,
    };

  const resources: Resource[] = [];
  const declared: Declared[] = [];
  const owners = new Map<string, Plain>();
  const faulty = new Set<Plain>();
  const found: { problem: Problem; range: Range }[] = [];
  for (const plain of documents) {
    const result = readDocument(plain);
    const errors = result.problems.some(({ severity }) => severity === "error");
    found.push(...result.problems.map((problem) => ({ problem, range: rangeOf(problem, plain) })));
    let isTwice = false;
    for (const { name, kind } of result.declared) {
      const before = owners.get(name);
      if (before !== undefined && before !== plain) {
        const line = lines.lineAt(before.root.start);
        const problem = {
          severity: "error",
          message: `${describe(name, kind)} is declared twice`,
          hint: `the first one begins on line ${line}`,
          resource: name,
          path: ["name"],
        } as const;
        found.push({ problem, range: rangeOf(problem, plain) });
        isTwice = true;
      } else owners.set(name, plain);
    }
    if (isTwice) continue;
    declared.push(...result.declared);
    if (errors) faulty.add(plain);
    else resources.push(...result.resources);
  }
  const discovered = discovery ? new Set<string>() : undefined;
  for (const problem of [...referenceProblems(declared, { isPartial: partial, discovered }), ...resources.flatMap(effectsOf)]) {
    const plain = owners.get(problem.resource ?? "");
    const path = plain === undefined ? problem.path : pathInDocument(problem, plain);
    // What a faulty declaration lacks may stand there, misread.
    if (plain === undefined || (problem.severity === "warning" && faulty.has(plain))) continue;
    found.push({ problem: { ...named(problem), path }, range: rangeOf({ ...problem, path }, plain) });
  }
  // A value that could not be read is missing for what follows.
  const unreadable = new Set(faults.map((fault) => fault.range.start));
  placed.push(
    ...found
      .filter(({ range }) => !unreadable.has(range.start))
      .map(({ problem, range }) => ({ problem: { ...problem, range }, start: range.start })),
  );
  const problems = placed.sort(inOrder).map(({ problem }) => problem);

  function locate(resource: string, path: Problem["path"]): Place | undefined {
    const plain = owners.get(resource);
    if (plain === undefined) return undefined;
    const problem = { severity: "warning", message: "", resource, path } as const;
    return lines.place(file, rangeOf({ ...problem, path: pathInDocument(problem, plain) }, plain));
  }

  return { resources, problems: cut(problems, file, lines), locate };
}

const emptyText = {
  message: "the file declares nothing: it is empty or only comments",
  hint: "vmcp init writes a file to begin with",
};

function named(problem: Problem): Problem {
  const { resource, ...rest } = problem;
  return resource?.startsWith(namelessPrefix) ? rest : problem;
}

type Unplaced = Problem & { readonly range?: Range };

function inOrder(a: { start: number; problem: Problem }, b: { start: number; problem: Problem }): number {
  return a.start - b.start;
}

/** Errors first when not all can be shown. */
function cut(problems: readonly Unplaced[], file: string, lines: Lines): Problem[] {
  const errors = problems.filter(({ severity }) => severity === "error");
  const kept =
    problems.length <= problemsMax
      ? problems
      : [...errors, ...problems.filter(({ severity }) => severity !== "error")].slice(0, problemsMax);
  const shown: Problem[] = kept.map(({ range, ...problem }) =>
    printable(range === undefined ? problem : { ...problem, place: lines.place(file, range) }),
  );
  if (problems.length > problemsMax) {
    const severity = errors.length > problemsMax ? "error" : "warning";
    shown.push({
      severity,
      message: `and ${problems.length - problemsMax} more problems`,
      hint: "the first ones may be the cause of the others",
      path: [],
    });
  }
  return shown;
}

function faultProblem(fault: Fault, file: string, lines: Lines, text: string, masks: readonly Range[]): Problem {
  const hint =
    fault.other === undefined ? fault.hint : `the first one is on line ${lines.lineAt(fault.other.start)}; ${fault.hint}`;
  // A message of the YAML library may quote the text.
  const near = masks.filter(({ start, end }) => start <= fault.range.end && end >= fault.range.start && end - start > 2);
  const message = near.reduce((result, { start, end }) => result.replaceAll(text.slice(start, end), "***"), fault.message);
  return { severity: "error", message, ...(hint !== undefined && { hint }), path: [], place: lines.place(file, fault.range) };
}

function describe(name: string, kind: Declared["kind"]): string {
  const words = {
    group: "group",
    backend: "backend",
    virtualServer: "virtual server",
    authPolicy: "auth policy",
    revocation: "revocation",
  };
  return `${words[kind]} ${JSON.stringify(name.split("/").at(-1))}`;
}

/** The backends of a group's document are resources of their own, whose paths begin at their entry. */
function pathInDocument({ resource = "", path }: Problem, plain: Plain): Problem["path"] {
  const value = plain.value as { kind?: unknown; backends?: unknown };
  if (value.kind !== "Group" || !resource.includes("/backends/")) return path;
  const list = value.backends as { name?: unknown }[];
  const index = list.findIndex((entry) => entry?.name === resource.split("/").at(-1));
  return ["backends", index, ...path];
}

/** The value when it is one word, else its key; for what is missing, the key of the map that misses it. */
function rangeOf({ path, onKey = false }: Problem, plain: Plain): Range {
  for (let length = path.length; length > 0; length--) {
    const spot = plain.spot(path.slice(0, length));
    if (spot === undefined) continue;
    const isWhole = length === path.length;
    if (spot.key === undefined) return spot.value;
    return isWhole && !onKey && spot.isScalar ? spot.value : spot.key;
  }
  return { start: plain.root.start, end: plain.root.start + 1 };
}
