// What several providers see → groups and backends, and those laid over what is declared.
import { create } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { groupsMax, type Seen, workloadsMax } from "./checked.ts";

/** Everything that is discovered, as resources; they have no revision, because nobody committed them. */
export interface Found {
  /** Names, sorted. */
  readonly groups: readonly string[];
  /** Groups and their backends, sorted by name. */
  readonly resources: readonly Resource[];
  /** By resource name of a backend: the provider that sees it. */
  readonly sources: ReadonlyMap<string, string>;
  /** What is left out because somebody else has it. */
  readonly clashes: readonly Clash[];
}

export interface Clash {
  /** Whose backend is left out. */
  readonly provider: string;
  readonly message: string;
}

export const nothingFound: Found = { groups: [], resources: [], sources: new Map(), clashes: [] };

/** One provider's part. */
export interface Part {
  readonly provider: string;
  readonly backends: ReadonlyMap<string, Seen>;
  readonly groups: readonly string[];
}

/** Of a name that several have, the first provider's stays. */
export function merge(parts: readonly Part[]): Found {
  const groups = new Set<string>();
  const taken = new Map<string, { readonly provider: string; readonly seen: Seen }>();
  const clashes: Clash[] = [];
  for (const { provider, backends, groups: own } of parts) {
    for (const group of own) if (groups.size < groupsMax) groups.add(group);
    for (const [key, seen] of backends) {
      const first = taken.get(key);
      const leaveOut = (why: string) => clashes.push({ provider, message: `${key} of ${provider} is left out: ${why}` });
      if (first) leaveOut(`${first.provider} has one of that name`);
      else if (taken.size >= workloadsMax || !groups.has(seen.group)) leaveOut("there are too many");
      else taken.set(key, { provider, seen });
    }
  }
  const sources = new Map<string, string>();
  const resources = [...groups].map((name) =>
    create(ResourceSchema, { name: `groups/${name}`, spec: { case: "group", value: {} } }),
  );
  for (const { provider, seen } of taken.values()) {
    const resource = backendResource(seen);
    sources.set(resource.name, provider);
    resources.push(resource);
  }
  return { groups: [...groups].sort(), resources: resources.sort(byName), sources, clashes };
}

/**
 * Declared and discovered together, for the compiler. Declared ones win. Labels are left behind: proxies need none, and a label
 * that changes is no reason to connect anew.
 */
export function overlay(declared: readonly Resource[], found: Found): readonly Resource[] {
  if (found.resources.length === 0) return declared;
  const names = new Set(declared.map(({ name }) => name));
  const added = found.resources.filter(({ name }) => !names.has(name)).map(withoutLabels);
  return [...declared, ...added].sort(byName);
}

function backendResource({ group, name, transport, urls, metadata }: Seen): Resource {
  const [url = "", ...others] = urls;
  const place = others.length === 0 ? { url } : { endpoints: urls.map((one) => ({ url: one })) };
  return create(ResourceSchema, {
    name: `groups/${group}/backends/${name}`,
    spec: { case: "backend", value: { name, transport, metadata, ...place } },
  });
}

function withoutLabels(resource: Resource): Resource {
  const { spec } = resource;
  return spec.case === "backend" ? { ...resource, spec: { case: "backend", value: { ...spec.value, metadata: {} } } } : resource;
}

function byName(a: Resource, b: Resource): number {
  return a.name < b.name ? -1 : 1;
}
