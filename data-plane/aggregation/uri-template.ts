// URI templates (RFC 6570) read backwards: can this URI have been made from that template?
//
// Templates come from backends and URIs from clients, so a RegExp is out of the question: two expressions in a row make it
// try every way to share the characters. Here the places of the URI that the template's first parts can reach are carried
// from part to part, all of them at once, so every part reads the URI once and nothing is ever tried again.
//
// Values may be empty and names in queries are not compared: whether a value makes sense is the backend's to say.

export interface UriTemplate {
  /** Characters that stand in it literally. */
  readonly literalLength: number;
  /** Parts that `matches` goes through, each once over the whole URI. */
  readonly partCount: number;
  /** Whether its literal ends fit; cheap, and nearly always enough to say no. */
  fitsEnds(uri: ComparableUri): boolean;
  matches(uri: ComparableUri): boolean;
}

/** A URI as templates are compared with it: only visible ASCII, and bounded. */
export type ComparableUri = string & { readonly comparable: true };

const templateCharactersMax = 2_048;
const expressionsMax = 16;
const uriCharactersMax = 8_192;

/** Prepares a URI; undefined when it is longer than any that we match (8,192 characters, others than ASCII as %XX). */
export function comparableUri(uri: string): ComparableUri | undefined {
  if (uri.length > uriCharactersMax) return undefined;
  const text = toAscii(uri);
  return text.length > uriCharactersMax ? undefined : (text as ComparableUri);
}

/** Reads a template; undefined when it is malformed, or larger than we match (2,048 characters, 16 expressions). */
export function readUriTemplate(template: string): UriTemplate | undefined {
  if (template.length > templateCharactersMax) return undefined;
  const parts: (Literal | Expression)[] = [];
  let expressions = 0;
  // Literals stand at the even places, what is between braces at the odd ones.
  for (const [i, text] of template.split(/\{([^{}]*)\}/).entries()) {
    if (i % 2 === 0) {
      if (/[{}]/.test(text)) return undefined;
      if (text !== "") parts.push(readLiteral(toAscii(text)));
      continue;
    }
    const expression = readExpression(text);
    if (!expression || ++expressions > expressionsMax) return undefined;
    parts.push(expression);
  }
  const literals = parts.filter((part) => "text" in part);
  const [first, last] = [parts[0], parts.at(-1)];
  const head = first && "text" in first ? first.text : "";
  const tail = last && "text" in last ? last.text : "";
  const afterHead = head === "" ? parts : parts.slice(1);
  return {
    literalLength: literals.reduce((sum, { text }) => sum + text.length, 0),
    partCount: afterHead.length,
    fitsEnds: (uri) => uri.startsWith(head) && uri.endsWith(tail),
    matches: (uri) => uri.startsWith(head) && reachesEnd(uri, head.length, afterHead),
  };
}

interface Literal {
  readonly text: string;
  /** For each length of a beginning of `text`, how much of its end is a beginning of `text` too (Knuth, Morris, Pratt). */
  readonly borders: Uint16Array;
}

interface Expression {
  /** What a value that is there begins with; 0 when with nothing. */
  readonly firstCode: number;
  /** By character code: 1 where a value ends. */
  readonly stops: Uint8Array;
  readonly valueLengthMax: number;
}

