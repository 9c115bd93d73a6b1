// `vmcpctl get`: what is declared, and what came of it.
import { create, toJson } from "@bufbuild/protobuf";
import { ListResourcesResponseSchema } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { backendRows } from "./backends.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { toYaml } from "./documents.ts";
import { isResourceKind, parseTarget, type ResourceKind } from "./kinds.ts";
import { type Found, find, listAll } from "./lookup.ts";
import { type Format, json, type Output } from "./output.ts";
import { discoveredResources, getProviders, withDiscovered } from "./providers.ts";
import { proxyStatus } from "./proxies.ts";
import type { FailOn } from "./proxy-states.ts";
import { authPolicyTable, backendTable, groupTable, revocationTable, virtualServerTable } from "./resource-tables.ts";
import { getChangedTools } from "./tools.ts";
import { getView } from "./views.ts";

export interface GetOptions extends GlobalOptions {
  readonly output: Format;
  readonly group?: string | undefined;
  readonly virtualServer?: string | undefined;
  /** Of proxies. */
  readonly failOn?: readonly FailOn[] | undefined;
  /** Only tools that are not what was approved. */
  readonly changed?: boolean | undefined;
}

/** Returns the exit code. */
export async function get(
  what: { kind: string; name: string | undefined },
  options: GetOptions,
  output: Output,
): Promise<number> {
  const { kind, name } = parseTarget(what.kind, what.name);
  using connection = connect(options);
  if (kind === "proxies") {
    return await proxyStatus({ connection, name, format: options.output, output, failOn: options.failOn ?? [] });
  }
  if (kind === "providers") return await getProviders({ connection, name, format: options.output, output });
  if (options.changed) {
    if (kind !== "tools") throw new ExitError(exitCodes.usage, `--changed goes with tools, not with ${kind}`);
    return await getChangedTools({ connection, name, format: options.output, output });
  }
  if (!isResourceKind(kind))
    return await getView({ connection, kind, name, virtualServer: options.virtualServer, format: options.output, output });
  if (kind === "backends" && name === undefined) return await getBackends(connection, options, output);
  const found = await find(connection, { kind, name, group: options.group });
  if (options.output === "table") output.data(await tableOf({ connection, kind, found, isAll: name === undefined }));
  else writeResources(found, { format: options.output, single: name !== undefined, output });
  return exitCodes.ok;
}

/** Declared resources in the formats for machines. YAML is what `apply -f` takes. */
export function writeResources(found: Found, options: { format: Format; single: boolean; output: Output }): void {
  const { format, single, output } = options;
  const [first] = found.resources;
  if (format === "name") output.data(found.resources.map(({ name }) => `${name}\n`).join(""));
  else if (format === "yaml") output.data(toYaml(found.resources));
  else if (single && first) output.data(json(toJson(ResourceSchema, first)));
  else output.data(json(toJson(ListResourcesResponseSchema, create(ListResourcesResponseSchema, found))));
}

/** All of them, also those that virtual servers declare inline and those that are discovered. As YAML only what can be applied by itself. */
async function getBackends(
  connection: Connection,
  { output: format, group, virtualServer }: GetOptions,
  output: Output,
): Promise<number> {
  const { resources, revision } = await listAll(connection, "");
  const { proxies } = await connection.admin.listProxies({}, connection.deadline());
  const discovered = await discoveredResources(connection);
  const within = group === undefined ? "" : `groups/${group}/`;
  const wanted = virtualServer === undefined ? () => true : membership(resources, virtualServer);
  const rows = backendRows(withDiscovered(resources, discovered), proxies).filter(
    ({ name }) => name.startsWith(within) && wanted(name),
  );
  if (format === "json") output.data(json({ backends: rows }));
  else if (format === "name") output.data(rows.map(({ name }) => `${name}\n`).join(""));
  else if (format === "table") output.data(backendTable(rows));
  else {
    const names = new Set(rows.map(({ name }) => name));
    writeResources({ resources: resources.filter(({ name }) => names.has(name)), revision }, { format, single: false, output });
  }
  return exitCodes.ok;
}

/** Whether a backend belongs to a virtual server. */
function membership(resources: readonly Resource[], virtualServer: string): (name: string) => boolean {
  const server = resources.find(({ name }) => name === `virtualServers/${virtualServer}`);
  if (server?.spec.case !== "virtualServer")
    throw new ExitError(exitCodes.failure, `there is no "virtualServers/${virtualServer}"`);
  const { backends, groupRef } = server.spec.value;
  const prefix = backends.length > 0 ? `virtualServers/${virtualServer}/` : `groups/${groupRef}/`;
  return (name) => name.startsWith(prefix);
}

interface Shown {
  readonly connection: Connection;
  readonly kind: ResourceKind;
  readonly found: Found;
  /** Nobody asked for one by its name. */
  readonly isAll: boolean;
}

async function tableOf(options: Shown): Promise<string> {
  const { connection, kind, found } = options;
  const nowMs = Date.now();
  switch (kind) {
    case "groups":
      return await groupsTable(options, nowMs);
    case "virtualServers":
      return virtualServerTable(found.resources, nowMs);
    case "authPolicies":
      return authPolicyTable(found.resources, nowMs);
    case "revocations":
      return revocationTable(found.resources, nowMs);
    case "backends": {
      const { proxies } = await connection.admin.listProxies({}, connection.deadline());
      return backendTable(backendRows(found.resources, proxies));
    }
  }
}

/** With what is discovered; such groups have no revision and no age, because nobody declared them. */
async function groupsTable({ connection, found, isAll }: Shown, nowMs: number): Promise<string> {
  const discovered = await discoveredResources(connection);
  const backends = withDiscovered((await listAll(connection, "backends")).resources, discovered);
  const groups = discovered.filter(({ spec }) => spec.case === "group");
  return groupTable(isAll ? withDiscovered(found.resources, groups) : found.resources, backends, nowMs);
}
