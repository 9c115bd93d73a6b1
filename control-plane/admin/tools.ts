// The tools of backends, and which of their definitions are approved.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ApproveToolsRequest,
  type ListToolsRequest,
  type ToolDefinition,
  ToolDefinitionSchema,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { CatalogKeeper, KeptTool } from "../catalogs/keeper.ts";
import type { Caller } from "./caller.ts";
import { AdminError, type FieldViolation } from "./errors.ts";
import { invalid } from "./requests.ts";

const approvalsMax = 10_000;
const reasonCharactersMax = 1000;

export function listTools(catalogs: Pick<CatalogKeeper, "tools">, { changedOnly, backend }: ListToolsRequest): ToolDefinition[] {
  const wanted = ({ changedMs, backend: of }: KeptTool) =>
    (!changedOnly || changedMs !== undefined) && (backend === "" || of === backend);
  return catalogs.tools().filter(wanted).map(toDefinition);
}

/** Throws AdminError: INVALID_REQUEST, or TOOL_CHANGED when one is not what is listed by now; nothing is approved then. */
export async function approveTools(
  catalogs: Pick<CatalogKeeper, "approve">,
  { approvals, reason }: ApproveToolsRequest,
  caller: Caller,
): Promise<void> {
  const violations: FieldViolation[] = [];
  if (approvals.length === 0) violations.push({ field: "approvals", description: "names no tool" });
  if (approvals.length > approvalsMax) violations.push({ field: "approvals", description: `at most ${approvalsMax} at once` });
  if (reason.length > reasonCharactersMax)
    violations.push({ field: "reason", description: `at most ${reasonCharactersMax} characters` });
  if (violations.length > 0) throw invalid(violations);
  const by = { ...caller, method: "ApproveTools", reason: reason || "approve tools" };
  const missing = await catalogs.approve(approvals, by);
  if (missing.length === 0) return;
  const shown = missing.slice(0, 5).map(({ tool, catalog }) => `"${tool}" of ${catalog}`);
  const more = missing.length > shown.length ? ` and ${missing.length - shown.length} more` : "";
  throw new AdminError(
    "TOOL_CHANGED",
    `not listed with this definition any more: ${shown.join(", ")}${more}; look at them again`,
  );
}

function toDefinition({ changedMs, approvedDefinition = "", ...tool }: KeptTool): ToolDefinition {
  const changed = changedMs !== undefined;
  const changeTime = changed ? { changeTime: timestampFromMs(changedMs) } : {};
  return create(ToolDefinitionSchema, { ...tool, changed, ...changeTime, approvedDefinition });
}
