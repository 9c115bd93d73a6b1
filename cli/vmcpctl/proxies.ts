// `vmcpctl proxy status`: which proxy runs what, and what it refused.
import { create, toJson } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { stringify } from "yaml";
import {
  ListProxiesResponseSchema,
  type Proxy as ProxyRow,
  ProxySchema,
  ProxyState,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ConfigSource } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { isUsable } from "./backends.ts";
import type { Connection } from "./connection.ts";
import { nackText, refusalTypes } from "./nack.ts";
import { type Format, json, type Output } from "./output.ts";
import { type FailOn, failOns, isHeard, painted, stateText } from "./proxy-states.ts";
import { age, plainLines, table } from "./table.ts";

export interface ProxyStatusOptions {
  readonly connection: Connection;
  /** Id of one; undefined: all. */
  readonly name: string | undefined;
  readonly format: Format;
  readonly output: Output;
  /** What makes the exit code 79. Default: nothing. */
  readonly failOn?: readonly FailOn[];
}

/** Returns the exit code. */
export async function proxyStatus({ connection, name, format, output, failOn = [] }: ProxyStatusOptions): Promise<number> {
  const listed = await connection.admin.listProxies({}, connection.deadline());
  const proxies = listed.proxies.filter(({ node }) => name === undefined || node?.id === name);
  if (name !== undefined && proxies.length === 0) throw new ExitError(exitCodes.failure, `no proxy "${name}" has connected`);
  const failing = failOn.flatMap((one) => failOns[one]);
  const exitCode = proxies.some(({ state }) => failing.includes(state)) ? exitCodes.findings : exitCodes.ok;
  if (format === "table") {
    output.data(painted(proxyTable(proxies, Date.now()), output));
    const refusals = proxies.filter(({ lastNack, state }) => lastNack !== undefined && state !== ProxyState.SYNCED);
    for (const proxy of refusals) output.data(`\n${output.paint("red", plainLines(nackText(proxy)))}\n`);
    for (const { node, warnings } of proxies)
      for (const warning of warnings) output.note(plainLines(`${node?.id}: warning: ${warning}\n`));
    for (const { id, live, heardTime } of listed.controlPlanes)
      if (!live)
        output.note(
          plainLines(`control plane ${id} is gone: last heard of ${age(heardTime && ms(heardTime), Date.now())} ago\n`),
        );
    return exitCode;
  }
  const [first] = proxies;
  const single = name !== undefined && first !== undefined;
  const value = single
    ? toJson(ProxySchema, first, { registry: refusalTypes })
    : toJson(ListProxiesResponseSchema, create(ListProxiesResponseSchema, { ...listed, proxies }), { registry: refusalTypes });
  if (format === "name") output.data(proxies.map(({ node }) => `proxies/${node?.id}\n`).join(""));
  else output.data(format === "json" ? json(value) : stringify(value, { lineWidth: 0 }));
  return exitCode;
}

/** One line per proxy, and a line that counts. */
export function proxyTable(proxies: readonly ProxyRow[], nowMs: number): string {
  const rows = proxies.map((proxy) => [
    proxy.node?.id ?? "",
    proxy.node?.address ?? "",
    stateText(proxy),
    proxy.liveVersion,
    proxy.targetVersion,
    ackedOf(proxy, nowMs),
    sourceOf(proxy),
    String(proxy.activeSessions),
    backendsOf(proxy),
    proxy.controlPlane,
    proxy.node?.softwareVersion ?? "",
  ]);
  return table(["NAME", "ADDRESS", "STATE", "LIVE", "TARGET", "ACKED", "SOURCE", "SESSIONS", "BACKENDS", "CP", "VERSION"], rows);
}

// When, and how long it took from the push.
function ackedOf({ ackTime, ackMillis }: ProxyRow, nowMs: number): string {
  return ackTime === undefined ? "" : `${age(ms(ackTime), nowMs)} ago, ${ackMillis} ms`;
}

/** Where it has what it runs from. */
function sourceOf({ configSource }: ProxyRow): string {
  return sources[configSource] ?? "";
}

const sources: Partial<Record<ConfigSource, string>> = {
  [ConfigSource.NONE]: "none",
  [ConfigSource.CONTROL_PLANE]: "cp",
  [ConfigSource.DISK]: "disk",
  [ConfigSource.BOOTSTRAP]: "bootstrap",
};

function backendsOf({ backends, state }: ProxyRow): string {
  if (!isHeard({ state })) return "";
  return `${backends.filter(({ state }) => isUsable(state)).length}/${backends.length}`;
}

function ms(time: Timestamp): number {
  return timestampMs(time);
}
