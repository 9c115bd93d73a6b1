// Results as a client of an older revision can read them.
//
// The rule: nothing is taken away unless it breaks the client. Clients of every revision ignore members they don't know, so
// title, icons, execution, outputSchema, structuredContent, annotations and _meta stay where they are. What breaks them is a
// block of content whose type they don't know (official clients then refuse the whole result) and a tool's result without
// content. Such blocks become text. 2025-06-18 and 2025-11-25 know the same types of content, so both get what was sent.
import { elements, JsonTextError, type Member, member, members, type Span, splice, withMembers } from "./scan.ts";
import type { SessionVersion } from "./versions.ts";

type Describe = (block: Buffer, parts: readonly Member[]) => string;

interface Lacking {
  readonly type: string;
  /** The text that stands for a block of the type. */
  readonly describe: Describe;
  /** Members that would be dead weight in a block of text. */
  readonly drops: readonly string[];
}

const resourceLink: Lacking = { type: "resource_link", describe: describeLink, drops: [] };
// The samples of a recording serve nobody as an unknown member of a text; a host may even show them to its model.
const audio: Lacking = { type: "audio", describe: describeAudio, drops: ["data"] };

/** Types of content that a client of the revision can't know. */
const lackingTypes: Record<SessionVersion, readonly Lacking[]> = {
  "2025-11-25": [],
  "2025-06-18": [],
  "2025-03-26": [resourceLink],
  "2024-11-05": [resourceLink, audio],
};

/**
 * The result of `method` as a client of `version` can read it: the same Buffer unless something in it must change.
 * `result` is the JSON text of a response's result. Text that is not JSON comes back as it is: judging it is not done here.
 *
 * - content of an unknown type (tools/call, prompts/get) becomes a text block that says what stood there; its other members,
 *   such as `uri` and `annotations`, stay in it
 * - a tool's structuredContent without content is also given as text, the same JSON byte for byte, as the revision that
 *   introduced it asks servers to do for older clients
 */
export function projectResult(method: string, version: SessionVersion, result: Buffer): Buffer {
  const lacking = lackingTypes[version];
  if (lacking.length === 0) return result;
  try {
    if (method === "tools/call") return projectToolResult(result, lacking);
    if (method === "prompts/get") return projectPrompt(result, lacking);
    return result;
  } catch (error) {
    if (error instanceof JsonTextError) return result;
    throw error;
  }
}

function projectToolResult(result: Buffer, lacking: readonly Lacking[]): Buffer {
  const holdsUnknown = mayHold(result, lacking);
  if (!holdsUnknown && !mayContain(result, "structuredContent")) return result;
  const content = member(result, 0, "content");
  const blocks = content && isArray(result, content) ? elements(result, content.start) : [];
  if (blocks.length > 0) return holdsUnknown ? projectBlocks(result, blocks, lacking) : result;
  const structured = member(result, 0, "structuredContent");
  if (!structured || !isObject(result, structured)) return result;
  const text = JSON.stringify(result.toString("utf8", structured.start, structured.end));
  return withMembers(result, { content: `[{"type":"text","text":${text}}]` });
}

function projectPrompt(result: Buffer, lacking: readonly Lacking[]): Buffer {
  if (!mayHold(result, lacking)) return result;
  const messages = member(result, 0, "messages");
  if (!messages || !isArray(result, messages)) return result;
  const blocks = elements(result, messages.start)
    .filter((message) => isObject(result, message))
    .flatMap((message) => member(result, message.start, "content") ?? []);
  return projectBlocks(result, blocks, lacking);
}

/** Whether a search for the bytes can rule the types out; nearly every result ends here. */
function mayHold(result: Buffer, lacking: readonly Lacking[]): boolean {
  return lacking.some(({ type }) => result.includes(type)) || result.includes("\\u");
}

// A letter can be spelled as \u0061, so only a text without any is what it seems.
function mayContain(result: Buffer, word: string): boolean {
  return result.includes(word) || result.includes("\\u");
}

function projectBlocks(result: Buffer, blocks: readonly Span[], lacking: readonly Lacking[]): Buffer {
  const edits = blocks.flatMap((span) => {
    if (!isObject(result, span)) return [];
    const block = result.subarray(span.start, span.end);
    const parts = members(block);
    const type = stringOf(block, parts, "type");
    const unknown = lacking.find((candidate) => candidate.type === type);
    return unknown ? [{ ...span, text: asText(block, parts, unknown) }] : [];
  });
  return edits.length > 0 ? splice(result, edits) : result;
}

function asText(block: Buffer, parts: readonly Member[], { describe, drops }: Lacking): string {
  const kept = parts
    .filter(({ key }) => key !== "type" && key !== "text" && !drops.includes(key))
    .map(({ key, start, end }) => `,${JSON.stringify(key)}:${block.toString("utf8", start, end)}`);
  return `{"type":"text","text":${JSON.stringify(describe(block, parts))}${kept.join("")}}`;
}

function describeLink(block: Buffer, parts: readonly Member[]): string {
  const name = stringOf(block, parts, "title") ?? stringOf(block, parts, "name");
  const mimeType = stringOf(block, parts, "mimeType");
  const description = stringOf(block, parts, "description");
  const what = `Resource${name ? ` "${name}"` : ""}${mimeType ? ` (${mimeType})` : ""}`;
  return `${what}: ${stringOf(block, parts, "uri") ?? "without a URI"}${description ? `\n${description}` : ""}`;
}

function describeAudio(block: Buffer, parts: readonly Member[]): string {
  const bytes = Buffer.byteLength(stringOf(block, parts, "data") ?? "", "base64");
  const mimeType = stringOf(block, parts, "mimeType") ?? "audio";
  return `Audio (${mimeType}, ${bytes} bytes), left out: this client's MCP revision has no audio.`;
}

function stringOf(block: Buffer, parts: readonly Member[], key: string): string | undefined {
  const part = parts.findLast((candidate) => candidate.key === key);
  if (!part || block[part.start] !== 0x22) return undefined;
  try {
    return JSON.parse(block.toString("utf8", part.start, part.end)) as string;
  } catch {
    return undefined; // a bad escape: for the client to find, as everywhere in what we pass on
  }
}

function isObject(json: Buffer, { start }: Span): boolean {
  return json[start] === 0x7b;
}

function isArray(json: Buffer, { start }: Span): boolean {
  return json[start] === 0x5b;
}
