// `tools/list`, `prompts/list`, `resources/list`, `resources/templates/list`: prepared pages.
import type { ListKind } from "../backends/catalog.ts";
import { resultAround } from "../mcp/json-rpc.ts";
import { metaKeys } from "../mcp/stateless.ts";
import { invalidParams, type Method } from "./call.ts";

/** The method that lists one kind. */
export function list(kind: ListKind): Method {
  return (call) => {
    const { cursor } = call.params;
    if (cursor !== undefined && typeof cursor !== "string") return invalidParams(call, '"cursor" is not a string');
    const opened = cursor === undefined ? undefined : call.tokens.openCursor(call.session, cursor);
    const prepared = call.view.lists[kind];
    const page = cursor === undefined || opened !== undefined ? prepared.page(opened) : undefined;
    if (!page) return invalidParams(call, "the cursor is not of this list; it may have changed: list again from the start");
    const info = `"_meta":{"${metaKeys.serverInfo}":${call.server.serverInfo}}`;
    const head = call.stateless ? `{"resultType":"complete",${prepared.caching},${info},` : "{";
    const tail = page.next === undefined ? "}" : `,"nextCursor":"${call.tokens.sealCursor(call.session, page.next)}"}`;
    return resultAround(call.id, head, page.json, tail);
  };
}
