// Questions of backends, in the words of an era without questions: entries of `inputRequests`.
// Source: MCP 2026-07-28, multi round-trip requests.
import { errorCodes, errorResponse, type Message, resultResponse } from "../mcp/json-rpc.ts";
import { isEmpty, member, splice, withoutMembers } from "../mcp/scan.ts";

export interface Question {
  /** The backend's id, raw. */
  readonly id: string;
  readonly method: string;
  /** As an entry of `inputRequests`. */
  readonly text: string;
}

/** What a backend's request asks. */
export function questionOf(said: Message): Question {
  return { id: said.id as string, method: said.method as string, text: entryOf(said) };
}

/** What a backend is told when nobody will answer. */
export function withdrawal({ id, method }: Question): Buffer {
  if (method === "elicitation/create") return resultResponse(id, '{"action":"cancel"}');
  const code = method === "sampling/createMessage" ? -1 : errorCodes.internal;
  return errorResponse(id, { code, message: "nobody answered in time" });
}

/** A question as an entry of `inputRequests`. Ids and tokens of the backend's session mean nothing to the caller. */
function entryOf({ json, method, params }: Message): string {
  const head = `{"method":${JSON.stringify(method)}`;
  if (!params) return `${head}}`;
  const plain = withoutMembers(json.subarray(params.start, params.end), ["elicitationId"]);
  return `${head},"params":${withoutTokens(plain)}}`;
}

const sessionMeta = ["progressToken", "io.modelcontextprotocol/related-task"];

function withoutTokens(params: Buffer): Buffer {
  const meta = member(params, 0, "_meta");
  if (!meta || params[meta.start] !== 0x7b) return params;
  const plain = withoutMembers(params.subarray(meta.start, meta.end), sessionMeta);
  return isEmpty(plain) ? withoutMembers(params, ["_meta"]) : splice(params, [{ ...meta, text: plain }]);
}
