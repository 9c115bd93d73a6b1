// What a backend lists, as it goes to the control plane and comes back in snapshots.
import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CatalogSchema,
  type Listing,
  ListingSchema,
  type SnapshotResource,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type Catalog, catalogOf, type KeptList, type ListKind, listKinds } from "../backends/catalog.ts";
import type { ServerFacts } from "../backends/leg.ts";
import type { SharedCatalog } from "../backends/shared-catalog.ts";
import { isSessionVersion, statelessVersion } from "../mcp/versions.ts";
import type { Runtime } from "../runtime.ts";

// A control plane takes messages of 4 MiB. Who lists more is listed by every proxy for itself.
const listingBytesMax = 2 * 1024 * 1024;

/** A listing to be told, encoded; `digest` is SHA-256 of all of it in hex, `bytes` empty when it is too large. */
export interface ToldListing {
  readonly digest: string;
  readonly bytes: Uint8Array;
}

const told = new WeakMap<Catalog, ToldListing>();

/** Made once for each catalog. */
export function listingOf(catalog: Catalog): ToldListing {
  const known = told.get(catalog) ?? encoded(catalog);
  told.set(catalog, known);
  return known;
}

function encoded(catalog: Catalog): ToldListing {
  const { facts, caching } = catalog;
  const kinds = Object.keys(listKinds) as ListKind[];
  const lists = kinds.map((kind) => ({
    kind,
    ttlMs: BigInt(caching[kind].ttlMs),
    public: caching[kind].isPublic,
    items: catalog[kind].map(({ json }) => json),
  }));
  const { era, protocolVersion, capabilities, instructions = "" } = facts;
  const listing = { era, protocolVersion, capabilities: JSON.stringify(capabilities), instructions, lists };
  const bytes = toBinary(ListingSchema, create(ListingSchema, listing));
  const digest = createHash("sha256").update(bytes).digest("hex");
  return { digest, bytes: bytes.byteLength > listingBytesMax ? new Uint8Array() : bytes };
}

/** What this proxy listed itself under the name of a catalog; undefined when nothing. */
export function listedHere({ backends }: Pick<Runtime, "backends">, name: string): Uint8Array | undefined {
  const listed = backends.find(({ catalog }) => catalog === name)?.backend.listed;
  return listed && listingOf(listed).bytes;
}

const read = new WeakMap<SnapshotResource, SharedCatalog | undefined>();

/**
 * Read once for each resource: snapshots that follow each other have most of them in common. Undefined when it can't be read: what a
 * backend says is no reason to refuse what an operator declares.
 */
export function sharedFrom(resource: SnapshotResource): SharedCatalog | undefined {
  if (!read.has(resource)) read.set(resource, decoded(resource));
  return read.get(resource);
}

function decoded({ body }: SnapshotResource): SharedCatalog | undefined {
  try {
    return catalogFrom(body?.value ?? new Uint8Array());
  } catch {
    return undefined;
  }
}

function catalogFrom(body: Uint8Array): SharedCatalog {
  const { listing, pins } = fromBinary(CatalogSchema, body);
  if (!listing) throw new Error("it has no listing");
  const lists: Partial<Record<ListKind, KeptList>> = {};
  for (const { kind, ttlMs, public: isPublic, items } of listing.lists)
    if (Object.hasOwn(listKinds, kind)) lists[kind as ListKind] = { items, ttlMs: Number(ttlMs), isPublic };
  return {
    catalog: catalogOf(factsOf(listing), lists),
    pins: new Map(pins.map(({ tool, hash }) => [tool, Buffer.from(hash).toString("hex")])),
  };
}

function factsOf({ era, protocolVersion, capabilities, instructions }: Listing): ServerFacts {
  if (!isSessionVersion(protocolVersion) && protocolVersion !== statelessVersion)
    throw new Error(`MCP revision ${JSON.stringify(protocolVersion)} is not known here`);
  return {
    era: era === "stateless" ? "stateless" : "session",
    protocolVersion,
    capabilities: JSON.parse(capabilities) as Record<string, unknown>,
    instructions: instructions === "" ? undefined : instructions,
  };
}
