// What clients of one virtual server see: the catalogs of its backends under the operator's rules, prepared so that a
// request only looks up.
import type { Aggregation } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import {
  type Caching,
  type Catalog,
  type CatalogItem,
  type ListKind,
  listKinds,
  shorter,
  uncached,
} from "../backends/catalog.ts";
import type { ParamHeader } from "../mcp/param-headers.ts";
import { withMembers } from "../mcp/scan.ts";
import { tasksExtension } from "../mcp/stateless.ts";
import type { Era } from "../mcp/versions.ts";
import type { Candidate } from "./conflicts/resolver.ts";
import { mergeInstructions } from "./instructions.ts";
import { resolveNames } from "./names.ts";
import { exposeTool, hiddenBy, overrideOf } from "./overrides.ts";
import { type PreparedList, prepareList } from "./pages.ts";
import { indexTemplates, type OwnedUri, resolveUris, type TemplateIndex } from "./resources.ts";
import { asPlainTool, requiresTask, runsTasks } from "./task-support.ts";

/** Where a call goes. */
export interface Route {
  readonly backend: string;
  /** The backend's own name or URI. */
  readonly original: string;
  /** A tool that the backend only runs as a task. */
  readonly needsTask?: true;
  /** A tool's arguments that are repeated in headers. */
  readonly paramHeaders?: readonly ParamHeader[];
  /** A tool whose output is wrapped into an object for clients of the session era. */
  readonly isWrapped?: true;
  /** Ours: it signs its caller in. */
  readonly isSignIn?: true;
}

/** One line of the report to the operator; hidden things have no `exposed`. */
export interface ViewLine extends Route {
  readonly kind: "tool" | "prompt" | "resource" | "template";
  readonly exposed: string;
  readonly decidedBy: string;
}

export interface View {
  readonly lists: Readonly<Record<ListKind, PreparedList>>;
  readonly tools: ReadonlyMap<string, Route>;
  readonly prompts: ReadonlyMap<string, Route>;
  readonly resources: ReadonlyMap<string, Route>;
  readonly templates: ReadonlyMap<string, Route>;
  readonly templateIndex: TemplateIndex;
  /** Tools that are kept from clients until somebody approves them, by the name that they would have. */
  readonly quarantined: ReadonlyMap<string, Route>;
  readonly instructions: string | undefined;
  /** Capabilities some backend declared, or may declare once it was reached; flags as `resources.subscribe`. */
  readonly offers: ReadonlySet<string>;
  readonly lines: readonly ViewLine[];
}

/** A backend's part; without a catalog it was never reached. */
export interface Source {
  readonly backend: string;
  readonly catalog: Catalog | undefined;
  /** What it has is not shown. It keeps its names all the same, so that they mean the same wherever it is shown. Default false. */
  readonly isHidden?: boolean;
  /** Says which of its tools are to be approved first. Default: none. */
  readonly isQuarantined?: (tool: CatalogItem) => boolean;
}

interface Offer extends Candidate {
  readonly item: Catalog["tools"][number];
  readonly needsTask?: boolean;
  readonly isWrapped?: boolean;
  readonly isQuarantined?: boolean;
}

/** Whether clients of the session era see another view than those of the stateless era. */
export function needsWrapping({ tools }: Catalog): boolean {
  return tools.some(({ sessionJson }) => sessionJson !== undefined);
}

/** Whom a view is for. */
export interface Audience {
  readonly era: Era;
  /** It is the same for every client, so that what backends call public is. */
  readonly isEverybody: boolean;
}

const everybody: Audience = { era: "stateless", isEverybody: true };

/** Merges catalogs. The same sources and rules give the same bytes, on every proxy. */
export function createView(aggregation: Aggregation, unsorted: readonly Source[], audience: Audience = everybody): View {
  const sources = [...unsorted].sort((a, b) => (a.backend < b.backend ? -1 : 1));
  const lines: ViewLine[] = [];
  const tools = mergeTools(aggregation, sources, lines, audience.era);
  const prompts = mergePrompts(aggregation, sources, lines);
  const resources = mergeUris("resources", aggregation, sources, lines);
  const templates = mergeUris("templates", aggregation, sources, lines);
  const prepare = (kind: ListKind, { json }: Merged) => {
    const { ttlMs, isPublic } = cachingOf(kind, sources);
    return prepareList(listKinds[kind].field, json, { ttlMs, isPublic: isPublic && audience.isEverybody });
  };
  return {
    lists: {
      tools: prepare("tools", tools),
      prompts: prepare("prompts", prompts),
      resources: prepare("resources", resources),
      templates: prepare("templates", templates),
    },
    tools: tools.routes,
    prompts: prompts.routes,
    resources: resources.routes,
    templates: templates.routes,
    quarantined: tools.quarantined,
    templateIndex: indexTemplates(templates.owned),
    instructions: mergeInstructions(
      sources.filter(isShown).map(({ backend, catalog }) => ({ backend, instructions: catalog?.facts.instructions })),
    ),
    offers: new Set(
      sources.flatMap((source) => (source.catalog && isShown(source) ? capabilitiesOf(source.catalog) : everyCapability)),
    ),
    lines,
  };
}

function isShown({ isHidden = false }: Source): boolean {
  return !isHidden;
}

const everyCapability = ["tools", "prompts", "resources", "resources.subscribe", "completions", "logging"];

