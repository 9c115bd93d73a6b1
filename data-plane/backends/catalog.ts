// What a backend offers, as it last listed it, every item in the backend's own bytes.
import { errorCodes, type Message, parseSpan, readMessage, request } from "../mcp/json-rpc.ts";
import { elements, member } from "../mcp/scan.ts";
import { BackendError } from "./errors.ts";
import type { Leg, ServerFacts } from "./leg.ts";

/** One tool, prompt, resource or template. */
export interface CatalogItem {
  /** Its name, URI or URI template. */
  readonly key: string;
  /** As the backend sent it. */
  readonly json: Buffer;
}

export interface Catalog {
  readonly facts: ServerFacts;
  readonly tools: readonly CatalogItem[];
  readonly prompts: readonly CatalogItem[];
  readonly resources: readonly CatalogItem[];
  readonly templates: readonly CatalogItem[];
}

/** The lists of MCP: where they are asked for and where they stand in the answer. */
export const listKinds = {
  tools: { method: "tools/list", field: "tools", key: "name", capability: "tools" },
  prompts: { method: "prompts/list", field: "prompts", key: "name", capability: "prompts" },
  resources: { method: "resources/list", field: "resources", key: "uri", capability: "resources" },
  templates: { method: "resources/templates/list", field: "resourceTemplates", key: "uriTemplate", capability: "resources" },
} as const;

export type ListKind = keyof typeof listKinds;

const pagesMax = 1_000;
const itemsMax = 10_000;
const catalogBytesMax = 32 * 1024 * 1024;

/** Lists everything the backend says it has; throws BackendError. */
export async function listCatalog(leg: Leg, signal: AbortSignal): Promise<Catalog> {
  const [tools, prompts, resources, templates] = await Promise.all([
    listAll(leg, "tools", signal),
    listAll(leg, "prompts", signal),
    listAll(leg, "resources", signal),
    listAll(leg, "templates", signal),
  ]);
  return { facts: leg.facts, tools, prompts, resources, templates };
}

async function listAll(leg: Leg, kind: ListKind, signal: AbortSignal): Promise<CatalogItem[]> {
  const { method, field, key, capability } = listKinds[kind];
  if (leg.facts.capabilities[capability] === undefined) return [];
  const items = new Map<string, CatalogItem>(); // a name that is listed twice is one thing; the first wins
  const cursors = new Set<string>();
  let cursor: string | undefined;
  let bytes = 0;
  for (let page = 0; page < pagesMax; page++) {
    const params = cursor === undefined ? undefined : `{"cursor":${cursor}}`;
    const response = await leg.request(readMessage(request(method, params, `"vmcp-${kind}-${page}"`)), { signal });
    if (response.error && isUnknownMethod(response)) return [...items.values()];
    const start = response.result?.start;
    const list = start === undefined ? undefined : member(response.json, start, field);
    if (start === undefined || !list)
      throw new BackendError("bad_answer", "not_executed", `${method} was answered without "${field}"`);
    for (const { start, end } of elements(response.json, list.start)) {
      const item = readItem(response.json.subarray(start, end), key);
      if (!items.has(item.key)) items.set(item.key, item);
    }
    bytes += response.json.length;
    if (items.size > itemsMax || bytes > catalogBytesMax)
      throw new BackendError("bad_answer", "not_executed", `${method} gives more than we hold`);
    const next = member(response.json, start, "nextCursor");
    cursor = next && response.json.toString("utf8", next.start, next.end);
    if (cursor === undefined || cursor === "null") return [...items.values()];
    if (cursors.has(cursor)) throw new BackendError("bad_answer", "not_executed", `${method} gives the same cursor twice`);
    cursors.add(cursor);
  }
  throw new BackendError("bad_answer", "not_executed", `${method} has more than ${pagesMax} pages`);
}

function readItem(json: Buffer, key: string): CatalogItem {
  const span = member(json, 0, key);
  const value: unknown = span && JSON.parse(json.toString("utf8", span.start, span.end));
  if (typeof value !== "string") throw new BackendError("bad_answer", "not_executed", `a listed item has no "${key}"`);
  return { key: value, json: Buffer.from(json) };
}

function isUnknownMethod(response: Message): boolean {
  const error = parseSpan(response, response.error) as { code?: unknown } | undefined;
  return error?.code === errorCodes.methodNotFound;
}

/** Whether two catalogs list the same bytes. */
export function isSameCatalog(a: Catalog, b: Catalog): boolean {
  return (Object.keys(listKinds) as ListKind[]).every(
    (kind) =>
      a[kind].length === b[kind].length && a[kind].every((item, i) => item.json.equals(b[kind][i]?.json ?? Buffer.alloc(0))),
  );
}
