// `tools/list`, `prompts/list`, `resources/list`, `resources/templates/list`: prepared pages.
import type { ListKind } from "../backends/catalog.ts";
import { resultResponse } from "../mcp/json-rpc.ts";
import { invalidParams, type Method } from "./call.ts";

/** The method that lists one kind. */
export function list(kind: ListKind): Method {
  return (call) => {
    const { cursor } = call.params;
    if (cursor !== undefined && typeof cursor !== "string") return invalidParams(call, '"cursor" is not a string');
    const page = call.view.lists[kind].page(cursor);
    return page
      ? resultResponse(call.id, page)
      : invalidParams(call, "the cursor is not of this list; it may have changed: list again from the start");
  };
}
