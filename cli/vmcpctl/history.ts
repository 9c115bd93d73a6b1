// `vmcpctl rollout history` and `vmcpctl rollout undo`: what was committed, and the way back.
import { toJson } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import {
  GetRevisionResponseSchema,
  type ListRevisionsResponse,
  ListRevisionsResponseSchema,
  type Revision,
  RollbackResourcesResponseSchema,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { exitCodes } from "../exit-codes.ts";
import { settle } from "./apply.ts";
import { isChange, summaryOf, writeActions } from "./changes.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { writeChanges } from "./diffs.ts";
import type { Format, Output } from "./output.ts";
import { structured } from "./structured.ts";
import { age, plain, table } from "./table.ts";

export interface HistoryOptions extends GlobalOptions {
  readonly output: Format;
  /** Of this one, what it changed. */
  readonly revision?: bigint | undefined;
  /** At most so many, 1 to 1000. */
  readonly limit: number;
}

/** Returns the exit code. */
export async function history(options: HistoryOptions, output: Output): Promise<number> {
  using connection = connect(options);
  if (options.revision !== undefined) return await oneRevision(connection, options.revision, options.output, output);
  const listed = await connection.admin.listRevisions({ pageSize: options.limit }, connection.deadline());
  const { revisions, nextPageToken } = listed;
  if (options.output === "name") output.data(revisions.map(({ revision }) => `r${revision}\n`).join(""));
  else if (options.output === "table") output.data(revisionTable(listed, Date.now()));
  else output.data(structured(options.output, toJson(ListRevisionsResponseSchema, listed)));
  if (nextPageToken !== "") output.note(`there are older ones than these ${revisions.length}; see --limit\n`);
  return exitCodes.ok;
}

export interface UndoOptions extends GlobalOptions {
  readonly output: Format;
  /** Undefined: before the last change. */
  readonly toRevision?: bigint | undefined;
  readonly dryRun: boolean;
  readonly reason: string;
  /** Milliseconds; undefined: do not wait. */
  readonly wait: number | undefined;
}

/** Shows what would change, commits exactly that, and waits for the proxies. Returns the exit code. */
export async function undo(options: UndoOptions, output: Output): Promise<number> {
  const { toRevision = 0n, dryRun, reason } = options;
  using connection = connect(options);
  const planned = await connection.admin.rollbackResources(
    { revision: toRevision, validateOnly: true, reason },
    connection.deadline(),
  );
  if (options.output === "table") writeChanges(planned.changes, output);
  const sinceMs = Date.now();
  const done = dryRun
    ? planned
    : await connection.admin.rollbackResources(
        // As it was shown: if somebody else commits meanwhile, that must be seen first.
        {
          revision: planned.restoredRevision,
          expectedRevision: planned.changes.length > 0 ? planned.revision - 1n : planned.revision,
          reason,
        },
        connection.deadline(),
      );
  const { changes, version, restoredRevision, warnings } = done;
  for (const warning of warnings) output.note(`warning: ${plain(warning)}\n`);
  if (options.output === "name") output.data(changes.map(({ name }) => `${name}\n`).join(""));
  else if (options.output !== "table") output.data(structured(options.output, toJson(RollbackResourcesResponseSchema, done)));
  else {
    writeActions(changes, { output, dryRun });
    output.note(`back to r${restoredRevision}: ${summaryOf(changes)}${dryRun ? "" : `; ${version}`}\n`);
  }
  await settle({ connection, version, waitMs: dryRun ? undefined : options.wait, sinceMs, changes, output });
  return exitCodes.ok;
}

async function oneRevision(connection: Connection, revision: bigint, format: Format, output: Output): Promise<number> {
  const found = await connection.admin.getRevision({ revision }, connection.deadline());
  const changes = found.changes.filter(isChange);
  if (format === "name") output.data(changes.map(({ name }) => `${name}\n`).join(""));
  else if (format !== "table") output.data(structured(format, toJson(GetRevisionResponseSchema, found)));
  else {
    if (found.revision) output.data(headerOf(found.revision));
    writeChanges(changes, output);
  }
  return exitCodes.ok;
}

function headerOf({ revision, actor, reason, requestId, time }: Revision): string {
  const rows = [
    ["Revision:", `r${revision}`],
    ["Time:", time ? new Date(timestampMs(time)).toISOString() : "-"],
    ["Actor:", actor],
    ["Reason:", reason],
    ["Request:", requestId],
  ];
  return `${rows.map(([key = "", value = ""]) => `${key.padEnd(10)} ${plain(value) || "-"}\n`).join("")}\n`;
}

function revisionTable({ revisions }: ListRevisionsResponse, nowMs: number): string {
  const rows = revisions.map(({ revision, time, actor, changeCount, reason }) => [
    `r${revision}`,
    age(time && timestampMs(time), nowMs),
    actor,
    String(changeCount),
    reason,
  ]);
  return table(["REVISION", "AGE", "ACTOR", "CHANGES", "REASON"], rows);
}
