// What an apply would change, field by field, without showing secrets.
import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  type DiffResourcesRequest,
  type FieldDiff,
  FieldDiffSchema,
  type ResourceDiff,
  ResourceDiffSchema,
} from "../../proto/gen/vmcp/admin/v1/diff_pb.ts";
import type { Fleet } from "../push/fleet.ts";
import { isHeard, isSameContent } from "../push/rows.ts";
import type { WholeFleet } from "../push/whole-fleet.ts";
import { type Difference, resourceDifferences } from "../resources/differences.ts";
import type { Changed, Listing } from "../store/store.ts";
import type { Caller } from "./caller.ts";
import { apply } from "./declare.ts";
import type { Editor } from "./edit.ts";

export interface DifferOptions {
  readonly editor: Editor;
  readonly fleet: Pick<Fleet, "target">;
  readonly wholeFleet: Pick<WholeFleet, "proxies">;
}

/** Throws AdminError when what is given is not valid, as an apply would. */
export async function diffResources({ editor, fleet, wholeFleet }: DifferOptions, request: DiffResourcesRequest, caller: Caller) {
  const { resources, prune } = request;
  const { plan, reason } = apply({ resources, prune, reason: "", expectedRevision: 0n });
  let seen: Listing = { revision: 0n, resources: [] };
  const remember = (present: Listing) => {
    seen = present;
    return plan(present);
  };
  const edited = await editor.edit(remember, { ...caller, method: "DiffResources", reason, validateOnly: true });
  const changed = new Map(edited.changes.map((change) => [change.name, change]));
  const asked = new Set(resources.map(({ name }) => name));
  const unchanged = seen.resources.filter(({ name }) => asked.has(name) && !changed.has(name));
  const same = unchanged.map(({ name, etag }) => create(ResourceDiffSchema, { name, action: "unchanged", etag }));
  const isAnother = !isSameContent(edited.version, fleet.target()?.version ?? "");
  const connected = wholeFleet.proxies().filter(isHeard);
  return {
    diffs: [...[...changed.values()].map(resourceDiff), ...same].sort((a, b) => (a.name < b.name ? -1 : 1)),
    revision: seen.revision,
    version: edited.version,
    warnings: [...edited.warnings],
    proxies: isAnother ? connected.map(({ node }) => node?.id ?? "") : [],
  };
}

function resourceDiff({ name, before, after }: Changed): ResourceDiff {
  const action = before === undefined ? "create" : after === undefined ? "delete" : "update";
  const fields = resourceDifferences(before, after).map(fieldDiff);
  return create(ResourceDiffSchema, { name, action, fields, etag: before?.etag ?? "" });
}

export function fieldDiff({ path, before, after, hasSecret }: Difference): FieldDiff {
  const [was, is] = [toValue(before), toValue(after)];
  return create(FieldDiffSchema, { path, hasSecret, ...(was && { before: was }), ...(is && { after: is }) });
}

function toValue(json: JsonValue | undefined): Value | undefined {
  return json === undefined ? undefined : fromJson(ValueSchema, json);
}
