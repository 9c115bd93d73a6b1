// Tools whose output may be any JSON value, for clients of the session era.
//
// Since 2026-07-28 an outputSchema may have any root, and structuredContent may be anything. Up to 2025-11-25 both are objects:
// official clients refuse a whole list of tools for one schema whose root doesn't say `"type":"object"`. So the schema moves
// into an object, as its member `result`, and so does what the tool gives.
//
// A root without a type is moved as well, even with `properties`: it takes values that aren't objects too. That leaves one
// rule: whose schema was wrapped, wraps its results.
import {
  type Edit,
  elements,
  endOfValue,
  JsonTextError,
  type Member,
  member,
  members,
  readElements,
  readMembers,
  readString,
  type Span,
  splice,
  withMembers,
  withoutMembers,
} from "./scan.ts";

const openBrace = 0x7b;
const openBracket = 0x5b;
const quote = 0x22;
const hash = 0x23;

/** Where a schema's root has moved to, as a JSON pointer. */
const newRoot = "/properties/result";

const references = new Set(["$ref", "$dynamicRef"]);
// What looks like a reference in these is a value.
const valueKeywords = new Set(["enum", "const", "default", "examples"]);
// Objects whose names are the author's, even `$ref` and `default`.
const nameKeywords = new Set(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"]);

/**
 * The tool as a client of the session era can read it: an outputSchema whose root is not an object becomes an object with one
 * required property, `result`. Undefined when the tool needs no change, and when it is not JSON, or its schema is none.
 *
 * Local pointers in the schema follow it; every other byte of it stays. `$schema` moves to the new root.
 */
export function wrapOutputSchema(tool: Buffer): Buffer | undefined {
  if (!mayContain(tool, "outputSchema")) return undefined;
  return unlessBroken(() => {
    const span = member(tool, 0, "outputSchema");
    const wrapped = span && wrap(tool.subarray(span.start, span.end));
    return wrapped && withMembers(tool, { outputSchema: wrapped });
  });
}

/**
 * A tool's result to go with a wrapped schema: structuredContent becomes `{"result": …}`, byte for byte inside. A result without
 * content (none, or an empty array) gets the value as text too, as the tool itself would have given it to older clients.
 */
export function wrapStructuredContent(result: Buffer): Buffer {
  return unlessBroken(() => wrapResult(result)) ?? result;
}

/**
 * Whether a result's structuredContent is no object. Clients of the session era refuse such a result whatever the tool's schema
 * said, so it goes through wrapStructuredContent even when the tool has no schema.
 */
export function holdsNonObject(result: Buffer): boolean {
  if (!mayContain(result, "structuredContent")) return false;
  const structured = unlessBroken(() => member(result, 0, "structuredContent"));
  return structured !== undefined && result[structured.start] !== openBrace;
}

// A letter can be spelled as \u0061, so only a text without any is what it seems.
function mayContain(json: Buffer, word: string): boolean {
  return json.includes(word) || json.includes("\\u");
}

function wrap(schema: Buffer): Buffer | undefined {
  // Official clients take no booleans for a property's schema, though JSON Schema does.
  if (schema.equals(Buffer.from("true"))) return enclose("{}");
  if (schema.equals(Buffer.from("false"))) return enclose('{"not":{}}');
  if (schema[0] !== openBrace) return undefined;
  const parts = members(schema);
  if (textOf(schema, last(parts, "type")) === "object") return undefined;
  const dialect = last(parts, "$schema");
  const id = last(parts, "$id");
  // A schema that is a resource of its own keeps its pointers, and may say its dialect itself.
  const inner = isNewBase(textOf(schema, id)) ? schema : withoutMembers(repoint(schema), ["$schema"]);
  return enclose(inner, dialect && schema.subarray(dialect.start, dialect.end));
}

function enclose(inner: Buffer | string, dialect?: Buffer): Buffer {
  const head = dialect ? ['{"$schema":', dialect, ","] : ["{"];
  const pieces = [...head, '"type":"object","properties":{"result":', inner, '},"required":["result"]}'];
  return Buffer.concat(pieces.map((piece) => (typeof piece === "string" ? Buffer.from(piece) : piece)));
}

/** The schema with its local pointers starting from the new root. */
function repoint(schema: Buffer): Buffer {
  const edits: Edit[] = [];
  readSchema(schema, 0, edits);
  return splice(schema, edits);
}

/**
 * Notes the edits in a schema, or in an array of schemas; gives the index after it. Keywords that nobody knows are read as
 * schemas: pointers lead into them, as into the `components` that some generators write.
 */
function readSchema(json: Buffer, start: number, edits: Edit[]): number {
  if (json[start] === openBracket) return readElements(json, start, (at) => readSchema(json, at, edits));
  if (json[start] !== openBrace) return endOfValue(json, start);
  const editsBefore = edits.length;
  let id: string | undefined;
  const end = readMembers(json, start, (key, at) => {
    if (valueKeywords.has(key)) return endOfValue(json, at);
    if (nameKeywords.has(key) && json[at] === openBrace)
      return readMembers(json, at, (_name, each) => readSchema(json, each, edits));
    const valueEnd = readSchema(json, at, edits);
    if (key === "$id") id = textOf(json, { start: at, end: valueEnd });
    if (references.has(key)) edits.push(...editsOf(json, { start: at, end: valueEnd }));
    return valueEnd;
  });
  // The id may stand behind what it changes the meaning of.
  if (isNewBase(id)) edits.length = editsBefore;
  return end;
}

/** Whether `#` means this schema from here on. `#name` is how older drafts write an anchor. */
function isNewBase(id: string | undefined): boolean {
  return id !== undefined && id !== "" && !id.startsWith("#");
}

/** The new root goes behind the `#` of a pointer, so that its other bytes stay. Anchors and other documents are no pointers. */
function editsOf(json: Buffer, reference: Span): Edit[] {
  const text = textOf(json, reference);
  if (text === undefined || !/^#(?:$|\/|%2f)/i.test(text)) return [];
  const start = reference.start + 1;
  const end = start + (json[start] === hash ? 1 : "\\u0023".length);
  return [{ start, end, text: `#${newRoot}` }];
}

function wrapResult(result: Buffer): Buffer {
  const parts = members(result);
  const structured = last(parts, "structuredContent");
  if (!structured) return result;
  // Every one of the name, as it is not known which of them a client takes.
  const edits: Edit[] = parts
    .filter(({ key }) => key === "structuredContent")
    .flatMap(({ start, end }) => [
      { start, end: start, text: '{"result":' },
      { start: end, end, text: "}" },
    ]);
  const content = last(parts, "content");
  if (content && !(result[content.start] === openBracket && elements(result, content.start).length === 0))
    return splice(result, edits);
  const text = `[{"type":"text","text":${JSON.stringify(result.toString("utf8", structured.start, structured.end))}}]`;
  if (content) return splice(result, [...edits, { start: content.start, end: content.end, text }]);
  return splice(result, [...edits, { start: structured.end, end: structured.end, text: `,"content":${text}` }]);
}

/** The last wins, as in JSON.parse. */
function last(parts: readonly Member[], key: string): Member | undefined {
  return parts.findLast((part) => part.key === key);
}

function textOf(json: Buffer, span: Span | undefined): string | undefined {
  return span && json[span.start] === quote ? readString(json, span) : undefined;
}

function unlessBroken<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof JsonTextError) return undefined;
    throw error;
  }
}
