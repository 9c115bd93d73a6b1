// What a backend lists goes to the control plane and comes back in snapshots as it was.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { CatalogSchema, ListingSchema, SnapshotResourceSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type Catalog, catalogOf, isSameCatalog, type KeptList } from "../backends/catalog.ts";
import { isUnapproved } from "../backends/shared-catalog.ts";
import { listingOf, sharedFrom } from "./listing.ts";

const facts = {
  era: "stateless",
  protocolVersion: "2026-07-28",
  capabilities: { tools: { listChanged: true }, "x.y/z": [1] },
  instructions: "Use it.",
} as const;
const list = (...items: string[]): KeptList => ({ items: items.map((item) => Buffer.from(item)), ttlMs: 60_000, isPublic: true });

test("every byte, and what is known of it, comes back", () => {
  const header = '{"name":"h","inputSchema":{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"A"}}}}';
  const catalog = catalogOf(facts, {
    tools: list('{"name":"t",  "n":12345678901234567890,"ü":1.0}', header),
    resources: list('{"uri":"file:///x"}'),
  });
  const back = sharedFrom(snapshotOf(catalog));
  assert.ok(back);
  assert.ok(isSameCatalog(back.catalog, catalog));
  assert.deepEqual(back.catalog, catalog);
  assert.equal(back.catalog.tools[1]?.paramHeaders?.length, 1);
  assert.equal(listingOf(back.catalog).digest, listingOf(catalog).digest, "who lists the same says the same");
});

test("a listing of more than 2 MiB is told by its digest only", () => {
  const large = catalogOf(facts, {
    tools: list(...Array.from({ length: 3 }, (_, i) => `{"name":"${i}${"x".repeat(1_000_000)}"}`)),
  });
  const { digest, bytes } = listingOf(large);
  assert.deepEqual([digest.length, bytes.byteLength], [64, 0]);
});

test("a catalog that can't be read is as none", () => {
  const unknown = toBinary(
    CatalogSchema,
    create(CatalogSchema, { listing: { protocolVersion: "2099-01-01", capabilities: "{}" } }),
  );
  for (const value of [Buffer.from([255]), new Uint8Array(), unknown]) assert.equal(sharedFrom(resource(value)), undefined);
});

test("a tool is approved as it is listed, or as its pin says; one that nobody has seen is too", () => {
  const catalog = catalogOf(facts, { tools: list('{"name":"a"}', '{"name":"b","description":"new"}') });
  const [a, b] = catalog.tools;
  const before = catalogOf(facts, { tools: list('{"name":"b","description":"old"}', '{"name":"c"}') }).tools;
  const known = sharedFrom(snapshotOf(catalog, { b: "01" }));
  assert.ok(a && b && known);
  assert.deepEqual(
    [a, b, ...before].map((tool) => isUnapproved(tool, known)),
    [false, true, true, false],
  );
  assert.equal(isUnapproved({ ...b, isSignIn: true }, known), false, "ours is nobody's to approve");
  assert.equal(isUnapproved(b, undefined), false);
});

function snapshotOf(catalog: Catalog, pins: Readonly<Record<string, string>> = {}) {
  const listing = fromBinary(ListingSchema, listingOf(catalog).bytes);
  const entries = Object.entries(pins).map(([tool, hash]) => ({ tool, hash: Buffer.from(hash, "hex") }));
  return resource(toBinary(CatalogSchema, create(CatalogSchema, { listing, pins: entries })));
}

function resource(value: Uint8Array) {
  return create(SnapshotResourceSchema, { name: "b/catalogs/0", body: { value } });
}
