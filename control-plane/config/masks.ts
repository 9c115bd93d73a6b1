// The parts of a text that no report may show: values of keys that hold secrets, and credentials in URLs.
import { isHeaderMap, isSecretName, isSecretPath } from "../resources/secrets.ts";
import type { Plain, Range } from "./plain.ts";

/** Works without `documents` too, as when the text is no YAML; then it goes by what looks like `key: value`. */
export function secretRanges(text: string, documents: readonly Plain[]): Range[] {
  return [...documents.flatMap(secretsOf), ...lookAlikes(text, documents.length === 0), ...userInfos(text)];
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
const keyMark = /(?<![\w.-])([\w.-]{1,64})["']?[ \t]{0,8}:(?![\w/])[ \t]{0,8}/g;
const restOfLine = /[^\n]*/y;
const scalar = /"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|[^\n,}]*/y;

function lookAlikes(text: string, isBroken: boolean): Range[] {
  const ranges: Range[] = [];
  let covered = 0; // what is masked already is not looked at again, or nested blocks would cost their square
  for (const match of text.matchAll(keyMark)) {
    const [all, key = ""] = match;
    if (match.index < covered) continue;
    const isMap = isBroken && isHeaderMap(key);
    if (!isMap && !isSecretName(key)) continue;
    const start = match.index + all.length;
    const pattern = isBroken ? restOfLine : scalar; // where a value ends in broken YAML is anybody's guess
    pattern.lastIndex = start;
    const value = (pattern.exec(text)?.[0] ?? "").trimEnd();
    if (isReference(value.replace(/^["']/, ""))) continue;
    const isBlock = isMap || /^\s*$|^[|>&![{]/.test(value);
    const end = start + value.length;
    covered = isBlock ? Math.max(endOfBlock(text, match.index), end) : end;
    ranges.push({ start, end: covered });
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
    if (line.trim() !== "" && depth <= indent) break;
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
