// `vmcpctl get providers`: who finds backends that nobody declared, and what came of it.
import { create, toJson } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { stringify } from "yaml";
import {
  ListProvidersResponseSchema,
  type Provider,
  ProviderSchema,
  ProviderState,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import type { Connection } from "./connection.ts";
import { type Format, json, type Output } from "./output.ts";
import { age, plainLines, table } from "./table.ts";

export interface ProvidersOptions {
  readonly connection: Connection;
  /** Of one; undefined: all. */
  readonly name: string | undefined;
  readonly format: Format;
  readonly output: Output;
}

/** Returns the exit code. */
export async function getProviders({ connection, name, format, output }: ProvidersOptions): Promise<number> {
  const listed = await connection.admin.listProviders({}, connection.deadline());
  const providers = listed.providers.filter((provider) => name === undefined || provider.name === name);
  const [first] = providers;
  if (name !== undefined && first === undefined) throw new ExitError(exitCodes.failure, `no provider "${name}" runs`);
  if (format === "name") output.data(providers.map((provider) => `providers/${provider.name}\n`).join(""));
  else if (format === "table") {
    output.data(providerTable(providers, Date.now()));
    for (const { name: whose, problems } of providers)
      for (const problem of problems) output.note(plainLines(`${whose}: ${problem}\n`));
    if (providers.length === 0) output.note("discovery is off; vmcp control-plane --discovery switches it on\n");
  } else {
    const value =
      name !== undefined && first
        ? toJson(ProviderSchema, first)
        : toJson(ListProvidersResponseSchema, create(ListProvidersResponseSchema, { providers }));
    output.data(format === "json" ? json(value) : stringify(value, { lineWidth: 0 }));
  }
  return exitCodes.ok;
}

/** Discovered groups and backends; none when the control plane is of a version that does not know the call. */
export async function discoveredResources(connection: Connection): Promise<readonly Resource[]> {
  try {
    return (await connection.admin.listProviders({ includeResources: true }, connection.deadline())).resources;
  } catch (error) {
    if ((error as { code?: status }).code === status.UNIMPLEMENTED) return [];
    throw error;
  }
}

/** Those that are declared, and of the discovered ones those that have other names; sorted by name. */
export function withDiscovered(declared: readonly Resource[], discovered: readonly Resource[]): Resource[] {
  const names = new Set(declared.map(({ name }) => name));
  return [...declared, ...discovered.filter(({ name }) => !names.has(name))].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function providerTable(providers: readonly Provider[], nowMs: number): string {
  const rows = providers.map(({ name, state, used, successTime, workloads, groups, error }) => [
    name,
    stateName(state),
    used ? "yes" : "no",
    successTime === undefined ? "" : `${age(timestampMs(successTime), nowMs)} ago`,
    String(groups),
    String(workloads),
    error,
  ]);
  return table(["NAME", "STATE", "USED", "LAST SUCCESS", "GROUPS", "BACKENDS", "ERROR"], rows);
}

/** `OK`. */
function stateName(state: ProviderState): string {
  return Object.entries(ProviderState).find(([, value]) => value === state)?.[0] ?? String(state);
}
