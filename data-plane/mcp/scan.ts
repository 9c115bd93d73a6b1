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

/** One member of an object; `start` and `end` enclose its value, its name begins at `nameStart`. */
export interface Member extends Span {
  readonly key: string;
  readonly nameStart: number;
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
  readMembers(json, start, (key, valueStart, nameStart) => {
    const end = endOfValue(json, valueStart);
    found.push({ key, nameStart, start: valueStart, end });
    return end;
  });
  return found;
}

/** The elements of the array that begins at `start`; throws JsonTextError when there is none. */
export function elements(json: Buffer, start = 0): Span[] {
  const found: Span[] = [];
  readElements(json, start, (valueStart) => {
    const end = endOfValue(json, valueStart);
    found.push({ start: valueStart, end });
    return end;
  });
  return found;
}

/**
 * Goes through the object that begins at `start`. `readValue` says where a value ends, so it may go through that value in
 * turn: a nested text is then read once, not once per level. Gives the index after the object.
 */
export function readMembers(
  json: Buffer,
  start: number,
  readValue: (key: string, valueStart: number, nameStart: number) => number,
): number {
  let i = skipSpace(json, start);
  if (json[i] !== openBrace) throw new JsonTextError("expected an object");
  i = skipSpace(json, i + 1);
  if (json[i] === closeBrace) return i + 1;
  for (;;) {
    if (json[i] !== quote) throw new JsonTextError("expected a member name");
    const nameStart = i;
    const nameEnd = endOfString(json, i);
    const key = readString(json, { start: i, end: nameEnd });
    i = skipSpace(json, nameEnd);
    if (json[i] !== colon) throw new JsonTextError("expected a colon");
    i = skipSpace(json, readValue(key, skipSpace(json, i + 1), nameStart));
    if (json[i] === closeBrace) return i + 1;
    if (json[i] !== comma) throw new JsonTextError("expected a comma or the end of the object");
    i = skipSpace(json, i + 1);
  }
}

/** The same for the array that begins at `start`. */
export function readElements(json: Buffer, start: number, readValue: (valueStart: number) => number): number {
  let i = skipSpace(json, start);
  if (json[i] !== openBracket) throw new JsonTextError("expected an array");
  i = skipSpace(json, i + 1);
  if (json[i] === closeBracket) return i + 1;
  for (;;) {
    i = skipSpace(json, readValue(i));
    if (json[i] === closeBracket) return i + 1;
    if (json[i] !== comma) throw new JsonTextError("expected a comma or the end of the array");
    i = skipSpace(json, i + 1);
  }
}

/** The value of a member; undefined when the object at `start` has none of that name. The last wins, as in JSON.parse. */
export function member(json: Buffer, start: number, key: string): Span | undefined {
  return members(json, start).findLast((candidate) => candidate.key === key);
}

/** Index after the value that begins at `start`; inside it nothing is decoded. */
export function endOfValue(json: Buffer, start: number): number {
  const first = json[start];
  if (first === quote) return endOfString(json, start);
  if (first === openBrace || first === openBracket) return endOfContainer(json, start);
  let i = start;
  while (i < json.length && isTokenByte(json[i] as number)) i++;
  if (i === start) throw new JsonTextError("expected a value");
  return i;
}

/** What the string in a span says; throws JsonTextError when an escape is bad. */
export function readString(json: Buffer, { start, end }: Span): string {
  const text = json.toString("utf8", start + 1, end - 1);
  if (!text.includes("\\")) return text;
  try {
    return JSON.parse(`"${text}"`) as string;
  } catch {
    throw new JsonTextError("a string has a bad escape");
  }
}

/** Whether an error says that a text is not JSON: the scanner lets pass what no parser reads. */
export function isUnreadable(error: unknown): error is Error {
  return error instanceof JsonTextError || error instanceof SyntaxError;
}

/** Whether an object has no members; throws JsonTextError when it is none. */
export function isEmpty(json: Buffer): boolean {
  return members(json).length === 0;
}

/** A parsed value; undefined when the text is none: the scanner lets pass what no parser reads. */
export function parseValue(json: Buffer, { start, end }: Span): unknown {
  try {
    return JSON.parse(json.toString("utf8", start, end));
  } catch {
    return undefined;
  }
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

/**
 * A JSON object text without some members: with each go its name, one comma and the white space up to its neighbour. Everything
 * else keeps its bytes; without any of the members it is the same Buffer.
 */
export function withoutMembers(json: Buffer, keys: readonly string[]): Buffer {
  const present = members(json);
  const edits: Edit[] = [];
  // The comma behind a member goes along while no member before it stays; then the comma before it does.
  let endBefore: number | undefined;
  for (const [i, { key, nameStart, end }] of present.entries()) {
    const isDropped = keys.includes(key);
    if (isDropped && endBefore !== undefined) edits.push({ start: endBefore, end, text: "" });
    else if (isDropped) edits.push({ start: nameStart, end: present[i + 1]?.nameStart ?? end, text: "" });
    if (!isDropped || endBefore !== undefined) endBefore = end;
  }
  return edits.length > 0 ? splice(json, edits) : json;
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
