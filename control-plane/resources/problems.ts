// What is wrong with a declaration, and how a list of problems is shown to people and to machines.

/**
 * `error`: not valid. `warning`: valid, but not what it looks like. `refused`: valid, but this version would serve it
 * less protected than it is declared, so it must not be served.
 */
export type Severity = "error" | "warning" | "refused";

export interface Problem {
  readonly severity: Severity;
  /** What was seen and what was wanted; one sentence without a full stop. */
  readonly message: string;
  /** What to do about it. */
  readonly hint?: string;
  /** `virtualServers/<name>`, …; unset when the text could not be read so far. */
  readonly resource?: string;
  /** Keys and indices from the resource's spec down to the culprit; empty for the whole. */
  readonly path: readonly (string | number)[];
  /** The culprit is the last key of the path itself, not its value. */
  readonly onKey?: boolean;
  /** Something is named that is not declared. */
  readonly isReference?: boolean;
  /** Where in the text; unset for what did not come from a text. */
  readonly place?: Place;
}

export interface Place {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** From 1, in characters (code points), as editors count. */
  readonly column: number;
  /** The line as it may be shown: secrets masked, control characters made visible. */
  readonly source: string;
  /** Columns of a terminal before the culprit within `source`. */
  readonly indent: number;
  /** Columns of a terminal that the culprit takes; at least 1. */
  readonly width: number;
}

/** Whether any problem makes the declaration invalid. Warnings and refusals do not. */
export function hasErrors(problems: readonly Problem[]): boolean {
  return problems.some((problem) => problem.severity === "error");
}

/**
 * The same with control characters and direction overrides of messages written as escapes: problems quote what others
 * wrote, and are shown on terminals.
 */
export function printable(problem: Problem): Problem {
  const { message, hint } = problem;
  return { ...problem, message: escaped(message), ...(hint !== undefined && { hint: escaped(hint) }) };
}

function escaped(text: string): string {
  return text.replaceAll(/[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu, (char) => {
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

export interface ReportOptions {
  /** ANSI colours; default false. Every colour stands beside a word that says the same. */
  readonly colour?: boolean;
}

/** For people: each problem with its line and a pointer, then a count. Ends with a newline unless there are none. */
export function formatReport(problems: readonly Problem[], { colour = false }: ReportOptions = {}): string {
  if (problems.length === 0) return "";
  const blocks = problems.map((problem) => formatProblem(problem, colour));
  return `${blocks.join("\n")}\n${summary(problems)}\n`;
}

/** For machines: `{severity, file, line, column, path, message, hint}` with what is not known left out. */
export function problemToJson({ severity, message, hint, resource, path, place }: Problem): Record<string, unknown> {
  const position = place === undefined ? {} : { file: place.file, line: place.line, column: place.column };
  return {
    severity,
    ...position,
    ...(resource !== undefined && { resource }),
    path: [...path],
    message,
    ...(hint !== undefined && { hint }),
  };
}

/** `aggregation.tools[0].workload`; keys that are no plain words are quoted. */
export function formatPath(path: Problem["path"]): string {
  const steps = path.map((step) => {
    if (typeof step === "number") return `[${step}]`;
    return /^[\w-]+$/.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
  });
  return steps.join("").replace(/^\./, "");
}

const colours = { error: 31, warning: 33, refused: 35 } as const;

function formatProblem({ severity, message, hint, resource, path, place }: Problem, colour: boolean): string {
  const paint = (code: number, text: string) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text);
  const label = paint(colours[severity], severity);
  const hintLine = (indent: string) => (hint === undefined ? [] : [`${indent}${paint(36, "=")} ${hint}`]);
  if (place === undefined) {
    const where = [resource, formatPath(path)]
      .map((part) => part && escaped(part))
      .filter((part) => part !== undefined && part !== "")
      .join(": ");
    return [`${where === "" ? "" : `${where}: `}${label}: ${message}`, ...hintLine("  "), ""].join("\n");
  }
  const number = String(place.line);
  const gutter = " ".repeat(number.length);
  const pointer = paint(colours[severity], "^".repeat(place.width));
  return [
    `${paint(1, `${escaped(place.file)}:${place.line}:${place.column}`)}: ${label}: ${message}`,
    `  ${number} | ${place.source}`.trimEnd(),
    `  ${gutter} | ${" ".repeat(place.indent)}${pointer}`,
    ...hintLine(`  ${gutter} `),
    "",
  ].join("\n");
}

function summary(problems: readonly Problem[]): string {
  const counts = { error: 0, warning: 0, refused: 0 };
  for (const { severity } of problems) counts[severity]++;
  const plural = (count: number, word: string) => (count === 0 ? [] : [`${count} ${word}${count === 1 ? "" : "s"}`]);
  return [...plural(counts.error, "error"), ...plural(counts.refused, "refusal"), ...plural(counts.warning, "warning")].join(
    ", ",
  );
}
