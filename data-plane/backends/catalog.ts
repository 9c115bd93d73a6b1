// What a backend offers, as it last listed it, every item in the backend's own bytes.
//
// Lists of many backends are joined byte by byte, so an item that is not JSON would spoil them all. Items that can't be
// passed on are left out, and a list that can't be had stays as it was; both are told to the operator.
import { isUtf8 } from "node:buffer";
import { errorCodes, type Message, readMessage, request } from "../mcp/json-rpc.ts";
import { wrapOutputSchema } from "../mcp/output-schema.ts";
import { type ParamHeader, readParamHeaders } from "../mcp/param-headers.ts";
import { elements, member } from "../mcp/scan.ts";
import type { Era } from "../mcp/versions.ts";
import { BackendError, reasonOf } from "./errors.ts";
import type { Leg, ServerFacts } from "./leg.ts";
import { printable } from "./lines.ts";

/** One tool, prompt, resource or template. */
export interface CatalogItem {
  /** Its name, URI or URI template. */
  readonly key: string;
  /** As the backend sent it. */
  readonly json: Buffer;
  /** A tool's arguments that are repeated in headers; undefined when there are none. */
  readonly paramHeaders?: readonly ParamHeader[];
  /** A tool as clients of the session era can read it, when that is not how the backend sent it. */
  readonly sessionJson?: Buffer;
  /** Ours, not the backend's: see withSignIn. */
  readonly isSignIn?: true;
}

/** How long an answer may be kept, and whether others may have it too. */
export interface Caching {
  readonly ttlMs: number;
  readonly isPublic: boolean;
}

/** Servers of the session era don't say. */
export const uncached: Caching = { ttlMs: 0, isPublic: false };

export interface Catalog {
  readonly facts: ServerFacts;
  readonly tools: readonly CatalogItem[];
  readonly prompts: readonly CatalogItem[];
  readonly resources: readonly CatalogItem[];
  readonly templates: readonly CatalogItem[];
  readonly caching: Readonly<Record<ListKind, Caching>>;
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

/** Something that is wrong with one list; the reason is fit for operators. */
export interface ListProblem {
  readonly kind: ListKind;
  readonly reason: string;
  /** The list could not be had, so it is as it was; else some items are left out. */
  readonly isStale: boolean;
}

export interface Listing {
  readonly catalog: Catalog;
  readonly problems: readonly ListProblem[];
}

/**
 * Lists everything the backend says it has. A list that fails is taken from `previous`. Throws BackendError when the session
 * is over, and when no list could be had.
 */
export async function listCatalog(leg: Leg, signal: AbortSignal, previous?: Catalog): Promise<Listing> {
  const kinds = Object.keys(listKinds) as ListKind[];
  const wanted = kinds.filter((kind) => leg.facts.capabilities[listKinds[kind].capability] !== undefined);
  const outcomes = await Promise.allSettled(wanted.map((kind) => listAll(leg, kind, signal)));
  const failures = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reason as unknown);
  const isOver =
    leg.closedBy !== undefined || failures.some((error) => error instanceof BackendError && error.code === "session_gone");
  if (failures.length > 0 && (isOver || failures.length === wanted.length)) throw failures[0];

  const lists: Record<ListKind, readonly CatalogItem[]> = { tools: [], prompts: [], resources: [], templates: [] };
  const caching: Record<ListKind, Caching> = { tools: uncached, prompts: uncached, resources: uncached, templates: uncached };
  const problems: ListProblem[] = [];
  for (const [i, kind] of wanted.entries()) {
    const outcome = outcomes[i] as PromiseSettledResult<ReadList>;
    if (outcome.status === "fulfilled") {
      lists[kind] = outcome.value.items;
      caching[kind] = outcome.value.caching;
      if (outcome.value.skipped) problems.push({ kind, reason: outcome.value.skipped, isStale: false });
    } else {
      lists[kind] = previous?.[kind] ?? [];
      problems.push({ kind, reason: reasonOf(outcome.reason), isStale: true });
    }
  }
  return { catalog: { facts: leg.facts, ...lists, caching }, problems };
}

/** One list as it was kept, every item in the backend's own bytes. */
export interface KeptList extends Caching {
  readonly items: readonly Uint8Array[];
}

/** The catalog of lists that were kept. What is no item is left out. */
export function catalogOf(facts: ServerFacts, kept: Partial<Record<ListKind, KeptList>>): Catalog {
  const itemsOf = (kind: ListKind) =>
    (kept[kind]?.items ?? []).flatMap((json) => {
      const item = readItem(Buffer.from(json.buffer, json.byteOffset, json.byteLength), kind, facts);
      return typeof item === "string" ? [] : item;
    });
  const cachingOf = (kind: ListKind): Caching => {
    const { ttlMs, isPublic } = kept[kind] ?? uncached;
    return { ttlMs, isPublic };
  };
  const all = <T>(of: (kind: ListKind) => T) => ({
    tools: of("tools"),
    prompts: of("prompts"),
    resources: of("resources"),
    templates: of("templates"),
  });
  return { facts, ...all(itemsOf), caching: all(cachingOf) };
}

interface ReadList {
  readonly items: readonly CatalogItem[];
  readonly caching: Caching;
  /** Why items are left out, if any are. */
  readonly skipped: string | undefined;
}

