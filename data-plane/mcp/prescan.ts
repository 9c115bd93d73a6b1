// Reads a client's JSON once, byte by byte, before JSON.parse sees it: what would be slow to parse, or would mean one thing
// to us and another to the backend that gets the same bytes, is refused here. Nothing is built and nothing recurses.
import { isUtf8 } from "node:buffer";

/** Why a body is refused; the message is fit for the caller. */
export interface Fault {
  readonly message: string;
  /** `parse`: not JSON. `invalid`: JSON that two readers may understand differently. `too_large`: beyond a limit. */
  readonly kind: "parse" | "invalid" | "too_large";
}

/** Levels of objects and arrays. */
const depthMax = 64;
/** Names, scalars, objects and arrays together: a parser pays for each of them, and `{},` is one in three bytes. */
const tokensMax = 100_000;
/** Bytes of one string as it is written, escapes included. */
const stringBytesMax = 512 * 1024;
// Objects around a member, itself included: a message is the first, `params` or a client's `result` the second. What lies
// deeper belongs to tools, forms and models. Arrays don't count, so that a batch obeys the same rules.
const envelopeObjects = 2;
// Up to so many plain names of one object (nearly always all) are compared in place; more, or odd ones, cost a set.
const plainNamesMax = 16;

const quote = 0x22;
const backslash = 0x5c;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const comma = 0x2c;
const colon = 0x3a;

const tooDeep: Fault = { kind: "too_large", message: `the body is nested deeper than ${depthMax} levels` };
const tooMany: Fault = { kind: "too_large", message: `the body has more than ${tokensMax} names and values` };
const tooLong: Fault = { kind: "too_large", message: `the body has a string of more than ${stringBytesMax} bytes` };

const twice = "stands twice in one object";
const reserved = "has a reserved name";

// Scratch space by depth, shared by all calls: a scan is synchronous, and writes each place before it reads it.
const isObject = new Uint8Array(depthMax + 1);
const nameCounts = new Int32Array(depthMax + 1);
const nameStarts = new Int32Array((depthMax + 1) * plainNamesMax);
const nameEnds = new Int32Array((depthMax + 1) * plainNamesMax);

/**
 * What is wrong with a client's body; undefined when JSON.parse takes it and every reader finds the same members in it.
 * At most 64 levels, 100,000 names and values, 512 KB a string; UTF-8 without a byte order mark; one value and no more.
 *
 * Refused as `invalid`:
 * - the same member twice in one object, wherever it stands: readers differ in which of the two they take. Names are compared
 *   decoded; those of the envelope (the message and its `params`) without regard to case, as some readers do.
 * - `__proto__` anywhere. `constructor` and `prototype` only in the envelope: as a tool's arguments or a form's fields they are
 *   ordinary words (a race car has a constructor), they pass as bytes, and nobody here merges those objects into others.
 * - NUL and lone surrogates in names, because cutting or replacing them makes two names one. In values they pass: programs cut
 *   emoji in half every day, and the backend gets what was sent.
 */
export function prescan(json: Buffer): Fault | undefined {
  if (json[0] === 0xef && json[1] === 0xbb && json[2] === 0xbf) return parseFault("begins with a byte order mark");
  if (!isUtf8(json)) return parseFault("is not UTF-8");
  const nameSets: (Set<string> | undefined)[] = [];
  let depth = 0;
  let objects = 0;
  let tokens = 0;
  let expectsName = false;
  let i = skipSpace(json, 0);
  for (;;) {
    if (expectsName) {
      const end = json[i] === quote ? endOfString(json, i) : -1;
      if (end < 0) return notJson(i);
      const fault = takeName(json, { start: i + 1, end: end - 1, depth, inEnvelope: objects <= envelopeObjects }, nameSets);
      if (fault) return fault;
      tokens++;
      i = skipSpace(json, end);
      if (json[i] !== colon) return notJson(i);
      i = skipSpace(json, i + 1);
    }
    if (++tokens > tokensMax) return tooMany;
    const byte = json[i];
    if (byte === openBrace || byte === openBracket) {
      if (depth === depthMax) return tooDeep;
      depth++;
      expectsName = byte === openBrace;
      isObject[depth] = expectsName ? 1 : 0;
      nameCounts[depth] = 0;
      nameSets[depth] = undefined;
      if (expectsName) objects++;
      i = skipSpace(json, i + 1);
      if (json[i] !== (expectsName ? closeBrace : closeBracket)) continue;
    } else {
      const end = byte === quote ? endOfString(json, i) : endOfScalar(json, i);
      if (end < 0) return notJson(i);
      if (byte === quote && end - i - 2 > stringBytesMax) return tooLong;
      i = skipSpace(json, end);
    }
    while (depth > 0 && json[i] === (isObject[depth] ? closeBrace : closeBracket)) {
      objects -= isObject[depth] as number;
      depth--;
      i = skipSpace(json, i + 1);
    }
    if (depth === 0) return i === json.length ? undefined : parseFault(`goes on behind its end, at byte ${i}`);
    if (json[i] !== comma) return notJson(i);
    expectsName = isObject[depth] === 1;
    i = skipSpace(json, i + 1);
  }
}

interface Name {
  /** Between the quotes. */
  readonly start: number;
  readonly end: number;
  readonly depth: number;
  readonly inEnvelope: boolean;
}

