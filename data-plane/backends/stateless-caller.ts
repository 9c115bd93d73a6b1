// A session with a server, as callers without sessions use it: many of them share it, so ids and progress tokens are exchanged
// for ones of ours, and what belongs to the other era is taken out and put in.
import { progressTokenOf, withoutEnvelope } from "../mcp/envelope.ts";
import { type Message, readMessage, withId } from "../mcp/json-rpc.ts";
import { member, type Span, splice } from "../mcp/scan.ts";
import { readObject, toStateless, withoutEmptyRead } from "../mcp/translate.ts";
import { type Hear, type Leg, legWith } from "./leg.ts";

/** The leg for callers of the stateless era. */
export function forStatelessCaller(leg: Leg): Leg {
  let lastId = 0;

  return legWith(leg, {
    async request(message, options) {
      const id = String(++lastId);
      const plain = withId(withoutEnvelope(message), id);
      const token = progressTokenOf(plain);
      const { onMessage: hear, ...others } = options;
      const answer = await leg.request(token ? readMessage(splice(plain.json, [{ ...token, text: id }])) : plain, {
        ...others,
        ...(hear ? { onMessage: hearing(hear, id, token && textOf(plain, token)) } : {}),
      });
      const own = withId(answer, message.id as string);
      const params = readObject(message, message.params);
      const read = message.method === "resources/read" ? withoutEmptyRead(own, params) : own;
      return toStateless(message.method as string, read, params);
    },
  });
}

/** Puts the caller's progress token back; what names another token, or none was given for, is not this call's. */
function hearing(hear: Hear, token: string, original: string | undefined): Hear {
  return (said) => {
    if (said.method !== "notifications/progress") return hear(said);
    const span = said.params && member(said.json, said.params.start, "progressToken");
    if (!span || original === undefined || textOf(said, span) !== token) return undefined;
    return hear(readMessage(splice(said.json, [{ ...span, text: original }])));
  };
}

function textOf({ json }: Message, { start, end }: Span): string {
  return json.toString("utf8", start, end);
}
