// Problems of declared resources as one line each, for those that came without a text to point into.
import { formatPath, type Problem } from "../resources/problems.ts";

/** Those that must not go into force: errors, and what would be served less protected than it is declared. */
export function blocking(problems: readonly Problem[]): Problem[] {
  return problems.filter(({ severity }) => severity !== "warning");
}

/** `virtualServers/dev.aggregation.tools[0].workload: message (hint)`. */
export function problemLine(problem: Problem): string {
  const field = fieldOf(problem);
  const hint = problem.hint === undefined ? "" : ` (${problem.hint})`;
  return `${field}${field === "" ? "" : ": "}${problem.message}${hint}`;
}

/** The resource and the path in its spec: `virtualServers/dev.aggregation.tools[0].workload`. */
export function fieldOf({ resource, path }: Problem): string {
  const inside = formatPath(path);
  if (resource === undefined || inside === "") return resource ?? inside;
  return `${resource}${inside.startsWith("[") ? "" : "."}${inside}`;
}