/** Compares a name with its object's earlier ones and remembers it. */
function takeName(json: Buffer, name: Name, nameSets: (Set<string> | undefined)[]): Fault | undefined {
  const { start, end, depth, inEnvelope } = name;
  if (end - start > stringBytesMax) return tooLong;
  const count = nameCounts[depth] as number;
  const first = depth * plainNamesMax;
  let names = nameSets[depth];
  if (!names && count < plainNamesMax && isPlain(json, start, end)) {
    // `__proto__`, `prototype`, `constructor`: their lengths spare all others the string.
    const length = end - start;
    if ((length === 9 || length === 11) && isReserved(json.toString("latin1", start, end), inEnvelope))
      return invalid(json, name, reserved);
    for (let at = first; at < first + count; at++)
      if (isSameName(json, nameStarts[at] as number, nameEnds[at] as number, name)) return invalid(json, name, twice);
    nameStarts[first + count] = start;
    nameEnds[first + count] = end;
    nameCounts[depth] = count + 1;
    return undefined;
  }
  if (!names) {
    names = new Set();
    for (let at = first; at < first + count; at++)
      names.add(keyOf(json.toString("latin1", nameStarts[at], nameEnds[at]), inEnvelope));
    nameSets[depth] = names;
  }
  const text = isPlain(json, start, end) ? json.toString("latin1", start, end) : decode(json, start, end);
  if (isReserved(text, inEnvelope)) return invalid(json, name, reserved);
  if (text.includes("\0") || !text.isWellFormed()) return invalid(json, name, "has NUL or half a surrogate pair in its name");
  const size = names.size;
  names.add(keyOf(text, inEnvelope));
  return names.size === size ? invalid(json, name, twice) : undefined;
}

// ASCII without escapes: the bytes are the name.
function isPlain(json: Buffer, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    const byte = json[i] as number;
    if (byte >= 0x80 || byte === backslash) return false;
  }
  return true;
}

function isSameName(json: Buffer, start: number, end: number, { start: otherStart, end: otherEnd, inEnvelope }: Name): boolean {
  if (end - start !== otherEnd - otherStart) return false;
  for (let i = start, j = otherStart; i < end; i++, j++) {
    const a = json[i] as number;
    const b = json[j] as number;
    if (a !== b && !(inEnvelope && (a | 0x20) === (b | 0x20) && (a | 0x20) >= 0x61 && (a | 0x20) <= 0x7a)) return false;
  }
  return true;
}

// Upper case first: readers that ignore case also take the long s for s and the Kelvin sign for k.
function keyOf(name: string, inEnvelope: boolean): string {
  return inEnvelope ? name.toUpperCase().toLowerCase() : name;
}

function isReserved(name: string, inEnvelope: boolean): boolean {
  return name === "__proto__" || (inEnvelope && (name === "constructor" || name === "prototype"));
}

function decode(json: Buffer, start: number, end: number): string {
  return JSON.parse(json.toString("utf8", start - 1, end + 1)) as string;
}

function invalid(json: Buffer, { start, end }: Name, what: string): Fault {
  const shown = end - start > 64 ? `at byte ${start - 1}` : json.toString("utf8", start - 1, end + 1);
  return { kind: "invalid", message: `the body's member ${shown} ${what}` };
}

function notJson(at: number): Fault {
  return parseFault(`is not JSON from byte ${at} on`);
}

function parseFault(what: string): Fault {
  return { kind: "parse", message: `the body ${what}` };
}

/** Index after the string that begins at `start`; -1 when it is none. */
function endOfString(json: Buffer, start: number): number {
  let i = start + 1;
  while (i < json.length) {
    const byte = json[i] as number;
    if (byte === quote) return i + 1;
    if (byte < 0x20) return -1;
    if (byte !== backslash) i++;
    else if (isShortEscape(json[i + 1])) i += 2;
    else if (json[i + 1] === 0x75 && isHex(json[i + 2]) && isHex(json[i + 3]) && isHex(json[i + 4]) && isHex(json[i + 5])) i += 6;
    else return -1;
  }
  return -1;
}

const escapes = new Set(Buffer.from('"\\/bfnrt'));
function isShortEscape(byte: number | undefined): boolean {
  return byte !== undefined && escapes.has(byte);
}

function isHex(byte: number | undefined): boolean {
  return byte !== undefined && ((byte >= 0x30 && byte <= 0x39) || ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x66));
}

/** Index after the number or word that begins at `start`; -1 when it is none. */
function endOfScalar(json: Buffer, start: number): number {
  const first = json[start];
  if (first === 0x74) return hasWord(json, start, "true") ? start + 4 : -1;
  if (first === 0x66) return hasWord(json, start, "false") ? start + 5 : -1;
  if (first === 0x6e) return hasWord(json, start, "null") ? start + 4 : -1;
  let i = first === 0x2d ? start + 1 : start;
  i = json[i] === 0x30 ? i + 1 : endOfDigits(json, i);
  if (i >= 0 && json[i] === 0x2e) i = endOfDigits(json, i + 1);
  if (i >= 0 && ((json[i] as number) | 0x20) === 0x65) {
    const sign = json[i + 1];
    i = endOfDigits(json, sign === 0x2b || sign === 0x2d ? i + 2 : i + 1);
  }
  return i;
}

function hasWord(json: Buffer, start: number, word: string): boolean {
  for (let i = 0; i < word.length; i++) if (json[start + i] !== word.charCodeAt(i)) return false;
  return true;
}

function endOfDigits(json: Buffer, start: number): number {
  let i = start;
  while (i < json.length && (json[i] as number) >= 0x30 && (json[i] as number) <= 0x39) i++;
  return i === start ? -1 : i;
}

function skipSpace(json: Buffer, start: number): number {
  let i = start;
  while (i < json.length) {
    const byte = json[i];
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return i;
    i++;
  }
  return i;
}
