// Bytes → text, or a clear word on why they are no text.
import { TextDecoder } from "node:util";
import type { Fault } from "./plain.ts";

/** `fault` when it can't be read as YAML text at all. `text` is then what can be shown of it. */
export function readText(input: string | Uint8Array): { text: string; fault?: Fault } {
  let text: string;
  try {
    text = typeof input === "string" ? input : new TextDecoder("utf-8", { fatal: true }).decode(input);
  } catch {
    return notUtf8(input as Uint8Array);
  }
  if (text.startsWith("\ufeff")) text = text.slice(1); // the byte order mark that some editors write
  if (!text.isWellFormed())
    return {
      text: text.toWellFormed(),
      fault: { message: "the text has halves of characters in it", range: { start: 0, end: 1 } },
    };
  const nul = text.indexOf("\0");
  if (nul === -1) return { text };
  return {
    text,
    fault: {
      message: "there is a NUL character in the text, so it is no YAML",
      hint: "is it the right file? Save it as UTF-8",
      range: { start: nul, end: nul + 1 },
    },
  };
}

function notUtf8(bytes: Uint8Array): { text: string; fault: Fault } {
  const [first, second] = bytes;
  const isUtf16 = (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff);
  const text = new TextDecoder("utf-8").decode(bytes.subarray(0, 256 * 1024));
  const start = Math.max(0, text.indexOf("\ufffd"));
  const hint = isUtf16 ? "it looks like UTF-16; save it as UTF-8" : "save it as UTF-8";
  return {
    text: isUtf16 ? "" : text,
    fault: { message: "the file is not UTF-8 text", hint, range: { start: isUtf16 ? 0 : start, end: start + 1 } },
  };
}
