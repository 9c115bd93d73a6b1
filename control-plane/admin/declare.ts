// What operators declare: many resources at once, or one created, updated or deleted.
import { create } from "@bufbuild/protobuf";
import {
  type ApplyResourcesRequest,
  type CreateResourceRequest,
  type DeleteResourceRequest,
  type ResourceChange,
  ResourceChangeSchema,
  type UpdateResourceRequest,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { isRevocationName, parseName } from "../resource-names.ts";
import type { Change, Changed, Listing } from "../store/store.ts";
import { type Edited, pruned } from "./edit.ts";
import { AdminError } from "./errors.ts";
import { checkName, checkResources, checkRevision, invalid } from "./requests.ts";
import { readMask, updated } from "./update-mask.ts";
import type { Write } from "./write.ts";

/** Many, all or nothing. */
export function apply({
  resources,
  reason,
  prune,
  expectedRevision,
}: Pick<ApplyResourcesRequest, "resources" | "reason" | "prune" | "expectedRevision">) {
  checkResources(resources);
  if (prune && resources.length === 0) {
    throw invalid([{ field: "prune", description: "without resources it would delete everything that is declared" }]);
  }
  let unchanged: ResourceChange[] = [];
  return {
    plan(present: Listing) {
      checkRevision(present, expectedRevision);
      const stored = new Map(present.resources.map((resource) => [resource.name, resource]));
      unchanged = resources.map((resource) => unchangedAs(stored.get(resource.name) ?? resource));
      return [...resources.map(toChange), ...(prune ? pruned(present, resources) : [])];
    },
    reason: reason || "apply",
    targets: resources.map(({ name }) => name),
    toAnswer({ changes, revision, version, warnings }: Edited) {
      const changed = new Set(changes.map(({ name }) => name));
      const all = [...changes.map(toResourceChange), ...unchanged.filter(({ name }) => !changed.has(name))];
      return { changes: all.sort(byName), revision, version, warnings: [...warnings] };
    },
  } satisfies Write<unknown>;
}

/** One that is not there. */
export function createOne({ resource: given, reason }: CreateResourceRequest) {
  const resource = checkOne(given);
  return {
    plan(present: Listing) {
      if (present.resources.some(({ name }) => name === resource.name)) throw alreadyExists(resource.name);
      return [{ name: resource.name, resource }];
    },
    reason: reason || `create ${resource.name}`,
    targets: [resource.name],
    toAnswer({ changes, revision, version, warnings }: Edited) {
      return { resource: changes[0]?.after ?? resource, revision, version, warnings: [...warnings] };
    },
  } satisfies Write<unknown>;
}

/** Fields of one. */
export function update({ resource: given, updateMask, allowMissing, reason }: UpdateResourceRequest) {
  const mask = given === undefined ? "merge" : readMask(updateMask, given);
  const resource = checkOne(given, typeof mask !== "string");
  let before: Resource | undefined;
  return {
    plan(present: Listing) {
      before = present.resources.find(({ name }) => name === resource.name);
      if (before === undefined && !allowMissing) throw notFound(resource.name);
      const after = before === undefined ? checkOne(resource) : updated(before, resource, mask);
      return [{ ...toChange(after), expectedEtag: resource.etag || undefined }];
    },
    reason: reason || `update ${resource.name}`,
    targets: [resource.name],
    toAnswer({ changes: [changed], revision, version, warnings }: Edited) {
      const change = changed ? toResourceChange(changed) : unchangedAs(before ?? resource);
      return { resource: change.after ?? resource, revision, version, warnings: [...warnings], change };
    },
  } satisfies Write<unknown>;
}

/** One, and with force a group's backends. */
export function remove({ name, etag, force, reason, allowMissing }: DeleteResourceRequest) {
  checkName(name);
  return {
    plan: (present: Listing) => deletions(present, { name, etag, force, allowMissing }),
    reason: reason || `delete ${name}`,
    targets: [name],
    isOperation: isRevocationName(name),
    onProblems: "IN_USE",
    toAnswer: ({ changes, revision, version }: Edited) => ({
      changes: changes.map(toResourceChange).sort(byName),
      revision,
      version,
    }),
  } satisfies Write<unknown>;
}

/** What a change did, in the words of the API. */
export function toResourceChange({ name, before, after }: Changed): ResourceChange {
  const action = before === undefined ? "create" : after === undefined ? "delete" : "update";
  return create(ResourceChangeSchema, { name, action, ...(before && { before }), ...(after && { after }) });
}

export function notFound(name: string): AdminError {
  return new AdminError("NOT_FOUND", `there is no "${name}"`, { metadata: { resource: name } });
}

/** `mayLackSpec`: what is not given is to be cleared. */
function checkOne(resource: Resource | undefined, mayLackSpec = false): Resource {
  if (resource === undefined) throw invalid([{ field: "resource", description: "it is missing" }]);
  const kind = mayLackSpec && resource.spec.case === undefined ? parseName(resource.name)?.kind : undefined;
  if (kind === undefined || kind === "revocations") checkResources([resource]);
  return resource;
}

function unchangedAs(resource: Resource): ResourceChange {
  return create(ResourceChangeSchema, { name: resource.name, action: "unchanged", before: resource, after: resource });
}

function toChange(resource: Resource): Change {
  return { name: resource.name, resource, expectedEtag: resource.etag === "" ? undefined : resource.etag };
}

interface Deletion {
  readonly name: string;
  readonly etag: string;
  readonly force: boolean;
  readonly allowMissing: boolean;
}

function deletions(present: Listing, { name, etag, force, allowMissing }: Deletion): Change[] {
  if (!present.resources.some((resource) => resource.name === name)) {
    if (allowMissing) return [];
    throw notFound(name);
  }
  const children = present.resources.map((resource) => resource.name).filter((one) => one.startsWith(`${name}/`));
  if (children.length > 0 && !force && parseName(name)?.kind === "groups") throw hasChildren(name, children);
  return [
    { name, resource: undefined, expectedEtag: etag || undefined },
    ...children.map((child) => ({ name: child, resource: undefined })),
  ];
}

function hasChildren(name: string, children: readonly string[]): AdminError {
  const shown = children.slice(0, 5).join(", ");
  const more = children.length > 5 ? ` and ${children.length - 5} more` : "";
  return new AdminError("IN_USE", `"${name}" has backends: ${shown}${more}; force deletes them too`, {
    metadata: { resource: name },
  });
}

function alreadyExists(name: string): AdminError {
  return new AdminError("ALREADY_EXISTS", `"${name}" is there already`, { metadata: { resource: name } });
}

function byName(a: ResourceChange, b: ResourceChange): number {
  return a.name < b.name ? -1 : 1;
}
