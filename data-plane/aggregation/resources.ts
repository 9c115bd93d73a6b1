// Who owns a resource URI. URIs stay what backends call them; when two backends use the same one, the first by priority
// keeps it and the other's gets an alias, so that nothing is dropped and nothing is read from the wrong backend.
import type { Aggregation } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import type { CatalogItem } from "../backends/catalog.ts";
import { comparableUri, readUriTemplate } from "./uri-template.ts";

/** A resource or template with its owner. */
export interface OwnedUri {
  readonly backend: string;
  readonly item: CatalogItem;
  /** What clients use. */
  readonly exposed: string;
}

/** Gives every URI of one kind its owner; the result keeps the order of `offers`. */
export function resolveUris(offers: readonly { backend: string; item: CatalogItem }[], aggregation: Aggregation): OwnedUri[] {
  const order = aggregation.conflictResolutionConfig?.priorityOrder ?? [];
  const rank = (backend: string): number => (order.includes(backend) ? order.indexOf(backend) : order.length);
  const taken = new Set<string>();
  const exposed = new Map<object, string>();
  for (const offer of [...offers].sort((a, b) => rank(a.backend) - rank(b.backend))) {
    const { backend, item } = offer;
    let uri = item.key;
    while (taken.has(uri)) uri = aliasUri(uri, backend);
    taken.add(uri);
    exposed.set(offer, uri);
  }
  return offers.map((offer) => ({ ...offer, exposed: exposed.get(offer) as string }));
}

/** The alias of a URI or template: `file:///x` of `docs` becomes `docs+file:///x` (a legal scheme, RFC 3986 3.1). */
function aliasUri(uri: string, backend: string): string {
  const slug = `b${backend.toLowerCase()}`.replace(/^b(?=[a-z])/, "").replace(/[^a-z0-9.-]/g, "-");
  // Clients know `ui:` (MCP Apps) by its scheme, so there the backend goes into the authority.
  if (uri.startsWith("ui://")) return `ui://${slug}.${uri.slice("ui://".length)}`;
  return /^[a-z][a-z0-9+.-]*:/i.test(uri) ? `${slug}+${uri}` : `${slug}:${uri}`;
}

/** Finds the template a URI was made from; the one with the most literal characters wins. */
export interface TemplateIndex {
  match(uri: string): { backend: string; original: string } | undefined;
}

// Characters looked at for the templates of one backend: a few milliseconds. Ten thousand ordinary templates cost a tenth
// of it; a backend with worse ones spends its own share and nobody else's.
const stepsMax = 4_000_000;

/** Prepares the templates of one view. What can't be read as a template stays listed and matches nothing. */
export function indexTemplates(templates: readonly OwnedUri[]): TemplateIndex {
  const prepared = templates
    .flatMap((owned) => {
      const template = readUriTemplate(owned.exposed);
      return template ? [{ owned, template }] : [];
    })
    .sort((a, b) => b.template.literalLength - a.template.literalLength);
  return {
    match(uri) {
      const comparable = comparableUri(uri);
      if (comparable === undefined) return undefined;
      const steps = new Map<string, number>();
      const found = prepared.find(({ owned: { backend }, template }) => {
        const before = (steps.get(backend) ?? 0) + template.literalLength;
        const fits = before <= stepsMax && template.fitsEnds(comparable);
        const after = fits ? before + template.partCount * comparable.length : before;
        steps.set(backend, after);
        return fits && after <= stepsMax && template.matches(comparable);
      })?.owned;
      return found && { backend: found.backend, original: withoutAlias(uri, found) };
    },
  };
}

// An alias puts text in one place of the template's literal head, so taking the same text out of a URI undoes it.
function withoutAlias(uri: string, { item, exposed }: OwnedUri): string {
  const added = exposed.length - item.key.length;
  const at = exposed.startsWith("ui://") ? "ui://".length : 0;
  return uri.slice(0, at) + uri.slice(at + added);
}
