// Text → YAML documents, within bounds, with the library's errors as faults of ours.
import { Composer, CST, isScalar, Lexer, Parser, type YAMLError } from "yaml";
import { excessDepthOf, excessOf } from "./bounds.ts";
import { type Fault, type Plain, toPlain } from "./plain.ts";

export interface Parsed {
  /** None when the text is no YAML. */
  readonly documents: readonly Plain[];
  readonly faults: readonly Fault[];
}

export function parseDocuments(text: string): Parsed {
  const excess = excessOf(text);
  if (excess !== undefined) return { documents: [], faults: [atOffset(excess)] };
  const tree = [...new Parser().parse(text)];
  const deep = excessDepthOf(tree);
  if (deep !== undefined) return { documents: [], faults: [atOffset(deep)] };
  // Duplicate keys are found in plain.ts: the library's own search is quadratic, 33 s for 30,000 keys.
  const options = { uniqueKeys: false, prettyErrors: false, logLevel: "silent", schema: "core", merge: false } as const;
  const composed = [...new Composer(options).compose(tree, false, text.length)];
  const faults = composed.flatMap(({ errors, warnings }) =>
    [...errors, ...warnings].slice(0, errorsMax).map((error) => yamlFault(error, text)),
  );
  if (composed.some(({ errors }) => errors.length > 0))
    return { documents: [], faults: faults.slice(0, errorsMax).filter(isFirstHand) };
  const documents = composed.filter(({ contents }) => !isEmpty(contents)).map(toPlain);
  return { documents, faults: [...faults.slice(0, errorsMax), ...documents.flatMap((document) => document.faults)] };
}

function isEmpty(contents: unknown): boolean {
  return contents === null || (isScalar(contents) && contents.value === null);
}

/** Once the parser has lost its place, it wonders about every token that follows. */
function isFirstHand({ message, range }: Fault, index: number, all: readonly Fault[]): boolean {
  const isSaid = all.slice(0, index).some((other) => other.message === message && other.range.start === range.start);
  return index === 0 || (!isSaid && !/ token in YAML stream: /.test(message));
}

const errorsMax = 20; // one stray character often makes all that follows wrong

function yamlFault(error: YAMLError, text: string): Fault {
  const [start, end] = error.code === "MISSING_CHAR" ? openingOf(error.pos, text) : error.pos;
  const hint = hintFor(error, text);
  const message = error.message.replace(/\.$/, "");
  return {
    message: `YAML: ${message.charAt(0).toLowerCase()}${message.slice(1)}`,
    ...(hint !== undefined && { hint }),
    range: { start, end: Math.max(end, start + 1) },
  };
}

// The library points to where the closing mark is missing, often the end of the file; the opening one says more.
function openingOf([at, end]: [number, number], text: string): [number, number] {
  let offset = 0;
  for (const token of new Lexer().lex(text)) {
    if (token === CST.DOCUMENT || token === CST.FLOW_END || token === CST.SCALAR) continue;
    const after = offset + token.length;
    if (after >= at && /^["']/.test(token)) return [offset, offset + 1];
    if (offset > at) break;
    offset = after;
  }
  return [at, end];
}

function hintFor({ code, message, pos: [start] }: YAMLError, text: string): string | undefined {
  const lineStart = text.lastIndexOf("\n", start - 1) + 1;
  const line = text.slice(lineStart, text.indexOf("\n", start) === -1 ? undefined : text.indexOf("\n", start));
  if (code === "TAB_AS_INDENT" || /^ *\t/.test(line)) return "YAML is indented with spaces; replace the tab";
  if (/:\s*[`@%]/.test(line)) return "text that begins with ` @ or % needs quotes";
  if (/\{workload\}/.test(line)) return 'text that begins with { needs quotes: "{workload}_"';
  if (/ end with a /.test(message)) return "look for a bracket that is not closed";
  if (code === "BAD_INDENT" || /Nested mappings/.test(message)) return "check how far this line and the next ones are indented";
  if (code === "MISSING_CHAR") return "look for a quote or bracket that is not closed";
  return undefined;
}

function atOffset({ offset, message, hint }: { offset: number; message: string; hint: string }): Fault {
  return { message, hint, range: { start: offset, end: offset + 1 } };
}
