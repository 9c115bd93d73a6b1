// `vmcpctl analyze`: what is wrong, unused or not safe, in files, in what is declared, and in what proxies report.
import {
  analyze as analyzeResources,
  type FindingSeverity,
  findingCodes,
  formatPath,
  type Place,
} from "../../control-plane/index.ts";
import { FindingSeverity as Severity } from "../../proto/gen/vmcp/admin/v1/analyze_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { connect, type GlobalOptions } from "./connection.ts";
import { type Declared, readDeclared } from "./files.ts";
import type { Format, Output } from "./output.ts";
import { structured } from "./structured.ts";
import { plain, table } from "./table.ts";

export interface AnalyzeOptions extends GlobalOptions {
  /** Undefined: only what is declared. */
  readonly filename?: readonly string[] | undefined;
  /** Look at the files alone. */
  readonly offline: boolean;
  readonly output: Format;
  /** `CODE=name of a resource`, where `*` stands for anything. */
  readonly suppress: readonly string[];
  /** Findings at least so bad are exit code 79. */
  readonly failOn: FindingSeverity | "never";
  /** Show what each code means, and look at nothing. */
  readonly codes: boolean;
}

/** Returns the exit code: 79 when something is found that is bad enough. */
export async function analyze(options: AnalyzeOptions, output: Output): Promise<number> {
  const { filename, offline, output: format, failOn } = options;
  if (options.codes) return listCodes(output);
  const isSuppressed = suppression(options.suppress);
  if (offline && filename === undefined) throw new ExitError(exitCodes.usage, "--offline looks at files only: add -f");
  const files = filename && (await readDeclared(filename));
  const { findings: all, looked } = offline && files ? fromFiles(files) : await fromServer(options, files);
  const findings = all.filter((one) => !isSuppressed(one));
  if (format === "table") writeFindings(findings, output);
  else if (format === "name") output.data([...new Set(findings.map(({ resource }) => `${resource}\n`))].join(""));
  else output.data(structured(format, { findings }));
  output.note(`${summaryOf(findings)} in ${looked}${counted(all.length - findings.length, "suppressed")}\n`);
  const isBad = failOn !== "never" && findings.some(({ severity }) => ranks[severity] >= ranks[failOn]);
  return isBad ? exitCodes.findings : exitCodes.ok;
}

const ranks = { info: 1, warning: 2, error: 3 } as const satisfies Record<FindingSeverity, number>;

interface Finding {
  readonly code: string;
  readonly name: string;
  readonly severity: FindingSeverity;
  readonly resource: string;
  readonly path: string;
  /** `file:line:column`, of what stands in a file. */
  readonly place?: string | undefined;
  readonly message: string;
  readonly hint?: string | undefined;
}

interface Looked {
  readonly findings: readonly Finding[];
  readonly looked: string;
}

function fromFiles({ resources, locate }: Declared): Looked {
  const findings = analyzeResources(resources).map(({ path, resource, ...rest }) => ({
    ...rest,
    resource,
    path: formatPath(path),
    place: placeText(locate(resource, path)),
  }));
  return { findings, looked: counted(resources.length, "resource", "") };
}

async function fromServer(options: GlobalOptions, files: Declared | undefined): Promise<Looked> {
  using connection = connect(options);
  const request = { resources: [...(files?.resources ?? [])] };
  const { findings, resourceCount, proxies, leftOut } = await connection.admin.analyzeConfig(request, connection.deadline());
  const severityOf = (severity: Severity): FindingSeverity =>
    severity === Severity.ERROR ? "error" : severity === Severity.INFO ? "info" : "warning";
  return {
    findings: findings.map(({ code, name, severity, resource, path, message, hint }) => ({
      ...{ code, name, severity: severityOf(severity), resource, path, message },
      ...(hint !== "" && { hint }),
      place: placeText(files?.locate(resource, stepsOf(path))),
    })),
    looked: `${counted(resourceCount, "resource", "")} and the reports of ${proxies.length} ${proxies.length === 1 ? "proxy" : "proxies"}${counted(leftOut, "left out")}`,
  };
}

function writeFindings(findings: readonly Finding[], output: Output): void {
  for (const { code, name, severity, resource, path, place, message, hint } of findings) {
    const label = output.paint(colours[severity], `${severity.charAt(0).toUpperCase()}${severity.slice(1)}`);
    const where = [resource, path].filter((part) => part !== "").join(": ");
    output.data(
      `${code} ${label} ${name}  ${plain(where)}${place === undefined ? "" : `  (${plain(place)})`}\n  ${plain(message)}\n`,
    );
    if (hint !== undefined) output.data(`  = ${plain(hint)}\n`);
  }
}

const colours = { error: "red", warning: "yellow", info: "dim" } as const;

function listCodes(output: Output): number {
  const rows = Object.entries(findingCodes).map(([code, [severity, name, meaning]]) => [code, severity, name, meaning]);
  output.data(table(["CODE", "SEVERITY", "NAME", "MEANING"], rows));
  return exitCodes.ok;
}

function suppression(rules: readonly string[]): (finding: Finding) => boolean {
  const parsed = rules.map((rule) => {
    const [, code = "", name = ""] = /^(VMCP\d{4})=(.+)$/.exec(rule) ?? [];
    if (!Object.hasOwn(findingCodes, code))
      throw new ExitError(
        exitCodes.usage,
        `--suppress ${rule}: wanted CODE=NAME, such as VMCP0102=groups/old or VMCP0102=*; see --codes`,
      );
    const pattern = name
      .split("*")
      .map((part) => RegExp.escape(part))
      .join(".*");
    return { code, pattern: new RegExp(`^${pattern}$`) };
  });
  return ({ code, resource }) => parsed.some((rule) => rule.code === code && rule.pattern.test(resource));
}

function summaryOf(findings: readonly Finding[]): string {
  if (findings.length === 0) return "nothing found";
  const count = (wanted: FindingSeverity) => findings.filter(({ severity }) => severity === wanted).length;
  return `${counted(count("error"), "error", "")}, ${counted(count("warning"), "warning", "")}, ${count("info")} info`;
}

/** `, 2 suppressed`; nothing for none. With `before`: always, and in the plural. */
function counted(count: number, what: string, before?: string): string {
  if (before === undefined) return count === 0 ? "" : `, ${count} ${what}`;
  return `${before}${count} ${what}${count === 1 ? "" : "s"}`;
}

function placeText(place: Place | undefined): string | undefined {
  return place && `${place.file}:${place.line}:${place.column}`;
}

/** What `formatPath` wrote, read again. */
function stepsOf(path: string): (string | number)[] {
  return [...path.matchAll(/\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]|([\w-]+)/g)].map(([, index, quoted, word]) =>
    index !== undefined ? Number(index) : quoted !== undefined ? String(JSON.parse(quoted)) : (word ?? ""),
  );
}
