// What names the definition of a tool: the control plane pins it, a proxy computes it again from what a backend lists.
import { createHash } from "node:crypto";

/**
 * SHA-256 of everything that clients go by: the JSON of the tool without `_meta`, members sorted, no white space. Text that is not JSON,
 * or nested too deeply to be read, is hashed as it is.
 */
export function toolHash(json: string): Uint8Array {
  return createHash("sha256").update(canonical(json)).digest();
}

function canonical(json: string): string {
  try {
    const { _meta, ...definition } = JSON.parse(json) as Record<string, unknown>;
    return JSON.stringify(sorted(definition));
  } catch {
    return json;
  }
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).map(([name, member]) => [name, sorted(member)] as const);
  return Object.fromEntries(members.sort(([a], [b]) => (a < b ? -1 : 1)));
}
