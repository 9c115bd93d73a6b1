// Looks through everything that is declared, and what is seen of it, for what is wrong, unused, or not safe. Pure.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { compile } from "../compiler/compile.ts";
import { effectsOf } from "../config/effects.ts";
import { hasErrors, type Problem } from "../resources/problems.ts";
import { validateResources } from "../resources/validate.ts";
import { declaredFindings } from "./declared.ts";
import { type Finding, type FindingCode, finding } from "./findings.ts";
import { type Observed, observedFindings } from "./observed.ts";
import { indexServers } from "./servers.ts";

export interface AnalyzeOptions {
  /** What is there beside what is declared: the groups and backends of discovery. Undefined: it does not run. */
  readonly discovered?: readonly Resource[] | undefined;
  /** What connected proxies report. Undefined: nobody was asked. */
  readonly observed?: Observed | undefined;
}

/** Sorted by resource, then by code. */
export function analyze(declared: readonly Resource[], { discovered, observed }: AnalyzeOptions = {}): Finding[] {
  const groups = discovered?.flatMap(({ name, spec }) => (spec.case === "group" ? [name.slice("groups/".length)] : []));
  const problems = validateResources(declared, { discovered: groups && new Set(groups) });
  const present = new Set(declared.map(({ name }) => name));
  const all = [...declared, ...(discovered ?? []).filter(({ name }) => !present.has(name))];
  const servers = indexServers(all);
  const findings = [
    ...problems.map((problem) => fromProblem(problem, codeOf(problem))),
    ...declared
      .flatMap(effectsOf)
      .map((problem) => fromProblem(problem, problem.severity === "refused" ? "VMCP0002" : "VMCP0003")),
    // What is not valid need not compile.
    ...(hasErrors(problems) ? [] : compile(declared).warnings.map((problem) => fromProblem(problem, "VMCP0503"))),
    ...declaredFindings(servers, { declared, mayGrow: discovered !== undefined }),
    ...(observed ? observedFindings(servers, observed) : []),
  ];
  return findings.sort((a, b) => order(a).localeCompare(order(b), "en"));
}

function codeOf({ severity, isReference, message }: Problem): FindingCode {
  if (isReference) return "VMCP0101";
  if (severity === "error") return "VMCP0001";
  return message.includes("has no effect") ? "VMCP0003" : "VMCP0004";
}

function fromProblem({ message, hint, resource = "", path, severity }: Problem, code: FindingCode): Finding {
  return finding({ code, message, hint, resource, path, ...(severity === "warning" && { severity }) });
}

function order({ resource, code, path }: Finding): string {
  return [resource, code, path.join(".")].join("\0");
}
