// `vmcpctl version`.
import { softwareVersion } from "../../common/version.ts";
import { exitCodes } from "../exit-codes.ts";
import { connect, type GlobalOptions } from "./connection.ts";
import type { Output } from "./output.ts";

/** Our own version first, so that it shows when no control plane answers. Returns the exit code. */
export async function serverVersion(options: GlobalOptions, output: Output): Promise<number> {
  output.data(`vmcpctl ${softwareVersion} (node ${process.versions.node})\n`);
  using connection = connect(options);
  const {
    softwareVersion: theirs,
    revision,
    targetVersion,
    storeUid,
    readOnlyReason,
  } = await connection.admin.getServerInfo({}, connection.deadline());
  output.data(
    `control plane ${theirs} at ${options.server}: revision ${revision}, snapshot ${targetVersion}, store ${storeUid}\n`,
  );
  if (readOnlyReason !== "") output.data(`read-only: ${readOnlyReason}\n`);
  return exitCodes.ok;
}
