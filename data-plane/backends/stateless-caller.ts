// A session with a server, as callers without sessions use it: many of them share it, so ids and progress tokens are exchanged
// for ones of ours, and what belongs to the other era is taken out and put in.
import { progressTokenOf, withoutEnvelope } from "../mcp/envelope.ts";
import { type Message, readMessage, withId } from "../mcp/json-rpc.ts";
import { member, type Span, splice } from "../mcp/scan.ts";
import { statelessErrors } from "../mcp/stateless.ts";
import { failure, readObject, toStateless, urlElicitationsOf, withoutEmptyRead } from "../mcp/translate.ts";
import type { ClientFacts, Hear, Leg } from "./leg.ts";

/** The leg for callers of the stateless era with these abilities. */
export function forStatelessCaller(leg: Leg, client: Pick<ClientFacts, "capabilities">): Leg {
  let lastId = 0;

  return {
    get facts() {
      return leg.facts;
    },
    isShared: leg.isShared,
    get closedBy() {
      return leg.closedBy;
    },
    async request(message, options) {
      const id = String(++lastId);
      const plain = withId(withoutEnvelope(message), id);
      const token = progressTokenOf(plain);
      const hear = options.onMessage;
      const answer = await leg.request(token ? readMessage(splice(plain.json, [{ ...token, text: id }])) : plain, {
        signal: options.signal,
        ...(hear ? { onMessage: token ? hearing(hear, id, textOf(plain, token)) : hear } : {}),
      });
      const own = withId(answer, message.id as string);
      const params = readObject(message, message.params);
      const read = message.method === "resources/read" ? withoutEmptyRead(own, params) : own;
      return asInputRequired(toStateless(message.method as string, read, params), client);
    },
    notify: leg.notify,
    listen: leg.listen,
    close: leg.close,
  };
}

/** Puts the caller's progress token back; what names another token is not this call's. */
function hearing(hear: Hear, token: string, original: string): Hear {
  return (said) => {
    if (said.method !== "notifications/progress") return hear(said);
    const span = said.params && member(said.json, said.params.start, "progressToken");
    if (!span || textOf(said, span) !== token) return undefined;
    return hear(readMessage(splice(said.json, [{ ...span, text: original }])));
  };
}

function textOf({ json }: Message, { start, end }: Span): string {
  return json.toString("utf8", start, end);
}

/** "Visit this URL first" in the words of the other era: the caller visits it and calls again. */
function asInputRequired(answer: Message, { capabilities }: Pick<ClientFacts, "capabilities">): Message {
  const elicitations = urlElicitationsOf(answer);
  if (!elicitations) return answer;
  const { elicitation } = JSON.parse(capabilities) as { elicitation?: { url?: unknown } };
  if (!elicitation?.url || elicitations.length === 0)
    return failure(answer, statelessErrors.missingCapability, "a URL has to be visited first", {
      requiredCapabilities: { elicitation: { url: {} } },
    });
  const requests = elicitations.map((params, i) => [
    `url${i + 1}`,
    { method: "elicitation/create", params: { mode: "url", ...params } },
  ]);
  const result = JSON.stringify({ resultType: "input_required", inputRequests: Object.fromEntries(requests) });
  return readMessage(Buffer.from(`{"jsonrpc":"2.0","id":${answer.id},"result":${result}}`));
}
