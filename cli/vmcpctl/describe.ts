// `vmcpctl describe`: one thing with everything known about it.
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type BackendRow, backendRows } from "./backends.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { toYaml } from "./documents.ts";
import { isResourceKind, parseTarget } from "./kinds.ts";
import { find, listAll } from "./lookup.ts";
import type { Output } from "./output.ts";
import { discoveredResources, withDiscovered } from "./providers.ts";
import { proxyStatus } from "./proxies.ts";
import { backendTable } from "./resource-tables.ts";
import { plainLines, table } from "./table.ts";

export interface DescribeOptions extends GlobalOptions {
  readonly group?: string | undefined;
}

/** Returns the exit code. */
export async function describe(
  what: { kind: string; name: string | undefined },
  options: DescribeOptions,
  output: Output,
): Promise<number> {
  const { kind, name } = parseTarget(what.kind, what.name);
  if (name === undefined) throw new ExitError(exitCodes.usage, `say which: vmcpctl describe ${what.kind} NAME`);
  using connection = connect(options);
  if (kind === "proxies") return await proxyStatus({ connection, name, format: "yaml", output });
  if (!isResourceKind(kind)) throw new ExitError(exitCodes.usage, `use "vmcpctl get ${kind} ${name}"`);
  const { resources } = await find(connection, { kind, name, group: options.group });
  const [resource] = resources;
  if (resource === undefined) return exitCodes.failure;
  output.data(headerOf(resource));
  output.data(`\n${plainLines(toYaml([resource]))}`);
  output.data(await relationsOf(resource, connection));
  return exitCodes.ok;
}

function headerOf({ name, revision, etag, createTime, updateTime }: Resource): string {
  const rows: [string, string][] = [
    ["Name:", name],
    ["Revision:", `r${revision}`],
    ["Etag:", etag],
    ["Created:", createTime ? timestampDate(createTime).toISOString() : "-"],
    ["Updated:", updateTime ? timestampDate(updateTime).toISOString() : "-"],
  ];
  return rows.map(([key, value]) => `${key.padEnd(10)} ${value}\n`).join("");
}

/** What refers to it, and its backends as the proxies see them. */
async function relationsOf(resource: Resource, connection: Connection): Promise<string> {
  const { resources } = await listAll(connection, "");
  const { proxies } = await connection.admin.listProxies({}, connection.deadline());
  const rows = backendRows(withDiscovered(resources, await discoveredResources(connection)), proxies).filter(({ name }) =>
    belongs(name, resource),
  );
  const users = resources.filter((other) => refersTo(other, resource)).map(({ name }) => name);
  const used = users.length > 0 ? `\nUsed by:   ${users.join(", ")}\n` : "";
  if (rows.length === 0) return used;
  return `${used}\n${backendTable(rows)}${perProxy(rows)}`;
}

function perProxy(rows: readonly BackendRow[]): string {
  const cells = rows.flatMap(({ name, proxies }) =>
    proxies.map(({ proxy, state, listedWith, watched, error }) => [
      ...[name, proxy, state, listedWith],
      watched ? "yes" : "no",
      error,
    ]),
  );
  return cells.length === 0 ? "" : `\n${table(["BACKEND", "PROXY", "STATE", "LISTED WITH", "WATCHES", "ERROR"], cells)}`;
}

function belongs(backend: string, { name, spec }: Resource): boolean {
  if (backend === name || backend.startsWith(`${name}/backends/`)) return true;
  return (
    spec.case === "virtualServer" && spec.value.backends.length === 0 && backend.startsWith(`groups/${spec.value.groupRef}/`)
  );
}

function refersTo({ spec }: Resource, { name }: Resource): boolean {
  if (spec.case !== "virtualServer") return false;
  const { groupRef, authPolicyRef, backends } = spec.value;
  const group = backends.length === 0 ? `groups/${groupRef}` : undefined;
  return name === group || (group !== undefined && name.startsWith(`${group}/`)) || name === `authPolicies/${authPolicyRef}`;
}
