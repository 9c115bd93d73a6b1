// `vmcpctl get tools --changed` and `vmcpctl approve tools`: tools that are not what was approved, and their approval.
import { create, toJson } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { stringify } from "yaml";
import { ListToolsResponseSchema, type ToolDefinition } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { type Format, json, type Output } from "./output.ts";
import { age, plain, table } from "./table.ts";

export interface ChangedOptions {
  readonly connection: Connection;
  /** Only the tool that its backend calls this. */
  readonly name: string | undefined;
  readonly format: Format;
  readonly output: Output;
}

/** Returns the exit code: 1 when a named tool is not among them. */
export async function getChangedTools({ connection, name, format, output }: ChangedOptions): Promise<number> {
  const { tools } = await connection.admin.listTools({ changedOnly: true }, connection.deadline());
  const wanted = tools.filter(({ tool }) => name === undefined || tool === name);
  const document = toJson(ListToolsResponseSchema, create(ListToolsResponseSchema, { tools: wanted }));
  if (format === "json") output.data(json(document));
  else if (format === "yaml") output.data(stringify(document, { lineWidth: 0 }));
  else if (format === "name") output.data(wanted.map((tool) => `${nameOf(tool)}\n`).join(""));
  else {
    output.data(table(["BACKEND", "TOOL", "HASH", "SINCE", "WHAT CHANGED"], wanted.map(rowOf)));
    if (wanted.length > 0) output.note("-o yaml shows both definitions; approve tools accepts the new ones\n");
  }
  return name !== undefined && wanted.length === 0 ? exitCodes.failure : exitCodes.ok;
}

export interface ApproveOptions extends GlobalOptions {
  readonly all: boolean;
  /** What the hash of the one tool begins with that is approved. */
  readonly hash?: string | undefined;
  readonly reason: string;
}

/** Approves what is listed right now. Returns the exit code. */
export async function approveTools(
  { backend, names }: { readonly backend: string | undefined; readonly names: readonly string[] },
  { all, hash, reason, ...options }: ApproveOptions,
  output: Output,
): Promise<number> {
  if ((backend === undefined) !== all) throw new ExitError(exitCodes.usage, "say which tools: BACKEND [TOOL...], or --all");
  if (hash !== undefined && names.length !== 1) throw new ExitError(exitCodes.usage, "--hash goes with one tool");
  using connection = connect(options);
  const { tools } = await connection.admin.listTools({ changedOnly: true }, connection.deadline());
  const wanted = tools.filter(
    (one) => (backend === undefined || isOf(one, backend)) && (names.length === 0 || names.includes(one.tool)),
  );
  const missing = names.filter((name) => !wanted.some(({ tool }) => tool === name));
  if (missing.length > 0) throw new ExitError(exitCodes.failure, `nothing to approve of ${missing.map(plain).join(", ")}`);
  if (wanted.length === 0) {
    output.note("nothing to approve\n");
    return exitCodes.ok;
  }
  const other = wanted.find((tool) => hash !== undefined && !tool.hash.startsWith(hash));
  if (other) throw new ExitError(exitCodes.failure, `${plain(nameOf(other))} has hash ${other.hash} by now; look at it again`);
  const approvals = wanted.map(({ catalog, tool, hash }) => ({ catalog, tool, hash }));
  await connection.admin.approveTools({ approvals, reason }, connection.deadline());
  for (const tool of wanted) output.data(`${plain(nameOf(tool))} approved (${whatChanged(tool)})\n`);
  return exitCodes.ok;
}

function nameOf({ backend, tool }: ToolDefinition): string {
  return `${backend}/tools/${tool}`;
}

/** `groups/g/backends/b` by its whole name, as `g/b`, or as `b`. */
function isOf({ backend }: ToolDefinition, asked: string): boolean {
  const [, owner = "", , name = ""] = backend.split("/");
  return asked === backend || asked === `${owner}/${name}` || asked === name;
}

function rowOf(tool: ToolDefinition): string[] {
  const { backend, changeTime, hash } = tool;
  return [backend, tool.tool, hash.slice(0, 12), age(changeTime && timestampMs(changeTime), Date.now()), whatChanged(tool)];
}

/** Members that are not what was approved, as `description, inputSchema`. */
function whatChanged({ definition, approvedDefinition, approvedHash }: ToolDefinition): string {
  if (approvedHash === "") return "never approved";
  if (approvedDefinition === "") return "not known";
  const [before, after] = [approvedDefinition, definition].map((text) => JSON.parse(text) as Record<string, unknown>);
  const names = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})]);
  names.delete("_meta");
  const isOther = (name: string) => JSON.stringify(before?.[name]) !== JSON.stringify(after?.[name]);
  return [...names].filter(isOther).map(plain).join(", ") || "order of members";
}
