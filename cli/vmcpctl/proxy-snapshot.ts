// `vmcpctl proxy describe` and `vmcpctl proxy diff`: what a proxy runs, and what it would get.
import { toJson } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import type { Proxy as ProxyRow } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { type FetchSnapshotResponse, FetchSnapshotResponseSchema } from "../../proto/gen/vmcp/admin/v1/snapshot_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { writeDiffs } from "./diffs.ts";
import { nackText } from "./nack.ts";
import type { Format, Output } from "./output.ts";
import { stateText } from "./proxy-states.ts";
import { structured } from "./structured.ts";
import { plain, plainLines, table } from "./table.ts";

export interface ProxyOptions extends GlobalOptions {
  readonly output: Format;
}

/** Exit code 0 when it runs what it should, 1 when that differs; errors are 2 or more. */
export async function proxyDiff(name: string, { output: format, ...globals }: ProxyOptions, output: Output): Promise<number> {
  using connection = connect(globals);
  const found = await connection.admin.fetchSnapshot({ proxy: name }, connection.deadline());
  const { diffs, liveVersion, targetVersion, isLiveKnown } = found;
  if (!isLiveKnown) throw new ExitError(exitCodes.failure, `what ${liveVersion} holds is not known any more`);
  if (format === "name") output.data(diffs.map((one) => `${one.name}\n`).join(""));
  else if (format !== "table") output.data(structured(format, toJson(FetchSnapshotResponseSchema, { ...found, resources: [] })));
  else writeDiffs(diffs, output);
  output.note(`${plain(name)} runs ${liveVersion || "nothing"}, and should run ${targetVersion}: ${differing(diffs.length)}\n`);
  return diffs.length === 0 ? exitCodes.ok : 1;
}

/** Returns the exit code. */
export async function proxyDescribe(name: string, { output: format, ...globals }: ProxyOptions, output: Output): Promise<number> {
  using connection = connect(globals);
  const found = await connection.admin.fetchSnapshot({ proxy: name }, connection.deadline());
  if (format === "name") output.data(found.resources.map((one) => `${one.name}\n`).join(""));
  else if (format !== "table") output.data(structured(format, toJson(FetchSnapshotResponseSchema, found)));
  else await writeDescription(await rowOf(connection, name), found, output);
  return exitCodes.ok;
}

async function rowOf(connection: Connection, name: string): Promise<ProxyRow> {
  const { proxies } = await connection.admin.listProxies({}, connection.deadline());
  const row = proxies.find(({ node }) => node?.id === name);
  if (row === undefined) throw new ExitError(exitCodes.failure, `no proxy "${name}" has connected`);
  return row;
}

async function writeDescription(row: ProxyRow, found: FetchSnapshotResponse, output: Output): Promise<void> {
  const { node, liveVersion, ackTime, ackMillis, activeSessions, controlPlane, backends, lastNack, warnings } = row;
  const { diffs, isLiveKnown, targetVersion, version, resources } = found;
  const labels = Object.entries(node?.labels ?? {}).map(([key, value]) => `${key}=${value}`);
  const lines: [string, string][] = [
    ["Name:", node?.id ?? ""],
    ["Instance:", node?.instanceId ?? ""],
    ["Address:", node?.address ?? ""],
    ["Version:", node?.softwareVersion ?? ""],
    ["Labels:", labels.join(", ")],
    ["State:", stateText(row)],
    ["Control plane:", controlPlane],
    ["Connected:", timeText(row.connectTime)],
    ["Runs:", liveVersion],
    ["Is given:", version],
    ["Should run:", targetVersion],
    ["Differs in:", isLiveKnown ? differing(diffs.length) : "not known any more"],
    ["Acknowledged:", ackTime ? `${timeText(ackTime)}, after ${ackMillis} ms` : ""],
    ["Sessions:", String(activeSessions)],
  ];
  output.data(lines.map(([key, value]) => `${key.padEnd(14)} ${plain(value) || "-"}\n`).join(""));
  output.data(
    `\n${table(
      ["RESOURCE", "KIND", "DIGEST"],
      resources.map(({ name, type, digest }) => [name, type.split(".").at(-1) ?? "", digest.slice(0, 12)]),
    )}`,
  );
  const rows = backends.map(({ name, state, tools, listedWith, error }) => [name, state, String(tools), listedWith, error]);
  if (rows.length > 0) output.data(`\n${table(["BACKEND", "STATE", "TOOLS", "LISTED WITH", "ERROR"], rows)}`);
  if (lastNack) output.data(`\n${output.paint("red", plainLines(nackText(row)))}\n`);
  for (const warning of warnings) output.note(`warning: ${plain(warning)}\n`);
}

function differing(count: number): string {
  return count === 0 ? "nothing differs" : `${count} ${count === 1 ? "resource" : "resources"}`;
}

function timeText(time: Timestamp | undefined): string {
  return time ? timestampDate(time).toISOString() : "";
}
