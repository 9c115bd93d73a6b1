// One catalog as the store has it, and as snapshots carry it.
import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { z } from "zod";
import { resourceDigest } from "../../common/snapshot-digest.ts";
import {
  CatalogSchema,
  type Listing,
  ListingSchema,
  type SnapshotResource,
  SnapshotResourceSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type Pin, readTool, type Tool } from "./pins.ts";

/** What a backend lists, and what of its tools is approved. */
export interface Entry {
  readonly name: string;
  /** SHA-256 of the listing, in hex. */
  readonly digest: string;
  /** Undefined: it is too large to be shared. */
  readonly listing: Listing | undefined;
  readonly tools: readonly Tool[];
  readonly pins: readonly Pin[];
  /** Id of the proxy that listed it. */
  readonly proxy: string;
}

const kinds = ["tools", "prompts", "resources", "templates"];
const itemsMax = 20_000;
const itemBytesMax = 256 * 1024;

const headSchema = z.object({
  digest: z.string(),
  proxy: z.string(),
  isWhole: z.boolean(),
  pins: z.array(
    z.object({
      tool: z.string(),
      approved: z.string(),
      changedMs: z.number().optional(),
      definition: z.string().optional(),
    }),
  ),
});

/** Reads what a proxy reported; the text says why it can't be taken. */
export function readListing(received: Uint8Array): Pick<Entry, "digest" | "listing" | "tools"> | string {
  const bytes = Uint8Array.from(received); // what is read holds on to it, and received is a part of something larger
  const digest = createHash("sha256").update(bytes).digest("hex");
  try {
    const listing = fromBinary(ListingSchema, bytes);
    const items = listing.lists.flatMap((list) => list.items);
    const listed = listing.lists.map(({ kind }) => kind);
    if (new Set(listed).size < listed.length || !listed.every((kind) => kinds.includes(kind)))
      return "its lists are not those of MCP";
    if (items.length > itemsMax) return `it has ${items.length} items; ${itemsMax} at most are taken`;
    if (items.some(({ byteLength }) => byteLength > itemBytesMax)) return `an item has more than ${itemBytesMax} bytes`;
    return { digest, listing, tools: toolsOf(listing) };
  } catch {
    return "it can't be decoded";
  }
}

function toolsOf({ lists }: Listing): Tool[] {
  return lists.filter(({ kind }) => kind === "tools").flatMap(({ items }) => items.flatMap((item) => readTool(item) ?? []));
}

/** A line of JSON, and the listing behind it. */
export function encodeEntry({ digest, listing, pins, proxy }: Entry): Uint8Array {
  const head = { digest, proxy, isWhole: listing !== undefined, pins: [...pins] } satisfies z.input<typeof headSchema>;
  const body = listing ? toBinary(ListingSchema, listing) : new Uint8Array();
  return Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), body]);
}

/** Throws when it is no entry. */
export function decodeEntry(name: string, bytes: Uint8Array): Entry {
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = whole.indexOf("\n");
  const { digest, proxy, isWhole, pins } = headSchema.parse(JSON.parse(whole.toString("utf8", 0, end)));
  const listing = isWhole ? fromBinary(ListingSchema, whole.subarray(end + 1)) : undefined;
  return { name, digest, proxy, pins, listing, tools: listing ? toolsOf(listing) : [] };
}

/** Undefined when there is nothing to share. */
export function toSnapshotResource({ name, listing, tools, pins }: Entry): SnapshotResource | undefined {
  if (!listing) return undefined;
  const listed = new Map(tools.map((tool) => [tool.name, tool.hash]));
  const pinned = new Set(pins.map(({ tool }) => tool));
  const others = [
    ...pins.filter(({ tool, approved }) => listed.get(tool) !== approved),
    ...tools.filter(({ name }) => !pinned.has(name)).map(({ name }) => ({ tool: name, approved: "" })),
  ];
  const catalog = create(CatalogSchema, {
    listing,
    pins: others.map(({ tool, approved }) => ({ tool, hash: Buffer.from(approved, "hex") })),
  });
  const value = toBinary(CatalogSchema, catalog);
  const body = { typeUrl: `type.googleapis.com/${CatalogSchema.typeName}`, value };
  return create(SnapshotResourceSchema, { name, digest: resourceDigest(value), body });
}
