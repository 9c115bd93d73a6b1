// Finds the parts of a JSON text without parsing it, so that a message can be routed and edited while every byte that
// nobody edits stays what the sender wrote (integers beyond 2^53, duplicate spellings of a number, member order).
//
// The scanner checks nesting, strings and token characters. It does not check that `tru` is a word: texts from clients
// are parsed as well, and texts from backends are passed on as they are.

/** A piece of a JSON text: `json.subarray(start, end)`. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** One member of an object; `start` and `end` enclose its value. */
export interface Member extends Span {
  readonly key: string;
}

/** The text is not JSON, or nested deeper than anything we pass on. */
export class JsonTextError extends Error {
  override name = "JsonTextError";
}

const depthMax = 128;
const quote = 0x22;
const backslash = 0x5c;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const comma = 0x2c;
const colon = 0x3a;

/** The members of the object that begins at `start`; throws JsonTextError when there is none. */
export function members(json: Buffer, start = 0): Member[] {
  const found: Member[] = [];
  let i = skipSpace(json, start);
  if (json[i] !== openBrace) throw new JsonTextError("expected an object");
  i = skipSpace(json, i + 1);
  if (json[i] === closeBrace) return found;
  for (;;) {
    if (json[i] !== quote) throw new JsonTextError("expected a member name");
    const keyEnd = endOfString(json, i);
    const key = readString(json, i, keyEnd);
    i = skipSpace(json, keyEnd);
    if (json[i] !== colon) throw new JsonTextError("expected a colon");
    const valueStart = skipSpace(json, i + 1);
    const valueEnd = endOfValue(json, valueStart);
    found.push({ key, start: valueStart, end: valueEnd });
    i = skipSpace(json, valueEnd);
    if (json[i] === closeBrace) return found;
    if (json[i] !== comma) throw new JsonTextError("expected a comma or the end of the object");
    i = skipSpace(json, i + 1);
  }
}

/** The elements of the array that begins at `start`; throws JsonTextError when there is none. */
export function elements(json: Buffer, start = 0): Span[] {
  const found: Span[] = [];
  let i = skipSpace(json, start);
  if (json[i] !== openBracket) throw new JsonTextError("expected an array");
  i = skipSpace(json, i + 1);
  if (json[i] === closeBracket) return found;
  for (;;) {
    const end = endOfValue(json, i);
    found.push({ start: i, end });
    i = skipSpace(json, end);
    if (json[i] === closeBracket) return found;
    if (json[i] !== comma) throw new JsonTextError("expected a comma or the end of the array");
    i = skipSpace(json, i + 1);
  }
}

/** The value of a member; undefined when the object at `start` has none of that name. The last wins, as in JSON.parse. */
export function member(json: Buffer, start: number, key: string): Span | undefined {
  return members(json, start).findLast((candidate) => candidate.key === key);
}

/** Index after the value that begins at `start`. */
function endOfValue(json: Buffer, start: number): number {
  const first = json[start];
  if (first === quote) return endOfString(json, start);
  if (first === openBrace || first === openBracket) return endOfContainer(json, start);
  let i = start;
  while (i < json.length && isTokenByte(json[i] as number)) i++;
  if (i === start) throw new JsonTextError("expected a value");
  return i;
}

/** Whether only white space follows `end`. */
export function isAtEnd(json: Buffer, end: number): boolean {
  return skipSpace(json, end) === json.length;
}

/** A JSON object text with some members replaced, or added when it has none of that name; everything else keeps its bytes. */
export function withMembers(json: Buffer, replacements: Readonly<Record<string, Buffer | string>>): Buffer {
  const present = members(json);
  const edits: Edit[] = [];
  const missing: string[] = [];
  for (const [key, value] of Object.entries(replacements)) {
    const same = present.filter((candidate) => candidate.key === key);
    for (const { start, end } of same) edits.push({ start, end, text: value });
    if (same.length === 0) missing.push(`${JSON.stringify(key)}:${value.toString()}`);
  }
  if (missing.length > 0) {
    const at = present.at(-1)?.end ?? json.indexOf(openBrace) + 1;
    edits.push({ start: at, end: at, text: (present.length > 0 ? "," : "") + missing.join(",") });
  }
  return splice(json, edits);
}

/** A JSON object text without some members; everything else keeps its bytes. */
export function withoutMembers(json: Buffer, keys: readonly string[]): Buffer {
  const present = members(json);
  const kept = present.filter(({ key }) => !keys.includes(key));
  if (kept.length === present.length) return json;
  const texts = kept.map(({ key, start, end }) => `${JSON.stringify(key)}:${json.toString("utf8", start, end)}`);
  return Buffer.from(`{${texts.join(",")}}`);
}

/** A replacement of one span. */
export interface Edit extends Span {
  readonly text: Buffer | string;
}

/** The text with spans replaced; the spans must not overlap. */
export function splice(json: Buffer, edits: readonly Edit[]): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (const { start, end, text } of [...edits].sort((a, b) => a.start - b.start)) {
    parts.push(json.subarray(at, start), typeof text === "string" ? Buffer.from(text) : text);
    at = end;
  }
  parts.push(json.subarray(at));
  return Buffer.concat(parts);
}

function endOfString(json: Buffer, start: number): number {
  let at = start + 1;
  for (;;) {
    const end = json.indexOf(quote, at);
    if (end < 0) throw new JsonTextError("a string does not end");
    let slashes = 0;
    while (json[end - 1 - slashes] === backslash) slashes++;
    if (slashes % 2 === 0) return end + 1;
    at = end + 1;
  }
}

function endOfContainer(json: Buffer, start: number): number {
  const closers: number[] = [];
  let i = start;
  while (i < json.length) {
    const byte = json[i] as number;
    if (byte === quote) {
      i = endOfString(json, i);
      continue;
    }
    if (byte === openBrace || byte === openBracket) {
      if (closers.length === depthMax) throw new JsonTextError(`nested deeper than ${depthMax}`);
      closers.push(byte + 2); // `}` and `]` stand two after their openers in ASCII
    } else if (byte === closeBrace || byte === closeBracket) {
      if (closers.pop() !== byte) throw new JsonTextError("brackets do not match");
      if (closers.length === 0) return i + 1;
    } else if (!isTokenByte(byte) && !isSpace(byte) && byte !== comma && byte !== colon) {
      throw new JsonTextError("a character that JSON does not have");
    }
    i++;
  }
  throw new JsonTextError("an object or array does not end");
}

function readString(json: Buffer, start: number, end: number): string {
  const text = json.toString("utf8", start + 1, end - 1);
  if (!text.includes("\\")) return text;
  try {
    return JSON.parse(`"${text}"`) as string;
  } catch {
    throw new JsonTextError("a string has a bad escape");
  }
}

function skipSpace(json: Buffer, start: number): number {
  let i = start;
  while (i < json.length && isSpace(json[i] as number)) i++;
  return i;
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

// Numbers, true, false and null are made of these: + - . 0-9 E a-z
function isTokenByte(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e ||
    byte === 0x45
  );
}
