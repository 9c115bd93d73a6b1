// A composed YAML document → plain values, and where in the text each of them stands.
// The library's own conversion knows no places, counts duplicates quadratically and bounds aliases by their number only.
import { type Document, isAlias, isMap, isScalar, isSeq, type Node, type Pair } from "yaml";
import { entriesMax } from "./bounds.ts";

/** Offsets into the text; `end` is behind the last character. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

export interface Spot {
  readonly key: Range | undefined;
  readonly value: Range;
  /** The scalar as it is written, when it is a plain one. */
  readonly written: string | undefined;
  /** One word, not a map or list. */
  readonly isScalar: boolean;
}

export interface Fault {
  readonly message: string;
  readonly hint?: string;
  readonly range: Range;
  /** Where the other one of two stands. */
  readonly other?: Range;
}

export interface Plain {
  readonly value: unknown;
  readonly root: Range;
  readonly faults: readonly Fault[];
  /** Where `path` stands; undefined when there is nothing. */
  spot(path: readonly (string | number)[]): Spot | undefined;
}

const aliasesMax = 100;
// Aliases may repeat what the text holds once, up to the size that a text without aliases may have.
const nodesMax = 2 * entriesMax;

export function toPlain(document: Document.Parsed): Plain {
  const spots = new WeakMap<object, Map<string | number, Spot>>();
  const anchors = new Map<string, Node>();
  const open = new Set<Node>();
  const faults: Fault[] = [];
  let aliases = 0;
  let nodes = 0;

  function convert(node: Node | null | undefined): unknown {
    if (node === null || node === undefined) return null;
    if (++nodes > nodesMax) {
      if (nodes === nodesMax + 1) fault(node, "aliases make this document too large", "write out what is needed");
      return undefined;
    }
    if (isAlias(node)) return follow(node);
    if ("anchor" in node && typeof node.anchor === "string") anchors.set(node.anchor, node);
    if (isScalar(node)) return typeof node.value === "bigint" ? Number(node.value) : node.value;
    open.add(node);
    const value = isMap(node)
      ? convertMap(node.items as Pair<Node, Node | null>[])
      : isSeq(node)
        ? convertList(node.items as Node[])
        : null;
    open.delete(node);
    return value;
  }

  function follow(node: Node & { source: string }): unknown {
    const target = anchors.get(node.source);
    if (++aliases > aliasesMax) {
      if (aliases === aliasesMax + 1) fault(node, `more than ${aliasesMax} aliases`, "write out what is needed");
    } else if (target === undefined) fault(node, `alias *${node.source} without an anchor &${node.source} before it`);
    else if (open.has(target)) fault(node, `alias *${node.source} contains itself`);
    else return convert(target);
    return undefined;
  }

  function convertList(items: readonly (Node | null)[]): unknown[] {
    const places = new Map<string | number, Spot>();
    const list = items.map((item, index) => {
      const value = convert(item);
      places.set(index, spotOf(undefined, item));
      return value;
    });
    spots.set(list, places);
    return list;
  }

  function convertMap(items: readonly Pair<Node, Node | null>[]): Record<string, unknown> {
    const map: Record<string, unknown> = {};
    const places = new Map<string | number, Spot>();
    const merged: { source: Record<string, unknown>; at: Spot }[] = [];
    for (const { key: keyNode, value: valueNode } of items) {
      const key = keyOf(keyNode);
      if (key === undefined) continue;
      const first = places.get(key)?.key;
      if (first !== undefined) {
        faults.push({
          message: `key ${JSON.stringify(key)} stands twice in this map`,
          hint: "keep one of them",
          range: rangeOf(keyNode),
          other: first,
        });
        continue;
      }
      const value = convert(valueNode);
      if (key === "<<") {
        for (const source of Array.isArray(value) ? value : [value]) {
          if (isRecord(source)) merged.push({ source, at: spotOf(keyNode, valueNode) });
          else if (source !== undefined) fault(keyNode, "<< merges maps", "give it an alias of a map, such as *defaults");
        }
        continue;
      }
      if (value !== undefined) map[key] = value;
      places.set(key, spotOf(keyNode, valueNode));
    }
    // https://yaml.org/type/merge.html: keys of the map itself win, then earlier sources.
    for (const { source, at } of merged) {
      for (const [key, value] of Object.entries(source)) {
        if (Object.hasOwn(map, key)) continue;
        map[key] = value;
        places.set(key, spots.get(source)?.get(key) ?? at);
      }
    }
    spots.set(map, places);
    return map;
  }

  function keyOf(node: Node | null): string | undefined {
    if (isScalar(node) && node.value !== null) {
      if ("anchor" in node && typeof node.anchor === "string") anchors.set(node.anchor, node);
      const key = typeof node.value === "string" ? node.value : (node.source ?? String(node.value));
      if (key !== "__proto__") return key;
      fault(node, 'a key can\'t be named "__proto__"');
    } else if (node !== null) fault(node, "a key must be text", isMap(node) ? "to put {…} into a text, quote it" : undefined);
    else faults.push({ message: "a value without a key", range: rootRange });
    return undefined;
  }

  function fault(node: Node, message: string, hint?: string): void {
    faults.push({ message, ...(hint !== undefined && { hint }), range: rangeOf(node) });
  }

  const rootRange = rangeOf(document.contents);
  const value = convert(document.contents);
  return {
    value,
    root: rootRange,
    faults,
    spot(path) {
      let parent = value;
      let found: Spot | undefined;
      for (const part of path) {
        found = isObject(parent) ? spots.get(parent)?.get(part) : undefined;
        if (found === undefined) return undefined;
        parent = (parent as Record<string | number, unknown>)[part];
      }
      return found;
    },
  };
}

function spotOf(key: Node | undefined, value: Node | null): Spot {
  const keyRange = key === undefined ? undefined : rangeOf(key);
  const isPlain = isScalar(value) && value.type === "PLAIN";
  return {
    key: keyRange,
    value: value === null ? { start: keyRange?.end ?? 0, end: keyRange?.end ?? 0 } : rangeOf(value),
    written: isPlain ? value.source : undefined,
    isScalar: value !== null && (isScalar(value) || isAlias(value)),
  };
}

function rangeOf(node: Node | null | undefined): Range {
  const [start, end] = node?.range ?? [0, 0];
  return { start, end };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return isObject(value) && !Array.isArray(value);
}
