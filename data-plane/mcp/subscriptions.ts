// The messages of `subscriptions/listen`. Source: MCP 2026-07-28, subscriptions.
import { type Message, parseSpan, readMessage, request } from "./json-rpc.ts";
import { isEmpty, member, splice, withMembers, withoutMembers } from "./scan.ts";
import { metaKeys } from "./stateless.ts";

export const acknowledged = "notifications/subscriptions/acknowledged";
export const resourceUpdated = "notifications/resources/updated";
export const listsChanged = ["tools", "prompts", "resources"].map((kind) => `notifications/${kind}/list_changed`);

/** What a stream is to tell. */
export interface Wanted {
  readonly lists: boolean;
  readonly uris: ReadonlySet<string>;
  readonly tasks: ReadonlySet<string>;
}

/** The request for a stream; `id` is JSON text. */
export function listenRequest({ lists, uris, tasks }: Wanted, id: string): Message {
  const notifications = {
    ...(lists ? { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true } : {}),
    ...(uris.size > 0 ? { resourceSubscriptions: [...uris] } : {}),
    ...(tasks.size > 0 ? { taskIds: [...tasks] } : {}),
  };
  return readMessage(request("subscriptions/listen", JSON.stringify({ notifications }), id));
}

/** What an acknowledgement promises to tell of. */
export function honouredBy(message: Message): Pick<Wanted, "uris" | "tasks"> {
  const { resourceSubscriptions, taskIds } = Object(paramsOf(message).notifications) as Record<string, unknown>;
  return { uris: textsOf(resourceSubscriptions), tasks: textsOf(taskIds) };
}

function textsOf(value: unknown): ReadonlySet<string> {
  return new Set(Array.isArray(value) ? value.filter((one) => typeof one === "string") : []);
}

/** Parsed; empty when there are none that can be read. */
export function paramsOf(message: Message): Record<string, unknown> {
  try {
    return Object(parseSpan(message, message.params)) as Record<string, unknown>;
  } catch {
    return {}; // the scanner lets pass what no parser reads
  }
}

/** Whether an update tells of a resource: of itself, or of a part of it. */
export function concernsResource(whole: string, updated: string): boolean {
  return updated === whole || updated.startsWith(whole.endsWith("/") ? whole : `${whole}/`);
}

/** A notification under the id, as JSON text, of the stream that it is for. */
export function tagged(message: Buffer, id: string): Buffer {
  const { params } = readMessage(message);
  const tag = { [metaKeys.subscriptionId]: id };
  if (!params) return withMembers(message, { params: `{"_meta":{"${metaKeys.subscriptionId}":${id}}}` });
  const before = message.subarray(params.start, params.end);
  const meta = member(before, 0, "_meta");
  const isObject = meta !== undefined && before[meta.start] === 0x7b;
  const after = withMembers(isObject ? before.subarray(meta.start, meta.end) : Buffer.from("{}"), tag);
  return splice(message, [{ ...params, text: withMembers(before, { _meta: after }) }]);
}

/** Without the id of the stream that it came on, which says nothing to anybody else. */
export function untagged(message: Message): Message {
  const { json, params } = message;
  const meta = params && json[params.start] === 0x7b ? member(json, params.start, "_meta") : undefined;
  if (!params || !meta || json[meta.start] !== 0x7b) return message;
  const before = json.subarray(meta.start, meta.end);
  const plain = withoutMembers(before, [metaKeys.subscriptionId]);
  if (plain === before) return message;
  const edit = isEmpty(plain)
    ? { ...params, text: withoutMembers(json.subarray(params.start, params.end), ["_meta"]) }
    : { ...meta, text: plain };
  return readMessage(splice(json, [edit]));
}
