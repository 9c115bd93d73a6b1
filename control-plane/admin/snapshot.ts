// What a proxy is given, as people may see it, and how it differs from what the proxy runs.
import { create, createRegistry, isMessage, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { snapshotVersion } from "../../common/snapshot-digest.ts";
import { ResourceDiffSchema } from "../../proto/gen/vmcp/admin/v1/diff_pb.ts";
import { type FetchSnapshotRequest, FetchSnapshotResponseSchema } from "../../proto/gen/vmcp/admin/v1/snapshot_pb.ts";
import {
  type Catalog,
  CatalogSchema,
  RevocationsSchema,
  type SnapshotResource,
  VirtualServerConfigSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { Fleet } from "../push/fleet.ts";
import { isSameContent } from "../push/rows.ts";
import type { WholeFleet } from "../push/whole-fleet.ts";
import type { Reconciler } from "../reconcile.ts";
import { differences } from "../resources/differences.ts";
import { redact } from "../resources/redact.ts";
import { listingAt } from "../store/past.ts";
import { type Store, StoreError } from "../store/store.ts";
import { fieldDiff } from "./diff.ts";
import { AdminError } from "./errors.ts";

const types = createRegistry(VirtualServerConfigSchema, BackendSchema, CatalogSchema, RevocationsSchema);

export interface SnapshotOptions {
  readonly store: Pick<Store, "list" | "changesSince">;
  readonly fleet: Pick<Fleet, "target" | "targetOf" | "named">;
  readonly wholeFleet: Pick<WholeFleet, "proxies">;
  readonly reconciler: Pick<Reconciler, "compile">;
}

/** Throws AdminError when nothing has been built, or when there is no such proxy. */
export async function snapshotOf(options: SnapshotOptions, { proxy }: FetchSnapshotRequest) {
  const { fleet, wholeFleet } = options;
  const newest = fleet.target();
  if (newest === undefined) throw new AdminError("NOT_FOUND", "nothing has been built yet");
  const row = proxy === "" ? undefined : wholeFleet.proxies().find(({ node }) => node?.id === proxy);
  if (proxy !== "" && row === undefined) throw new AdminError("NOT_FOUND", `no proxy ${JSON.stringify(proxy)} has connected`);
  const given = fleet.targetOf(proxy) ?? newest;
  const liveVersion = row?.liveVersion ?? "";
  const live = liveVersion === "" ? row && [] : await contentOf(options, liveVersion);
  return create(FetchSnapshotResponseSchema, {
    version: given.version,
    digest: hex(given.digest),
    resources: given.resources.map((resource) => ({
      name: resource.name,
      type: typeOf(resource),
      digest: hex(resource.digest),
      content: redact(jsonOf(resource)) as JsonObject,
    })),
    ...{ liveVersion, targetVersion: newest.version, isLiveKnown: live !== undefined },
    diffs: live === undefined ? [] : diffsOf(live, newest.resources),
  });
}

type Resources = readonly SnapshotResource[];

/** What a version holds: as it was built here, or else made again of what was declared then; its digest says whether it is the same. */
async function contentOf({ store, fleet, reconciler }: SnapshotOptions, version: string): Promise<Resources | undefined> {
  const known = fleet.named(version);
  if (known) return known.resources;
  const revision = BigInt(/^r(\d{1,18})-/.exec(version)?.[1] ?? 0);
  try {
    const { resources } = await listingAt(store, await store.list(), revision);
    const made = reconciler.compile(resources);
    return isSameContent(snapshotVersion(revision, made.digest), version) ? made.resources : undefined;
  } catch (error) {
    if (error instanceof StoreError && error.code === "compacted") return undefined;
    throw error;
  }
}

function diffsOf(before: Resources, after: Resources) {
  const [was, is] = [before, after].map((some) => new Map(some.map((resource) => [resource.name, resource])));
  const names = [...new Set([...(was?.keys() ?? []), ...(is?.keys() ?? [])])].sort();
  return names.flatMap((name) => {
    const [old, now] = [was?.get(name), is?.get(name)];
    if (old && now && Buffer.compare(old.digest, now.digest) === 0) return [];
    const action = old === undefined ? "create" : now === undefined ? "delete" : "update";
    const fields = differences(old && comparable(old), now && comparable(now)).map(fieldDiff);
    if (action === "update" && fields.length === 0) return [];
    return [create(ResourceDiffSchema, { name, action, fields })];
  });
}

/** How catalogs are called follows from the backends and from what they are shown, which is compared already. */
function comparable(resource: SnapshotResource): JsonObject {
  const { catalogs: _, ...rest } = jsonOf(resource);
  return rest;
}

function jsonOf({ body }: SnapshotResource): JsonObject {
  const message = body && anyUnpack(body, types);
  const schema = message && types.getMessage(message.$typeName);
  if (message === undefined || schema === undefined) return {};
  return isMessage(message, CatalogSchema) ? catalogJson(message) : (toJson(schema, message) as JsonObject);
}

/** With what the backend listed as it reads, and not as the bytes that it sent. */
function catalogJson({ listing, pins }: Catalog): JsonObject {
  const { era = "", protocolVersion = "", instructions = "", lists = [] } = listing ?? {};
  const items = lists.map(({ kind, items: texts }) => [kind, texts.map((text) => parsed(Buffer.from(text).toString()))] as const);
  return {
    ...{ era, protocolVersion, instructions },
    capabilities: parsed(listing?.capabilities || "{}"),
    ...Object.fromEntries(items),
    pins: pins.map(({ tool, hash }) => ({ name: tool, hash: hex(hash) })),
  };
}

function parsed(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return text;
  }
}

function typeOf({ body }: SnapshotResource): string {
  return body?.typeUrl.split("/").at(-1) ?? "";
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
