// URIs that backends gave a client in results. Links need not be listed (MCP 2025-11-25, tools, resource links), so this is how
// the gateway knows whom to ask for one.
import type { Message } from "../mcp/json-rpc.ts";
import { elements, JsonTextError, member, members, type Span } from "../mcp/scan.ts";

/** URI → the backend that gave it last. */
export interface HandedOut {
  note(uri: string, backend: string): void;
  ownerOf(uri: string): string | undefined;
}

const urisMax = 1_000;
const uriLengthMax = 2_048; // longer ones are data rather than names, and would make the bound on their number worthless

/** Empty; beyond `max` URIs (default 1,000) the one that was not used for longest is forgotten. */
export function createHandedOut(max = urisMax): HandedOut {
  const owners = new Map<string, string>(); // in order of use, oldest first

  function note(uri: string, backend: string): void {
    if (uri.length > uriLengthMax) return;
    owners.delete(uri);
    owners.set(uri, backend);
    if (owners.size > max) owners.delete(owners.keys().next().value as string);
  }

  return {
    note,
    ownerOf(uri) {
      const backend = owners.get(uri);
      if (backend !== undefined) note(uri, backend);
      return backend;
    },
  };
}

/** Notes the URIs in what a backend answered to `tools/call`, `prompts/get` or `resources/read`. */
export function noteUris(handedOut: HandedOut, backend: string, { json, result }: Message): void {
  if (!result || !json.includes('"uri"')) return; // nearly every result ends here
  try {
    for (const span of uriSpans(json, result)) {
      const uri: unknown = JSON.parse(json.toString("utf8", span.start, span.end));
      if (typeof uri === "string") handedOut.note(uri, backend);
    }
  } catch (error) {
    // A result that can't be read names nothing; it is the client's to judge.
    if (!(error instanceof JsonTextError || error instanceof SyntaxError)) throw error;
  }
}

function uriSpans(json: Buffer, result: Span): Span[] {
  return membersOf(json, result).flatMap(({ key, ...value }) => {
    if (key === "contents") return items(json, value).flatMap((part) => memberOf(json, part, "uri"));
    if (key === "content") return items(json, value).flatMap((block) => urisOfBlock(json, block));
    if (key !== "messages") return [];
    return items(json, value)
      .flatMap((message) => memberOf(json, message, "content"))
      .flatMap((content) => items(json, content))
      .flatMap((block) => urisOfBlock(json, block));
  });
}

/** Of a link, or of an embedded resource. */
function urisOfBlock(json: Buffer, block: Span): Span[] {
  return membersOf(json, block).flatMap(({ key, ...value }) => {
    if (key === "uri") return [value];
    return key === "resource" ? memberOf(json, value, "uri") : [];
  });
}

/** The items of an array; any other value is the only one. */
function items(json: Buffer, span: Span): Span[] {
  return json[span.start] === 0x5b ? elements(json, span.start) : [span];
}

function membersOf(json: Buffer, span: Span): ReturnType<typeof members> {
  return json[span.start] === 0x7b ? members(json, span.start) : [];
}

function memberOf(json: Buffer, span: Span, key: string): Span[] {
  const found = json[span.start] === 0x7b ? member(json, span.start, key) : undefined;
  return found ? [found] : [];
}
