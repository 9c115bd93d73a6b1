// `vmcpctl rollout status`: how far the newest version has come, and what stopped it.
import { toJson } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { stringify } from "yaml";
import { type GetRolloutResponse, GetRolloutResponseSchema, RolloutState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { exitCodes } from "../exit-codes.ts";
import { connect, type GlobalOptions } from "./connection.ts";
import { nackText, refusalTypes } from "./nack.ts";
import { type Format, json, type Output } from "./output.ts";
import { age, plainLines, table } from "./table.ts";

export interface RolloutStatusOptions extends GlobalOptions {
  readonly output: Format;
}

/** Returns the exit code: 1 when some proxy refused it. */
export async function rolloutStatus({ output: format, ...globals }: RolloutStatusOptions, output: Output): Promise<number> {
  using connection = connect(globals);
  const rollout = await connection.admin.getRollout({}, connection.deadline());
  const value = toJson(GetRolloutResponseSchema, rollout, { registry: refusalTypes });
  if (format === "json") output.data(json(value));
  else if (format === "yaml") output.data(stringify(value, { lineWidth: 0 }));
  else if (format === "name") output.data(`rollouts/${rollout.targetVersion}\n`);
  else writeTable(rollout, output);
  return rollout.refused.length > 0 ? exitCodes.failure : exitCodes.ok;
}

function writeTable(rollout: GetRolloutResponse, output: Output): void {
  if (rollout.state === RolloutState.UNSPECIFIED) {
    output.note("nothing has been built yet\n");
    return;
  }
  output.data(rolloutTable(rollout, Date.now()));
  for (const proxy of rollout.refused) output.data(`\n${output.paint("red", plainLines(nackText(proxy)))}\n`);
  if (rollout.state === RolloutState.HALTED)
    output.note(`proxies that come get ${rollout.approvedVersion || "nothing"} until there is another revision\n`);
}

/** One line, and where it was tried. */
export function rolloutTable(rollout: GetRolloutResponse, nowMs: number): string {
  const { acknowledged, pending, held, refused } = rollout;
  const count = acknowledged + pending + held + refused.length;
  const row = [
    rollout.targetVersion,
    Object.entries(RolloutState).find(([, value]) => value === rollout.state)?.[0] ?? String(rollout.state),
    `${acknowledged}/${count}`,
    ...[pending, held, refused.length].map(String),
    acknowledged > 0 ? `${rollout.ackMillisP50}/${rollout.ackMillisP99} ms` : "",
    rollout.canaries.join(","),
    rollout.approvedVersion,
    ageOf(rollout.startTime, nowMs),
  ];
  return table(["VERSION", "STATE", "ACKED", "PENDING", "HELD", "REFUSED", "P50/P99", "CANARIES", "APPROVED", "AGE"], [row]);
}

function ageOf(time: Timestamp | undefined, nowMs: number): string {
  return time === undefined ? "" : age(timestampMs(time), nowMs);
}
