// What differs between two declarations, by meaning and not by text: maps have no order, and entries of lists that have names are
// compared with their namesakes.
import { type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { hasMask, redact } from "./redact.ts";

export interface Difference {
  /** `aggregation.tools[github].filter`. */
  readonly path: string;
  /** Undefined: it was not there. Secrets are masked. */
  readonly before: JsonValue | undefined;
  /** Undefined: it is not there any more. */
  readonly after: JsonValue | undefined;
  /** Something secret differs, or is in it. */
  readonly hasSecret: boolean;
}

/** Sorted by path. Undefined is what is not declared: then each key of the other side differs. */
export function differences(before: JsonObject | undefined, after: JsonObject | undefined): Difference[] {
  return compare({ before: before ?? {}, after: after ?? {}, keys: [], shown: "" }).sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Of the specs of two resources; undefined is one that is not there. */
export function resourceDifferences(before: Resource | undefined, after: Resource | undefined): Difference[] {
  return differences(specJson(before), specJson(after));
}

interface Pair {
  readonly before: JsonValue | undefined;
  readonly after: JsonValue | undefined;
  /** The way there, for what is secret. */
  readonly keys: readonly (string | number)[];
  /** The same for people. */
  readonly shown: string;
}

function compare(pair: Pair): Difference[] {
  const { before, after, keys, shown } = pair;
  if (isObject(before) && isObject(after)) {
    const all = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...all].flatMap((key) =>
      compare({ before: before[key], after: after[key], keys: [...keys, key], shown: joined(shown, key) }),
    );
  }
  if (Array.isArray(before) && Array.isArray(after)) {
    const [was, is] = [byName(before), byName(after)];
    if (was && is) return compareNamed(pair, was, is);
  }
  if (isSame(before, after)) return [];
  const [shownBefore, shownAfter] = [before, after].map((value) => (value !== undefined ? redact(value, keys) : undefined));
  const hasSecret = hasMask(shownBefore) || hasMask(shownAfter);
  return [{ path: shown, before: shownBefore, after: shownAfter, hasSecret }];
}

function compareNamed({ keys, shown }: Pair, was: Named, is: Named): Difference[] {
  const all = new Set([...was.keys(), ...is.keys()]);
  const inside = [...all].flatMap((name) =>
    compare({ before: was.get(name), after: is.get(name), keys: [...keys, 0], shown: `${shown}[${name}]` }),
  );
  const kept = (some: Named, others: Named) => [...some.keys()].filter((name) => others.has(name));
  const [orderBefore, orderAfter] = [kept(was, is), kept(is, was)];
  if (isSame(orderBefore, orderAfter)) return inside;
  return [{ path: `${shown} (order)`, before: orderBefore, after: orderAfter, hasSecret: false }, ...inside];
}

type Named = ReadonlyMap<string, JsonObject>;

const nameKeys = ["name", "id", "workload", "tool", "issuer", "url"] as const;

/** Undefined unless each entry has a name of its own. */
function byName(list: readonly JsonValue[]): Named | undefined {
  const objects = list.filter(isObject);
  const key = nameKeys.find((one) => objects.some((entry) => typeof entry[one] === "string"));
  if (objects.length < list.length || (key === undefined && list.length > 0)) return undefined;
  const named = new Map(objects.map((entry) => [key && entry[key], entry]));
  const names = [...named.keys()];
  return named.size === list.length && names.every((name) => typeof name === "string") ? (named as Named) : undefined;
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSame(a: JsonValue | undefined, b: JsonValue | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((one, at) => isSame(one, b[at]));
  if (!isObject(a) || !isObject(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && isSame(a[key], b[key]));
}

function joined(shown: string, key: string): string {
  const step = /^[\w-]+$/.test(key) ? key : JSON.stringify(key);
  return shown === "" ? step : `${shown}.${step}`;
}

function specJson(resource: Resource | undefined): JsonObject | undefined {
  if (resource?.spec.case === undefined) return undefined;
  const json = toJson(ResourceSchema, resource) as JsonObject;
  return json[resource.spec.case] as JsonObject;
}