// RFC 6570 3.2: what an expansion begins with, and what it can't contain. More than that is encoded in expansions, but
// clients that build URIs by hand leave much as it is.
const operators: ReadonlyMap<string, { readonly first: string; readonly stops: string }> = new Map([
  ["", { first: "", stops: "/?#" }],
  ["+", { first: "", stops: "" }],
  ["#", { first: "#", stops: "" }],
  [".", { first: ".", stops: "/?#" }],
  ["/", { first: "/", stops: "?#" }],
  [";", { first: ";", stops: "/?#" }],
  ["?", { first: "?", stops: "#" }],
  ["&", { first: "&", stops: "#" }],
]);
// A name and its modifier. Names are wider than the grammar has them: servers use hyphens, and nothing depends on it.
const variable = /^[^\s:*+#./;?&=,!@|][^\s:*]*(\*|:[1-9]\d{0,3})?$/;
const encodedLengthMax = 12; // of one character: four bytes, each as %XX

function readExpression(text: string): Expression | undefined {
  const sign = /^[+#./;?&]/.exec(text)?.[0] ?? "";
  const operator = operators.get(sign);
  const variables = text.slice(sign.length).split(",");
  const modifiers = variables.map((name) => variable.exec(name));
  if (!operator || modifiers.some((found) => found === null)) return undefined;
  const [only] = modifiers.length === 1 ? modifiers : [];
  const modifier = only?.[1];
  // One value is one segment; a list, or several values, make several.
  const stops = sign === "/" && only && modifier !== "*" ? "/?#" : operator.stops;
  const hasName = /[;?&]/.test(sign); // before the value, and of any length
  return {
    firstCode: operator.first === "" ? 0 : operator.first.charCodeAt(0),
    stops: Uint8Array.from({ length: 128 }, (_, code) => (stops.includes(String.fromCharCode(code)) ? 1 : 0)),
    valueLengthMax: !hasName && modifier?.startsWith(":") ? Number(modifier.slice(1)) * encodedLengthMax : uriCharactersMax,
  };
}

function readLiteral(text: string): Literal {
  const borders = new Uint16Array(text.length);
  for (let i = 1, length = 0; i < text.length; i++) {
    while (length > 0 && text[i] !== text[length]) length = borders[length - 1] as number;
    if (text[i] === text[length]) length++;
    borders[i] = length;
  }
  return { text, borders };
}

// 1 where the parts so far can end. Shared by all calls: a match is synchronous and writes each place before it reads it.
let reached = new Uint8Array(uriCharactersMax + 1);
let next = new Uint8Array(uriCharactersMax + 1);

function reachesEnd(uri: ComparableUri, start: number, parts: readonly (Literal | Expression)[]): boolean {
  reached.fill(0, 0, uri.length + 1);
  reached[start] = 1;
  for (const part of parts) {
    const isAnywhere = "text" in part ? passLiteral(uri, part) : passExpression(uri, part);
    if (!isAnywhere) return false;
    [reached, next] = [next, reached];
  }
  return reached[uri.length] === 1;
}

function passLiteral(uri: ComparableUri, { text, borders }: Literal): boolean {
  next.fill(0, 0, uri.length + 1);
  let isAnywhere = false;
  let length = 0;
  for (let end = 1; end <= uri.length; end++) {
    const code = uri.charCodeAt(end - 1);
    while (length > 0 && text.charCodeAt(length) !== code) length = borders[length - 1] as number;
    if (text.charCodeAt(length) === code) length++;
    if (length < text.length || reached[end - length] !== 1) continue;
    next[end] = 1;
    isAnywhere = true;
  }
  return isAnywhere;
}

function passExpression(uri: ComparableUri, { firstCode, stops, valueLengthMax }: Expression): boolean {
  let furthest = -1; // end of the longest value begun so far
  let stop = 0; // first place from the newest value on where values end
  for (let at = 0; at <= uri.length; at++) {
    const isReached = reached[at] === 1;
    if (isReached && (firstCode === 0 || uri.charCodeAt(at) === firstCode)) {
      const valueStart = firstCode === 0 ? at : at + 1;
      stop = Math.max(stop, valueStart);
      while (stop < uri.length && stops[uri.charCodeAt(stop)] === 0) stop++;
      furthest = Math.max(furthest, Math.min(stop, valueStart + valueLengthMax));
    }
    next[at] = isReached || at <= furthest ? 1 : 0; // expressions may be empty
  }
  return true;
}

// Expansion encodes what URIs can't hold, in literals too; whoever does it by hand often doesn't.
function toAscii(text: string): string {
  return text.toWellFormed().replace(/[^\x21-\x7e]/gu, encodeURIComponent);
}
