// What a provider says it sees → what can be used of it: bounded, of the right shape, one entry per backend.
import { createHash } from "node:crypto";
import { groupName, isHttpUrl, plainName } from "../resources/schema/fields.ts";
import { ProviderError, type Sighting, type Workload } from "./provider.ts";

/** One backend that a provider sees, with all its instances. */
export interface Seen {
  readonly group: string;
  readonly name: string;
  readonly transport: Workload["transport"];
  /** Sorted; at least one, several only over streamable HTTP. */
  readonly urls: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** A sighting that was looked through. */
export interface Checked {
  /** By `group/name`. */
  readonly backends: ReadonlyMap<string, Seen>;
  /** Sorted; also those without backends. */
  readonly groups: readonly string[];
  /** What was left out or renamed, and why. */
  readonly problems: readonly string[];
}

export const workloadsMax = 5_000;
export const groupsMax = 500;
const instancesMax = 64; // as for declared endpoints
const urlCharactersMax = 2_048;
const metadataMax = { entries: 64, characters: 4_096 };
const problemsMax = 20;

/** Never throws for a single workload; throws ProviderError when the whole is no sighting. */
export function checkSighting(sighting: Sighting): Checked {
  const problems: string[] = [...(sighting?.problems ?? [])].map(oneLine);
  if (!Array.isArray(sighting?.workloads))
    throw new ProviderError("the provider answered something that is no list of workloads");
  const named = new Set<string>();
  for (const group of sighting.groups ?? []) {
    if (isGroupName(group)) named.add(group);
    else problems.push(`group ${quoted(group)} is left out: that is no name of a group`);
  }
  const good: Workload[] = [];
  for (const workload of sighting.workloads as readonly unknown[]) {
    const fault = faultOf(workload);
    if (fault === undefined) good.push(workload as Workload);
    else problems.push(`workload ${nameFor(workload)} is left out: ${fault}`);
  }
  const all = [...new Set([...named, ...good.map(({ group }) => group)])].sort();
  const groups = new Set(all.slice(0, groupsMax));
  if (all.length > groupsMax) problems.push(`${all.length} groups; only the first ${groupsMax} by name are taken`);
  const members = [...byBackend(good, problems)].filter(([, { instances }]) => groups.has(instances[0]?.group ?? ""));
  if (members.length > workloadsMax)
    problems.push(`${members.length} workloads; only the first ${workloadsMax} by name are taken`);
  const kept = members.sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, workloadsMax);
  const backends = new Map(kept.map(([key, one]) => [key, oneBackend(one, problems)]));
  const more = problems.length - problemsMax;
  const shown = more > 0 ? [...problems.slice(0, problemsMax - 1), `and ${more + 1} more problems`] : problems;
  return { backends, groups: [...groups], problems: shown };
}

interface Named {
  readonly name: string;
  readonly instances: Workload[];
}

/** Workloads by `group/name`, under names that backends may have. */
function byBackend(workloads: readonly Workload[], problems: string[]): Map<string, Named> {
  const found = new Map<string, Named>();
  // Those with a good name first: nobody takes it from them by being renamed.
  const [good, odd] = [workloads.filter(({ name }) => isPlainName(name)), workloads.filter(({ name }) => !isPlainName(name))];
  for (const workload of good) add(found, workload.name, workload);
  const originals = new Map<string, string>();
  for (const workload of odd.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const name = plainNameFor(workload.name);
    const key = `${workload.group}/${name}`;
    if (found.has(key) && originals.get(key) !== workload.name) {
      problems.push(`workload ${quoted(workload.name)} is left out: as ${quoted(name)} it would be one with another workload`);
      continue;
    }
    if (!found.has(key)) problems.push(`workload ${quoted(workload.name)} is named ${quoted(name)} here`);
    originals.set(key, workload.name);
    add(found, name, workload);
  }
  return found;
}

function add(found: Map<string, Named>, name: string, workload: Workload): void {
  const key = `${workload.group}/${name}`;
  const named = found.get(key);
  if (named) named.instances.push(workload);
  else found.set(key, { name, instances: [workload] });
}

/** The running instances, or all when none runs; one that is stopped keeps its place. */
function oneBackend({ name, instances }: Named, problems: string[]): Seen {
  const running = instances.filter(({ isRunning }) => isRunning);
  const usable = [...(running.length > 0 ? running : instances)].sort((a, b) => (a.url < b.url ? -1 : a.url > b.url ? 1 : 0));
  const first = usable[0] as Workload;
  const alike = usable.filter(({ transport }) => transport === first.transport);
  const urls = [...new Set(alike.map(({ url }) => withoutFragment(url)))];
  const { group, transport } = first;
  const most = transport === "sse" ? 1 : instancesMax;
  if (alike.length < usable.length || urls.length > most) {
    const why = transport === "sse" ? "a backend over HTTP+SSE has one" : `of one transport, and at most ${instancesMax}`;
    problems.push(`some instances of ${quoted(name)} in ${quoted(group)} are left out: ${why}`);
  }
  return { group, name, transport, urls: urls.slice(0, most), metadata: boundedMetadata(first) };
}

function faultOf(workload: unknown): string | undefined {
  if (typeof workload !== "object" || workload === null) return "it is no map";
  const { group, name, url, transport, isRunning, metadata } = workload as Record<string, unknown>;
  if (typeof name !== "string" || name === "" || name.length > 253) return "it has no usable name";
  if (!isGroupName(group)) return `its group ${quoted(group)} is no name of a group`;
  if (transport !== "streamable-http" && transport !== "sse") return `its transport ${quoted(transport)} is not known`;
  if (typeof url !== "string" || url.length > urlCharactersMax || !isHttpUrl(url))
    return "its address is not an http or https URL without credentials in it";
  if (typeof isRunning !== "boolean") return "it does not say whether it runs";
  return typeof metadata === "object" && metadata !== null ? undefined : "its labels are no map";
}

function isGroupName(value: unknown): value is string {
  return groupName.safeParse(value).success;
}

function isPlainName(value: string): boolean {
  return plainName.safeParse(value).success;
}

/** The same for the same name, always; two names that differ only in what is cut off or replaced may meet, and are told so. */
function plainNameFor(original: string): string {
  const clean = original
    .normalize("NFKD")
    .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "")
    .replace(/-+$/, "");
  if (clean !== "" && clean.length <= 63) return clean;
  const digest = createHash("sha256").update(original).digest("hex").slice(0, 8);
  return clean === "" ? `workload-${digest}` : `${clean.slice(0, 54)}-${digest}`;
}

function withoutFragment(url: string): string {
  return url.replace(/#.*$/, "");
}

// Labels are for people; who has very many is shown some of them.
function boundedMetadata({ metadata }: Workload): Record<string, string> {
  const bounded: Record<string, string> = {};
  let characters = 0;
  for (const key of Object.keys(metadata).sort().slice(0, metadataMax.entries)) {
    const value = metadata[key];
    if (typeof value !== "string") continue;
    characters += key.length + value.length;
    if (characters > metadataMax.characters) break;
    bounded[key] = value;
  }
  return bounded;
}

function nameFor(workload: unknown): string {
  const name = (workload as { name?: unknown } | null | undefined)?.name;
  return typeof name === "string" ? quoted(name) : "without a name";
}

function quoted(value: unknown): string {
  return oneLine(JSON.stringify(value) ?? "nothing").slice(0, 100);
}

function oneLine(text: string): string {
  return String(text)
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ")
    .slice(0, 300);
}
