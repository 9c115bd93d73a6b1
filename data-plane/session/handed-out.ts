// URIs that backends gave a client in results. Links need not be listed (MCP 2025-11-25, tools, resource links), so this is how
// the gateway knows whom to ask for one.
import type { Message } from "../mcp/json-rpc.ts";
import { elements, JsonTextError, member, members, type Span } from "../mcp/scan.ts";
import type { SessionState } from "./record.ts";
import type { Session } from "./session.ts";

const urisMax = 1_000;
const charactersMax = 128 * 1024; // of all of them: every replica reads them with the session
const uriLengthMax = 2_048; // longer ones are data rather than names, and would make the bound on their number worthless

type Links = SessionState["links"];

/**
 * Notes the URIs in what a backend answered to `tools/call`, `prompts/get` or `resources/read`. Undefined when there is nothing new,
 * as nearly always; else settles when other replicas know too, or can't be told. Never rejects.
 */
export function noteUris(session: Session, backend: string, { json, result }: Message): Promise<void> | undefined {
  if (!result || !json.includes('"uri"')) return undefined;
  const { links } = session.state;
  const fresh = urisIn(json, result).filter((uri) => links.get(uri) !== backend);
  if (fresh.length === 0) return undefined;
  const edit = (state: SessionState): SessionState => ({ ...state, links: withLinks(state.links, fresh, backend) });
  return session.change(edit).catch(() => undefined); // it is the link that is lost, and not the answer
}

/** The links with more of them, the newest last; the oldest make room. */
export function withLinks(links: Links, uris: readonly string[], backend: string): Links {
  const changed = new Map(links);
  for (const uri of uris) {
    changed.delete(uri);
    changed.set(uri, backend);
  }
  let characters = changed.keys().reduce((sum, uri) => sum + uri.length, 0);
  for (const uri of changed.keys()) {
    if (changed.size <= urisMax && characters <= charactersMax) break;
    changed.delete(uri);
    characters -= uri.length;
  }
  return changed;
}

function urisIn(json: Buffer, result: Span): string[] {
  try {
    const values = uriSpans(json, result).map((span) => JSON.parse(json.toString("utf8", span.start, span.end)) as unknown);
    return values.filter((uri): uri is string => typeof uri === "string" && uri.length <= uriLengthMax);
  } catch (error) {
    // A result that can't be read names nothing; it is the client's to judge.
    if (error instanceof JsonTextError || error instanceof SyntaxError) return [];
    throw error;
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
