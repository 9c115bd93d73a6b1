// `vmcpctl audit`: who changed what, or tried to, and whether that is what was written.
import { toJson } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import {
  type AuditEvent,
  AuditEventSchema,
  ListAuditEventsResponseSchema,
  VerifyAuditResponseSchema,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { exitCodes } from "../exit-codes.ts";
import { connect, type GlobalOptions } from "./connection.ts";
import type { Format, Output } from "./output.ts";
import { structured } from "./structured.ts";
import { plain, table } from "./table.ts";

const pageSize = 500;

export interface AuditListOptions extends GlobalOptions {
  readonly output: Format;
  /** At most so many, 1 to 1000. */
  readonly limit: number;
}

/** The newest lines first. Returns the exit code. */
export async function listAudit(options: AuditListOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const listed = await connection.admin.listAuditEvents({ pageSize: options.limit }, connection.deadline());
  const { events, nextPageToken } = listed;
  if (options.output === "name") output.data(events.map(({ id }) => `${id}\n`).join(""));
  else if (options.output === "json" || options.output === "yaml")
    output.data(structured(options.output, toJson(ListAuditEventsResponseSchema, listed)));
  else output.data(auditTable(events));
  if (nextPageToken !== "") output.note(`there are older ones than these ${events.length}; see --limit or audit export\n`);
  return exitCodes.ok;
}

export interface AuditVerifyOptions extends GlobalOptions {
  readonly output: Format;
}

/** Exit code 1 when something is wrong with the trail. */
export async function verifyAudit(options: AuditVerifyOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const verdict = await connection.admin.verifyAudit({}, connection.deadline());
  const { firstId, lastId, lastHash, fault } = verdict;
  if (options.output === "json" || options.output === "yaml")
    output.data(structured(options.output, toJson(VerifyAuditResponseSchema, verdict)));
  else if (fault !== "") output.data(`${output.paint("red", "broken")}: ${plain(fault)}\n`);
  else if (lastId === 0n) output.data("nothing was written yet\n");
  else output.data(`${output.paint("green", "whole")}: lines ${firstId} to ${lastId}, the last is ${lastHash}\n`);
  return fault === "" ? exitCodes.ok : exitCodes.failure;
}

/** Everything that is kept, oldest first, a line of JSON each. Returns the exit code. */
export async function exportAudit(options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  for (let pageToken = ""; ; ) {
    const request = { pageSize, pageToken, oldestFirst: true };
    const { events, nextPageToken } = await connection.admin.listAuditEvents(request, connection.deadline());
    output.data(events.map((event) => `${JSON.stringify(toJson(AuditEventSchema, event))}\n`).join(""));
    if (nextPageToken === "") return exitCodes.ok;
    pageToken = nextPageToken;
  }
}

function auditTable(events: readonly AuditEvent[]): string {
  const rows = events.map(({ id, time, actor, method, decision, code, revision, targets, targetCount, reason }) => [
    String(id),
    time ? new Date(timestampMs(time)).toISOString().slice(0, 19) : "",
    actor,
    method,
    decision === "allowed" ? decision : `${decision} ${code}`,
    revision === 0n ? "" : `r${revision}`,
    targetCount > 1 ? `${targets[0]} +${targetCount - 1}` : (targets[0] ?? ""),
    reason,
  ]);
  return table(["ID", "TIME (UTC)", "ACTOR", "METHOD", "DECISION", "REVISION", "TARGET", "REASON"], rows);
}
