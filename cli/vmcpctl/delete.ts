// `vmcpctl delete`.
import { toJson } from "@bufbuild/protobuf";
import { DeleteResourceResponseSchema } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { settle } from "./apply.ts";
import { writeActions } from "./changes.ts";
import { connect, type GlobalOptions } from "./connection.ts";
import { parseResourceKind, parseTarget } from "./kinds.ts";
import { fullName } from "./lookup.ts";
import type { Format, Output } from "./output.ts";
import { structured } from "./structured.ts";

export interface DeleteOptions extends GlobalOptions {
  readonly output: Format;
  readonly group?: string | undefined;
  readonly force: boolean;
  readonly dryRun: boolean;
  /** Milliseconds; undefined: do not wait. */
  readonly wait: number | undefined;
}

/** Returns the exit code. */
export async function remove(
  what: { kind: string; name: string | undefined },
  options: DeleteOptions,
  output: Output,
): Promise<number> {
  const { kind, name } = parseTarget(what.kind, what.name);
  if (name === undefined) throw new ExitError(exitCodes.usage, `say which: vmcpctl delete ${what.kind} NAME`);
  using connection = connect(options);
  const full = await fullName(connection, { kind: parseResourceKind(kind), name, group: options.group });
  const sinceMs = Date.now();
  const { force, dryRun } = options;
  const response = await connection.admin.deleteResource({ name: full, force, validateOnly: dryRun }, connection.deadline());
  const { changes, version } = response;
  if (options.output === "json" || options.output === "yaml")
    output.data(structured(options.output, toJson(DeleteResourceResponseSchema, response)));
  else if (options.output === "name") output.data(changes.map((change) => `${change.name}\n`).join(""));
  else writeActions(changes, { output, dryRun });
  await settle({ connection, version, waitMs: dryRun ? undefined : options.wait, sinceMs, changes, output });
  return exitCodes.ok;
}
