// Text as a header's value: plain when every hop leaves it alone, else Base64 in a wrapping that says so.
// Source: MCP 2026-07-28, streamable HTTP, value encoding.
import { isUtf8 } from "node:buffer";

const prefix = "=?base64?";
const suffix = "?=";

/** The value that stands for `text`. Lone surrogates become U+FFFD: UTF-8 has no bytes for them. */
export function encodeHeaderValue(text: string): string {
  const isPlain = /^[ -~\t]*$/.test(text) && trimOptionalSpace(text) === text && !isWrapped(text);
  return isPlain ? text : prefix + Buffer.from(text).toString("base64") + suffix;
}

/** The text that a value stands for; undefined when it is wrapped, but does not hold Base64 of UTF-8 as an encoder writes it. */
export function decodeHeaderValue(raw: string): string | undefined {
  const value = trimOptionalSpace(raw);
  if (!isWrapped(value)) return value;
  // One question mark for both ends: some would read an empty text here, some the value itself.
  if (value.length < prefix.length + suffix.length) return undefined;
  const payload = value.slice(prefix.length, -suffix.length);
  const bytes = Buffer.from(payload, "base64");
  // Node skips what is not Base64 and needs no padding; one text must not have several spellings.
  if (bytes.toString("base64") !== payload || !isUtf8(bytes)) return undefined;
  return bytes.toString();
}

/** Without the spaces and tabs around it that HTTP allows any hop to add or to drop. */
export function trimOptionalSpace(value: string): string {
  // No pattern: one that is tied to the end takes quadratic time on a long run of spaces before it.
  let start = 0;
  let end = value.length;
  while (start < end && isOptionalSpace(value[start])) start++;
  while (end > start && isOptionalSpace(value[end - 1])) end--;
  return value.slice(start, end);
}

function isOptionalSpace(character: string | undefined): boolean {
  return character === " " || character === "\t";
}

function isWrapped(value: string): boolean {
  return value.startsWith(prefix) && value.endsWith(suffix);
}
