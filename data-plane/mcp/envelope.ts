// The envelope of a request in the stateless era: what a session agrees on once, every request says in `params._meta`.
// Source: MCP 2026-07-28, base protocol, request metadata.
import { type Message, readMessage } from "./json-rpc.ts";
import { type Edit, isEmpty, member, type Span, splice, withMembers, withoutMembers } from "./scan.ts";
import { metaKeys } from "./stateless.ts";

/** Members of `_meta` with their values as JSON text. */
export type EnvelopeMembers = Readonly<Record<string, string>>;

const envelopeKeys = [metaKeys.protocolVersion, metaKeys.clientCapabilities, metaKeys.clientInfo, metaKeys.logLevel];

/** The request with these members in its `_meta`; everything else keeps its bytes. */
export function withEnvelope(message: Message, envelope: EnvelopeMembers): Message {
  const { json, params } = message;
  const meta = params && member(json, params.start, "_meta");
  if (meta && json[meta.start] === 0x7b)
    return edited(json, [{ ...meta, text: withMembers(json.subarray(meta.start, meta.end), envelope) }]);
  const text = `{${Object.entries(envelope)
    .map(([key, value]) => `${JSON.stringify(key)}:${value}`)
    .join(",")}}`;
  if (params) return edited(json, [{ ...params, text: withMembers(json.subarray(params.start, params.end), { _meta: text }) }]);
  return readMessage(withMembers(json, { params: `{"_meta":${text}}` }));
}

/** Whether a request says which revision it is of: those of clients without sessions do, ours and those of sessions don't. */
export function hasEnvelope({ json, params }: Message): boolean {
  const meta = params && member(json, params.start, "_meta");
  return meta !== undefined && json[meta.start] === 0x7b && member(json, meta.start, metaKeys.protocolVersion) !== undefined;
}

/** The request as a server of the session era gets it: without envelope, and without what belongs to rounds of input. */
export function withoutEnvelope(message: Message): Message {
  const { json, params } = message;
  if (!params) return message;
  const meta = member(json, params.start, "_meta");
  const plainMeta = meta && withoutMembers(json.subarray(meta.start, meta.end), envelopeKeys);
  const withMeta = meta && plainMeta ? splice(json, [{ ...meta, text: plainMeta }]) : json;
  const end = params.end + withMeta.length - json.length;
  const hasNone = plainMeta !== undefined && isEmpty(plainMeta);
  const plain = withoutMembers(withMeta.subarray(params.start, end), [
    "inputResponses",
    "requestState",
    ...(hasNone ? ["_meta"] : []),
  ]);
  return readMessage(splice(withMeta, [{ start: params.start, end, text: plain }]));
}

/** Where the progress token stands; undefined when there is none. */
export function progressTokenOf({ json, params }: Message): Span | undefined {
  const meta = params && member(json, params.start, "_meta");
  return meta && json[meta.start] === 0x7b ? member(json, meta.start, "progressToken") : undefined;
}

function edited(json: Buffer, edits: readonly Edit[]): Message {
  return readMessage(splice(json, edits));
}