async function listAll(leg: Leg, kind: ListKind, signal: AbortSignal): Promise<ReadList> {
  const { method, field } = listKinds[kind];
  const items = new Map<string, CatalogItem>(); // a name that is listed twice is one thing; the first wins
  const cursors = new Set<string>();
  let cursor: string | undefined;
  let bytes = 0;
  let seen = 0;
  let skipped = 0;
  let firstFault = "";
  let caching: Caching | undefined;
  const all = (): ReadList => ({
    items: [...items.values()],
    caching: caching ?? uncached,
    skipped: skipped === 0 ? undefined : `${method}: ${skipped} of ${seen} items left out; ${firstFault}`,
  });
  for (let page = 0; page < pagesMax; page++) {
    const params = cursor === undefined ? undefined : `{"cursor":${cursor}}`;
    const response = await leg.request(readMessage(request(method, params, `"vmcp-${kind}-${page}"`)), { signal });
    if (response.error && isUnknownMethod(response)) return all();
    if (response.error) throw bad(`${method} was refused: ${printable(errorText(response), 200)}`);
    const start = response.result?.start;
    const list = start === undefined ? undefined : member(response.json, start, field);
    if (start === undefined || !list) throw bad(`${method} was answered without "${field}"`);
    for (const { start, end } of elements(response.json, list.start)) {
      const item = readItem(response.json.subarray(start, end), kind, leg.facts);
      seen++;
      if (typeof item === "string") {
        firstFault ||= `item ${seen} ${item}`;
        skipped++;
      } else if (!items.has(item.key)) items.set(item.key, item);
    }
    caching = shorter(caching, readCaching(response, start));
    bytes += response.json.length;
    if (seen > itemsMax || bytes > catalogBytesMax) throw bad(`${method} gives more than we hold`);
    cursor = readCursor(response, start, method);
    if (cursor === undefined) return all();
    if (cursors.has(cursor)) throw bad(`${method} gives the same cursor twice`);
    cursors.add(cursor);
  }
  throw bad(`${method} has more than ${pagesMax} pages`);
}

function bad(message: string): BackendError {
  return new BackendError("bad_answer", "not_executed", message);
}

/** The item, or what is wrong with it. */
function readItem(json: Buffer, kind: ListKind, { era }: ServerFacts): CatalogItem | string {
  const { key } = listKinds[kind];
  const value = parsed(json);
  if (value === undefined) return "is not JSON in UTF-8";
  const name: unknown = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  if (typeof name !== "string" || name === "") return `has no "${key}"`;
  const item = { key: name, json: Buffer.from(json) };
  return kind === "tools" ? readTool(item, value as { inputSchema?: unknown }, era) : item;
}

/**
 * Clients must not use a tool whose annotations break the rules (MCP 2026-07-28, transports, custom headers). To servers of the
 * session era they are words like any others, but clients of the other era see them, and go by them.
 */
function readTool(item: CatalogItem, { inputSchema }: { readonly inputSchema?: unknown }, era: Era): CatalogItem | string {
  const mayHave = item.json.includes("x-mcp-header") || item.json.includes("\\u");
  const paramHeaders = mayHave ? readParamHeaders(inputSchema) : [];
  if (typeof paramHeaders === "string") return era === "stateless" ? paramHeaders : item;
  const sessionJson = era === "stateless" ? wrapOutputSchema(item.json) : undefined;
  return { ...item, ...(paramHeaders.length > 0 ? { paramHeaders } : {}), ...(sessionJson ? { sessionJson } : {}) };
}

function readCaching({ json }: Message, resultStart: number): Caching {
  const ttl = member(json, resultStart, "ttlMs");
  const scope = member(json, resultStart, "cacheScope");
  const ttlMs = ttl && parsed(json.subarray(ttl.start, ttl.end));
  return {
    ttlMs: typeof ttlMs === "number" ? Math.max(0, Math.floor(ttlMs)) : 0,
    isPublic: scope !== undefined && json.toString("latin1", scope.start, scope.end) === '"public"',
  };
}

/** What holds for two answers that are given as one. */
export function shorter(a: Caching | undefined, b: Caching): Caching {
  return a ? { ttlMs: Math.min(a.ttlMs, b.ttlMs), isPublic: a.isPublic && b.isPublic } : b;
}

/** JSON text of the next page's cursor. It goes back as it came, so it has to be sound. */
function readCursor({ json }: Message, resultStart: number, method: string): string | undefined {
  const span = member(json, resultStart, "nextCursor");
  if (!span) return undefined;
  const text = json.subarray(span.start, span.end);
  const value = parsed(text);
  if (value === null) return undefined;
  if (typeof value !== "string" && typeof value !== "number") throw bad(`${method} gives a cursor that is not a string`);
  return text.toString();
}

/** Undefined when it is not JSON in UTF-8. */
function parsed(json: Buffer): unknown {
  try {
    return isUtf8(json) ? JSON.parse(json.toString()) : undefined;
  } catch {
    return undefined;
  }
}

function errorText({ json, error }: Message): Buffer {
  return json.subarray(error?.start ?? 0, error?.end ?? 0);
}

function isUnknownMethod(response: Message): boolean {
  const { error } = response;
  const value = error && (parsed(response.json.subarray(error.start, error.end)) as { code?: unknown } | null | undefined);
  return value?.code === errorCodes.methodNotFound;
}

/** Whether two catalogs list the same bytes, to be kept for as long, of a server that says the same of itself. */
export function isSameCatalog(a: Catalog, b: Catalog): boolean {
  if (a.facts !== b.facts && JSON.stringify(a.facts) !== JSON.stringify(b.facts)) return false;
  return (Object.keys(listKinds) as ListKind[]).every(
    (kind) =>
      a.caching[kind].ttlMs === b.caching[kind].ttlMs &&
      a.caching[kind].isPublic === b.caching[kind].isPublic &&
      a[kind].length === b[kind].length &&
      a[kind].every((item, i) => item.json.equals(b[kind][i]?.json ?? Buffer.alloc(0))),
  );
}
