// `vmcpctl apply` and `vmcpctl diff`: files become what is declared.
import { toJson } from "@bufbuild/protobuf";
import { problemLine } from "../../control-plane/index.ts";
import {
  type ApplyResourcesResponse,
  ApplyResourcesResponseSchema,
  type ResourceChange,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { exitCodes } from "../exit-codes.ts";
import { isChange, summaryOf, writeActions, writeDiff } from "./changes.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { readDeclared, reportOf } from "./files.ts";
import type { Format, Output } from "./output.ts";
import { waitForProxies } from "./rollout.ts";
import { structured } from "./structured.ts";
import { plain } from "./table.ts";

export interface ApplyOptions extends GlobalOptions {
  readonly filename: readonly string[];
  readonly output: Format;
  readonly dryRun: boolean;
  /** Milliseconds; undefined: do not wait. */
  readonly wait: number | undefined;
  readonly reason: string;
}

/** Shows what would change, commits exactly that, and waits for the proxies. Returns the exit code. */
export async function apply(options: ApplyOptions, output: Output): Promise<number> {
  const { resources, warnings } = await readDeclared(options.filename);
  if (warnings.length > 0) output.note(`${reportOf(warnings)}\n`);
  using connection = connect(options);
  const call = connection.deadline();
  const planned = await connection.admin.applyResources({ resources: [...resources], validateOnly: true }, call);
  if (options.output === "table" && planned.changes.some(({ action }) => action === "update")) {
    writeDiff(
      planned.changes.filter(({ action }) => action === "update"),
      output,
    );
  }
  const reported = new Set(warnings.map(problemLine));
  if (options.dryRun) return finish({ response: planned, reported }, options, output);
  const sinceMs = Date.now();
  // With the etags of what was shown: if somebody else changed it meanwhile, that must be seen first.
  const etags = new Map(planned.changes.map(({ name, before }) => [name, before?.etag ?? ""]));
  const guarded = resources.map((resource) => ({ ...resource, etag: etags.get(resource.name) ?? "" }));
  const done = await connection.admin.applyResources({ resources: guarded, reason: options.reason }, connection.deadline());
  finish({ response: done, reported }, options, output);
  await settle({ connection, version: done.version, waitMs: options.wait, sinceMs, changes: done.changes, output });
  return exitCodes.ok;
}

export interface DiffOptions extends GlobalOptions {
  readonly filename: readonly string[];
}

/** Exit code 0 when nothing would change, 1 when something would; errors are 2 or more. */
export async function diff(options: DiffOptions, output: Output): Promise<number> {
  const { resources } = await readDeclared(options.filename);
  using connection = connect(options);
  const { changes } = await connection.admin.applyResources(
    { resources: [...resources], validateOnly: true },
    connection.deadline(),
  );
  writeDiff(changes, output);
  output.note(`${summaryOf(changes)}\n`);
  return changes.some(isChange) ? 1 : 0;
}

export interface SettleOptions {
  readonly connection: Connection;
  readonly version: string;
  readonly waitMs: number | undefined;
  readonly sinceMs: number;
  readonly changes: readonly ResourceChange[];
  readonly output: Output;
}

/** Waits for the proxies, when something changed and waiting is wanted. */
export async function settle({ connection, version, waitMs, sinceMs, changes, output }: SettleOptions): Promise<void> {
  if (waitMs === undefined || !changes.some(isChange)) return;
  await waitForProxies({ connection, version, timeoutMs: waitMs, sinceMs, output });
}

/** `reported`: warnings that were shown already, with their place in the file. */
function finish(
  { response, reported }: { response: ApplyResourcesResponse; reported: ReadonlySet<string> },
  { output: format, dryRun }: ApplyOptions,
  output: Output,
): number {
  const { changes, version } = response;
  for (const warning of response.warnings) if (!reported.has(warning)) output.note(`warning: ${plain(warning)}\n`);
  if (format === "json" || format === "yaml") output.data(structured(format, toJson(ApplyResourcesResponseSchema, response)));
  else if (format === "name")
    output.data(
      changes
        .filter(isChange)
        .map(({ name }) => `${name}\n`)
        .join(""),
    );
  else {
    writeActions(changes, { output, dryRun });
    output.note(`${summaryOf(changes)}${dryRun ? "" : `; ${version}`}\n`);
  }
  return exitCodes.ok;
}
