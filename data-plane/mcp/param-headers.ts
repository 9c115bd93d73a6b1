// Arguments that travel twice: a tool's schema may ask, with `x-mcp-header`, that an argument is repeated in a header, so that
// those on the way can route by it without reading bodies. That is safe only while both always say the same.
// Source: MCP 2026-07-28, tools and streamable HTTP.
import { decodeHeaderValue, encodeHeaderValue } from "./header-values.ts";

/** An argument that a header repeats. */
export interface ParamHeader {
  /** X of `Mcp-Param-X`, as declared. */
  readonly name: string;
  /** The argument's place, from the arguments' root. */
  readonly path: readonly string[];
  readonly type: "string" | "integer" | "boolean";
}

const annotation = "x-mcp-header";
/** Schemas in schemas, and lists of them. What servers really send has a dozen. */
const depthMax = 64;
// Under these stand values, not schemas: whatever they hold annotates nothing.
const valueKeywords: ReadonlySet<string> = new Set(["const", "default", "enum", "examples", "required", "dependentRequired"]);
// Under these stand schemas by name, and a name may be any word.
const mapKeywords: ReadonlySet<string> = new Set([
  "patternProperties",
  "dependentSchemas",
  "dependencies",
  "$defs",
  "definitions",
]);

/**
 * The annotated arguments of a tool, given its parsed inputSchema; a sentence that says what is wrong when an annotation breaks
 * the rules: then a client must not use the tool.
 */
export function readParamHeaders(inputSchema: unknown): readonly ParamHeader[] | string {
  const found: ParamHeader[] = [];
  const fault = collect({ node: inputSchema, path: [], where: "the root", depth: 1 }, found);
  if (fault !== undefined) return fault;
  const names = new Set<string>();
  for (const { name } of found) {
    if (names.has(name.toLowerCase())) return `two arguments have the header Mcp-Param-${name}`;
    names.add(name.toLowerCase());
  }
  return found;
}

/**
 * The headers to send for a call, names in lower case (`mcp-param-x`), values encoded. None for arguments that are absent, null
 * or no scalar, and for integers beyond what every reader has exactly. A scalar of another type than declared gets one: the
 * server says better than we what is wrong with it.
 */
export function paramHeadersOf(declared: readonly ParamHeader[], args: unknown): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const { name, path } of declared) {
    const text = textOf(valueAt(args, path));
    if (text !== undefined) headers[headerName(name)] = encodeHeaderValue(text);
  }
  return headers;
}

/**
 * What is wrong with a request's headers; undefined when they agree with the arguments. Names the header and never a value, which
 * may be a secret. `headers`: lower-case names → values as node:http gives them.
 */
export function paramMismatch(
  declared: readonly ParamHeader[],
  args: unknown,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): string | undefined {
  for (const param of declared) {
    const value = valueAt(args, param.path);
    if (value === undefined || value === null) continue; // nothing to repeat: a header that is there says nothing
    const raw = headers[headerName(param.name)];
    if (raw === undefined) {
      if (textOf(value) === undefined) continue; // no client can send one
      return `the header Mcp-Param-${param.name} is missing, but its argument is there`;
    }
    const text = decodeHeaderValue(typeof raw === "string" ? raw : raw.join(", "));
    if (text === undefined) return `the header Mcp-Param-${param.name} is not Base64 of UTF-8`;
    if (!says(text, value, param)) return `the header Mcp-Param-${param.name} says something else than its argument`;
  }
  return undefined;
}

interface Place {
  readonly node: unknown;
  /** Of the argument that the node describes; undefined where no chain of `properties` alone leads. */
  readonly path: readonly string[] | undefined;
  /** For messages. */
  readonly where: string;
  readonly depth: number;
}

// Adds what is annotated at and below a place; gives the first fault. Keywords that nobody knows are walked as well: what they
// hold may be used by reference.
function collect({ node, path, where, depth }: Place, found: ParamHeader[]): string | undefined {
  if (typeof node !== "object" || node === null) return undefined;
  if (depth > depthMax) return `the schema is nested deeper than ${depthMax} levels`;
  if (!Array.isArray(node) && Object.hasOwn(node, annotation)) {
    const read = readAnnotation(node, path, where);
    if (typeof read === "string") return read;
    found.push(read);
  }
  for (const [key, value] of Object.entries(node)) {
    if (key === annotation || valueKeywords.has(key)) continue;
    const isMap = isObject(value) && (key === "properties" || mapKeywords.has(key));
    for (const [name, child] of isMap ? Object.entries(value) : [["", value] as const]) {
      const fault = collect(
        {
          node: child,
          path: isMap && key === "properties" && path ? [...path, name] : undefined,
          where: isMap ? `${key}/${name}` : key,
          depth: depth + 1,
        },
        found,
      );
      if (fault !== undefined) return fault;
    }
  }
  return undefined;
}

function readAnnotation(node: object, path: readonly string[] | undefined, where: string): ParamHeader | string {
  const { [annotation]: name, type } = node as { [annotation]?: unknown; type?: unknown };
  // The server chose the words, as long as it liked.
  const place = JSON.stringify(where.slice(0, 100));
  if (!path?.length) return `"${annotation}" at ${place}: it may stand only where a chain of "properties" alone leads`;
  if (typeof name !== "string" || !/^[\w!#$%&'*+.^`|~-]+$/.test(name))
    return `"${annotation}" at ${place} is not a name that a header can have`;
  if (type !== "string" && type !== "integer" && type !== "boolean")
    return `"${annotation}" at ${place}: the type is not string, integer or boolean`;
  return { name, path, type };
}

function headerName(name: string): string {
  return `mcp-param-${name.toLowerCase()}`;
}

// Own members only: "constructor" is an argument's name like any other, and absent when nobody gave it.
function valueAt(args: unknown, path: readonly string[]): unknown {
  let value = args;
  for (const key of path) {
    if (!isObject(value) || !Object.hasOwn(value, key)) return undefined;
    value = value[key];
  }
  return value;
}

/** A scalar as headers have it; undefined for what they can't have. */
function textOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return String(value);
  if (typeof value !== "number" || isInexact(value)) return undefined;
  return String(value);
}

function says(text: string, value: unknown, { type }: ParamHeader): boolean {
  // An integer too large for a header is parsed to its nearest neighbour; a header that is there has to come down there too.
  const isNumeric = typeof value === "number" && (type === "integer" || isInexact(value));
  if (isNumeric && /^-?\d+(\.0+)?$/.test(text)) return Number(text) === value;
  return text === textOf(value);
}

function isInexact(value: number): boolean {
  return !Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
