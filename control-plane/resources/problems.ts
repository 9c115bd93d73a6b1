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
