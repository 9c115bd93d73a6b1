// What the fleet knows of a backend: what it lists, as some proxy saw it last, and what of its tools is approved.
import { toolHash } from "../../common/tool-hash.ts";
import type { Catalog, CatalogItem } from "./catalog.ts";

export interface SharedCatalog {
  /** As a plain client sees it. */
  readonly catalog: Catalog;
  /** Hash of what is approved, in hex, by the backend's own name for the tool, where that is not what `catalog` has. */
  readonly pins: ReadonlyMap<string, string>;
}

const hashes = new WeakMap<Buffer, string>();

/** Of a tool, in hex; computed once. */
function hashOf({ json }: CatalogItem): string {
  const known = hashes.get(json) ?? Buffer.from(toolHash(json.toString())).toString("hex");
  hashes.set(json, known);
  return known;
}

const approvals = new WeakMap<SharedCatalog, ReadonlyMap<string, string>>();

/** By tool; those that nobody has seen before are not in it. */
function approvedBy(shared: SharedCatalog): ReadonlyMap<string, string> {
  const known =
    approvals.get(shared) ?? new Map([...shared.catalog.tools.map((tool) => [tool.key, hashOf(tool)] as const), ...shared.pins]);
  approvals.set(shared, known);
  return known;
}

/** Whether a tool, wherever it was listed, is another than what was approved under its name. Ours are never. */
export function isUnapproved(tool: CatalogItem, shared: SharedCatalog | undefined): boolean {
  if (!shared || tool.isSignIn) return false;
  const approved = approvedBy(shared).get(tool.key);
  return approved !== undefined && approved !== hashOf(tool);
}
