// `vmcpctl apply` and `vmcpctl diff`: files become what is declared.
import { toJson } from "@bufbuild/protobuf";
import { problemLine } from "../../control-plane/index.ts";
import {
  type ApplyResourcesResponse,
  ApplyResourcesResponseSchema,
  type ResourceChange,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { type DiffResourcesResponse, DiffResourcesResponseSchema } from "../../proto/gen/vmcp/admin/v1/diff_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { isChange, writeActions } from "./changes.ts";
import { confirm } from "./confirm.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { effectOf, writeDiffs } from "./diffs.ts";
import { type Declared, readDeclared, reportOf } from "./files.ts";
import type { Format, Output } from "./output.ts";
import { waitForProxies } from "./rollout.ts";
import { structured } from "./structured.ts";
import { plain } from "./table.ts";

export interface ApplyOptions extends GlobalOptions {
  readonly filename: readonly string[];
  readonly output: Format;
  /** Delete what the files do not declare. */
  readonly prune: boolean;
  readonly dryRun: boolean;
  /** Do not ask. */
  readonly yes: boolean;
  /** Milliseconds; undefined: do not wait. */
  readonly wait: number | undefined;
  readonly reason: string;
}

/** Shows what would change, commits exactly that, and waits for the proxies. Returns the exit code. */
export async function apply(options: ApplyOptions, output: Output): Promise<number> {
  const { prune, dryRun, reason } = options;
  const { resources, warnings } = await readDeclared(options.filename);
  if (warnings.length > 0) output.note(`${reportOf(warnings)}\n`);
  using connection = connect(options);
  const planned = await planOf(connection, { resources, prune });
  const changes = planned.diffs.filter(isChange);
  // What is created stands in the files, and what is deleted is named below.
  if (options.output === "table")
    writeDiffs(
      changes.filter(({ action }) => action === "update"),
      output,
    );
  const told = new Set(warnings.map(problemLine));
  for (const warning of planned.warnings) if (!told.has(warning)) output.note(`warning: ${plain(warning)}\n`);
  output.note(`${effectOf(planned)}\n`);
  if (dryRun) return finish(undefined, planned, options, output);
  await agree(planned, options);
  const sinceMs = Date.now();
  const done = await connection.admin.applyResources(
    { resources: guarded(resources, planned), reason, prune, ...guard(planned, prune) },
    connection.deadline(),
  );
  finish(done, planned, options, output);
  await settle({ connection, version: done.version, waitMs: options.wait, sinceMs, changes: done.changes, output });
  return exitCodes.ok;
}

export interface DiffOptions extends GlobalOptions {
  readonly filename: readonly string[];
  readonly output: Format;
  readonly prune: boolean;
}

/** Exit code 0 when nothing would change, 1 when something would; errors are 2 or more. */
export async function diff({ filename, prune, output: format, ...globals }: DiffOptions, output: Output): Promise<number> {
  const { resources } = await readDeclared(filename);
  using connection = connect(globals);
  const planned = await planOf(connection, { resources, prune });
  const changes = planned.diffs.filter(isChange);
  if (format === "name") output.data(changes.map(({ name }) => `${name}\n`).join(""));
  else if (format !== "table") output.data(structured(format, toJson(DiffResourcesResponseSchema, planned)));
  else writeDiffs(changes, output);
  output.note(`${effectOf(planned)}\n`);
  return changes.length > 0 ? 1 : 0;
}

type Wanted = Pick<Declared, "resources"> & { readonly prune: boolean };

function planOf({ admin, deadline }: Connection, { resources, prune }: Wanted): Promise<DiffResourcesResponse> {
  return admin.diffResources({ resources: [...resources], prune }, deadline());
}

/** With the etags of what was shown: if somebody else changed it meanwhile, that must be seen first. */
function guarded(resources: Declared["resources"], { diffs }: DiffResourcesResponse): Declared["resources"][number][] {
  const etags = new Map(diffs.map(({ name, etag }) => [name, etag]));
  return resources.map((resource) => ({ ...resource, etag: etags.get(resource.name) ?? "" }));
}

/** What is deleted for not being in the files is known for one revision only. */
function guard({ revision }: DiffResourcesResponse, prune: boolean) {
  return prune ? { expectedRevision: revision } : {};
}

/** Where a person can be asked, he is; else only what takes something away wants --yes. Throws ExitError. */
async function agree(planned: DiffResourcesResponse, { yes }: Pick<ApplyOptions, "yes">): Promise<void> {
  const changes = planned.diffs.filter(isChange);
  if (yes || changes.length === 0) return;
  const isAsked = process.stdin.isTTY && process.stderr.isTTY;
  const deletes = changes.filter(({ action }) => action === "delete").length;
  if (!isAsked && deletes === 0) return;
  if (!isAsked) throw new ExitError(exitCodes.usage, `this deletes ${deletes}, and nobody can be asked here: add --yes`);
  if (!(await confirm("apply this?"))) throw new ExitError(exitCodes.failure, "nothing was changed");
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

/** `done` is undefined for a dry run. */
function finish(
  done: ApplyResourcesResponse | undefined,
  planned: DiffResourcesResponse,
  { output: format }: Pick<ApplyOptions, "output">,
  output: Output,
): number {
  const changes = done?.changes ?? planned.diffs;
  if (format === "json" || format === "yaml") {
    const json = done ? toJson(ApplyResourcesResponseSchema, done) : toJson(DiffResourcesResponseSchema, planned);
    output.data(structured(format, json));
  } else if (format === "name")
    output.data(
      changes
        .filter(isChange)
        .map(({ name }) => `${name}\n`)
        .join(""),
    );
  else writeActions(changes, { output, dryRun: done === undefined });
  if (done) output.note(`${done.version}\n`);
  return exitCodes.ok;
}
