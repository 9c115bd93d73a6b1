// Reads whole lists, and finds the one resource that a short name means.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import type { Connection } from "./connection.ts";
import type { ResourceKind } from "./kinds.ts";

const pageSize = 500;

export interface Found {
  readonly resources: Resource[];
  readonly revision: bigint;
}

/** All pages of one revision. `kind` "" is everything; `group` narrows backends. */
export async function listAll(connection: Connection, kind: ResourceKind | "", group = ""): Promise<Found> {
  const resources: Resource[] = [];
  for (let pageToken = ""; ; ) {
    const page = await connection.admin.listResources({ kind, group, pageSize, pageToken }, connection.deadline());
    resources.push(...page.resources);
    if (page.nextPageToken === "") return { resources, revision: page.revision };
    pageToken = page.nextPageToken;
  }
}

/** `name` as given on the command line. A backend may leave its group out when only one group has it. */
export async function fullName(
  connection: Connection,
  options: { kind: ResourceKind; name: string; group?: string | undefined },
): Promise<string> {
  const { kind, name, group } = options;
  if (kind !== "backends") return `${kind}/${name}`;
  const slash = name.indexOf("/");
  if (slash > 0) return `groups/${name.slice(0, slash)}/backends/${name.slice(slash + 1)}`;
  if (group !== undefined) return `groups/${group}/backends/${name}`;
  const { resources } = await listAll(connection, "backends");
  const [first, ...others] = resources.map((resource) => resource.name).filter((one) => one.endsWith(`/backends/${name}`));
  if (first === undefined) throw new ExitError(exitCodes.failure, `no group has a backend "${name}"`);
  if (others.length > 0)
    throw new ExitError(exitCodes.usage, `"${name}" is in several groups: ${[first, ...others].join(", ")}; add --group`);
  return first;
}

/** One or all of a kind. */
export async function find(
  connection: Connection,
  options: { kind: ResourceKind; name: string | undefined; group?: string | undefined },
): Promise<Found> {
  const { kind, name, group } = options;
  if (name === undefined) return listAll(connection, kind, group);
  const full = await fullName(connection, { kind, name, group });
  const { resource } = await connection.admin.getResource({ name: full }, connection.deadline());
  return { resources: resource ? [resource] : [], revision: resource?.revision ?? 0n };
}
