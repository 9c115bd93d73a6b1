// The parts of a text that no report may show: values of keys that hold secrets, and credentials in URLs.
import { isSecretName, isSecretPath } from "../resources/secrets.ts";
import type { Plain, Range } from "./plain.ts";

/** Works without `documents` too, as when the text is no YAML; then it goes by what looks like `key: value`. */
export function secretRanges(text: string, documents: readonly Plain[]): Range[] {
  return [...documents.flatMap(secretsOf), ...lookAlikes(text), ...userInfos(text)];
}

function secretsOf(document: Plain): Range[] {
  const ranges: Range[] = [];
  const walk = (value: unknown, path: (string | number)[]): void => {
    if (typeof value === "object" && value !== null) {
      const entries = Array.isArray(value) ? value.entries() : Object.entries(value);
      for (const [key, entry] of entries) walk(entry, [...path, key]);
    } else if (isSecretPath(path) && !isReference(value)) {
      const spot = document.spot(path);
      if (spot !== undefined) ranges.push(spot.value);
    }
  };
  walk(document.value, []);
  return ranges;
}

/** `env:NAME` and `file:/path` say where a secret is. */
function isReference(value: unknown): boolean {
  return typeof value === "string" && /^(env:|file:\/)/.test(value);
}

// The bounds keep it linear: a key begins at a word's beginning and is short.
const keyValue =
  /(?<![\w.-])([\w.-]{1,64})["']?[ \t]{0,8}:(?![\w/])[ \t]{0,8}("(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|[^\s,}\]][^\n,}]*)/g;

function lookAlikes(text: string): Range[] {
  const ranges: Range[] = [];
  for (const match of text.matchAll(keyValue)) {
    const [all, key = "", value = ""] = match;
    if (!isSecretName(key) || isReference(value)) continue;
    const start = match.index + all.length - value.length;
    const isBlock = /^[|>]/.test(value) || value.startsWith("&") || value.startsWith("!");
    ranges.push({ start, end: isBlock ? endOfBlock(text, match.index) : start + value.length });
  }
  return ranges;
}

/** Where the lines that are indented deeper than the line of `offset` end. */
function endOfBlock(text: string, offset: number): number {
  const lineStart = text.lastIndexOf("\n", offset) + 1;
  const indent = /^[ \t-]*/.exec(text.slice(lineStart, lineStart + 512))?.[0].length ?? 0;
  let end = text.indexOf("\n", offset);
  while (end !== -1) {
    const next = text.indexOf("\n", end + 1);
    const line = text.slice(end + 1, next === -1 ? undefined : next);
    const depth = line.length - line.trimStart().length;
    if (line.trim() !== "" && depth <= Math.min(indent, depth)) break;
    end = next;
  }
  return end === -1 ? text.length : end;
}

function userInfos(text: string): Range[] {
  return [...text.matchAll(/:\/\/([^\s/@"']{1,256})@/g)].map((match) => ({
    start: match.index + 3,
    end: match.index + 3 + (match[1] ?? "").length,
  }));
}