function capabilitiesOf({ facts: { era, capabilities } }: Catalog): string[] {
  const { resources, extensions } = capabilities as { resources?: { subscribe?: unknown }; extensions?: object };
  return [
    ...Object.keys(capabilities),
    ...(resources?.subscribe === true ? ["resources.subscribe"] : []),
    ...(era === "stateless" && Object.hasOwn(extensions ?? {}, tasksExtension) ? [tasksExtension] : []),
  ];
}

/** A list of many backends may be kept as long as the part that may be kept least. One that was never reached may come now. */
function cachingOf(kind: ListKind, sources: readonly Source[]): Caching {
  const caching = sources.map((source) => (isShown(source) ? source.catalog?.caching[kind] : undefined) ?? uncached);
  return caching.reduce(shorter, { ttlMs: ttlMsMax, isPublic: true });
}
const ttlMsMax = 24 * 60 * 60_000;

interface Merged {
  readonly json: Buffer[];
  readonly routes: Map<string, Route>;
  readonly quarantined: Map<string, Route>;
}

function mergeTools(aggregation: Aggregation, sources: readonly Source[], lines: ViewLine[], era: Era): Merged {
  const visible: Offer[] = [];
  for (const { backend, catalog, isQuarantined } of sources) {
    if (!catalog) continue;
    for (const listed of catalog.tools) {
      const isTaskOnly = requiresTask(listed.json);
      const json = (era === "session" && listed.sessionJson) || listed.json;
      const item = { ...listed, json: isTaskOnly ? asPlainTool(json) : json };
      const wanted = overrideOf(aggregation, backend, item.key)?.name || item.key;
      const hidden = hiddenBy(aggregation, backend, wanted);
      if (hidden) lines.push({ kind: "tool", exposed: "", backend, original: item.key, decidedBy: hidden });
      else {
        const needsTask = isTaskOnly && runsTasks(catalog.facts);
        const isWrapped = era === "session" && listed.sessionJson !== undefined;
        const offer = { backend, original: item.key, wanted, item, needsTask, isWrapped };
        visible.push(isQuarantined?.(listed) ? { ...offer, isQuarantined: true } : offer);
      }
    }
  }
  return mergeNamed({ kind: "tool", aggregation, sources, offers: visible, lines }, ({ item, backend, original }, exposed) =>
    exposeTool(item, exposed, overrideOf(aggregation, backend, original)),
  );
}

function mergePrompts(aggregation: Aggregation, sources: readonly Source[], lines: ViewLine[]): Merged {
  const offers = sources.flatMap(({ backend, catalog }) =>
    (catalog?.prompts ?? []).map((item) => ({ backend, original: item.key, wanted: item.key, item })),
  );
  return mergeNamed({ kind: "prompt", aggregation, sources, offers, lines }, ({ item }, exposed) =>
    exposeTool(item, exposed, undefined),
  );
}

interface Merging {
  readonly kind: "tool" | "prompt";
  readonly aggregation: Aggregation;
  /** All of them: a prefix is its backend's even while that backend lists nothing. */
  readonly sources: readonly Source[];
  readonly offers: readonly Offer[];
  readonly lines: ViewLine[];
}

function mergeNamed(
  { kind, aggregation, sources, offers, lines }: Merging,
  expose: (offer: Offer, exposed: string) => Buffer,
): Merged {
  const merged: Merged = { json: [], routes: new Map(), quarantined: new Map() };
  const backends = sources.map(({ backend }) => backend);
  const hidden = hiddenOf(sources);
  for (const { candidate, exposed, decidedBy } of resolveNames(offers, aggregation, backends)) {
    const { backend, original, isQuarantined = false } = candidate;
    const why = hidden.has(backend) ? "unhealthy" : isQuarantined ? "quarantine" : undefined;
    lines.push({ kind, exposed: why ? "" : (exposed ?? ""), backend, original, decidedBy: why ?? decidedBy });
    if (exposed !== undefined && isQuarantined) merged.quarantined.set(exposed, { backend, original });
    if (exposed === undefined || why) continue;
    merged.json.push(expose(candidate, exposed));
    const { needsTask, isWrapped, item } = candidate;
    merged.routes.set(exposed, {
      backend,
      original,
      ...(needsTask ? { needsTask } : {}),
      ...(isWrapped ? { isWrapped } : {}),
      ...(item.isSignIn ? { isSignIn: item.isSignIn } : {}),
      ...(item.paramHeaders ? { paramHeaders: item.paramHeaders } : {}),
    });
  }
  return merged;
}

function mergeUris(
  kind: "resources" | "templates",
  aggregation: Aggregation,
  sources: readonly Source[],
  lines: ViewLine[],
): Merged & { owned: OwnedUri[] } {
  const offers = sources.flatMap(({ backend, catalog }) => (catalog?.[kind] ?? []).map((item) => ({ backend, item })));
  const hidden = hiddenOf(sources);
  const owned = resolveUris(offers, aggregation).filter(({ backend }) => !hidden.has(backend));
  const { key } = listKinds[kind];
  for (const { backend, item, exposed } of owned) {
    const decidedBy = exposed === item.key ? "unique" : "conflict";
    lines.push({ kind: kind === "resources" ? "resource" : "template", exposed, backend, original: item.key, decidedBy });
  }
  return {
    owned,
    json: owned.map(({ item, exposed }) =>
      exposed === item.key ? item.json : withMembers(item.json, { [key]: JSON.stringify(exposed) }),
    ),
    routes: new Map(owned.map(({ backend, item, exposed }) => [exposed, { backend, original: item.key }])),
    quarantined: new Map(),
  };
}

function hiddenOf(sources: readonly Source[]): ReadonlySet<string> {
  return new Set(sources.filter((source) => !isShown(source)).map(({ backend }) => backend));
}
