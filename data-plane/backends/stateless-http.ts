// Requests of the stateless era over HTTP: a POST each, with headers that repeat what the body says.
// Source: MCP 2026-07-28, transports, streamable HTTP.

import { withEnvelope } from "../mcp/envelope.ts";
import { encodeHeaderValue } from "../mcp/header-values.ts";
import { type Message, readMessage, request, withId } from "../mcp/json-rpc.ts";
import { member } from "../mcp/scan.ts";
import { nameParams, statelessErrors, statelessVersion } from "../mcp/stateless.ts";
import { errorOf } from "../mcp/translate.ts";
import { createChangeFeed } from "./change-feed.ts";
import { BackendError } from "./errors.ts";
import { post } from "./http-post.ts";
import type { HttpTarget } from "./http-target.ts";
import type { ClientFacts, RequestOptions, ServerFacts } from "./leg.ts";
import { envelopeOf, readDiscovery, type StatelessWire } from "./stateless-leg.ts";

/** What it takes to send; `onDoubt` hears of answers that no server of this era gives. */
export interface StatelessHttp extends StatelessWire, Disposable {
  /** Whether the server is of this era; then it has facts. Throws BackendError when that can't be told. */
  tryDiscover(signal: AbortSignal): Promise<boolean>;
}

/** Nothing is sent before it is asked for. `gateway` is who asks what we ask ourselves. */
export function createStatelessHttp(target: HttpTarget, gateway: ClientFacts, onDoubt: () => void): StatelessHttp {
  const own = envelopeOf(gateway);
  let closedBy: string | undefined;
  let facts: ServerFacts | undefined;
  let lastId = 0;
  const changes = createChangeFeed({
    open: (message, options) => exchange(target.streams, withEnvelope(message, own), options).then(({ answer }) => answer),
    log: target.log,
  });

  async function exchange(
    pool: HttpTarget["calls"],
    message: Message,
    { signal, onMessage, headers }: RequestOptions,
  ): Promise<{ readonly answer: Message; readonly status: number }> {
    let status = 0;
    // Many clients stand behind us, and each has an id 1.
    const sent = withId(message, String(++lastId));
    const answer = await post(pool, {
      path: target.path,
      headers: [
        "accept",
        "application/json, text/event-stream",
        "content-type",
        "application/json",
        "mcp-protocol-version",
        statelessVersion,
        "mcp-method",
        message.method as string,
        ...nameHeader(message),
        ...Object.entries(headers ?? {}).flat(),
        ...Object.entries(await target.credential()).flat(),
      ],
      body: sent.json,
      awaited: sent,
      signal,
      hasSession: false,
      // Servers of this era ask nothing on streams; what has an id is none of ours.
      onMessage: (said) => (said.id === undefined ? onMessage?.(said) : undefined),
      onStart: (seen) => {
        status = seen;
      },
    });
    return { answer: withId(answer as Message, message.id as string), status };
  }

  async function send(message: Message, options: RequestOptions): Promise<Message> {
    const { answer, status } = await exchange(target.calls, message, options).catch((error: unknown) => {
      if (error instanceof BackendError && error.code === "refused") onDoubt();
      throw error;
    });
    if (status < 400 || !isDoubtful(answer)) return answer;
    // Refused before it ran, by a server that is not what it was.
    onDoubt();
    throw new BackendError("session_gone", "not_executed", otherRevision);
  }

  async function tryDiscover(signal: AbortSignal): Promise<boolean> {
    const message = withEnvelope(readMessage(request("server/discover", undefined, '"vmcp-discover"')), own);
    const ask = async () => readDiscovery((await exchange(target.calls, message, { signal })).answer);
    const first = await ask();
    const found = first === "again" ? await ask() : first;
    if (found === "again") throw new BackendError("bad_answer", "unknown", "refuses the revision that it says it speaks");
    // The same object while it says the same, so that who looks can tell.
    if (JSON.stringify(found) !== JSON.stringify(facts)) facts = found;
    return found !== undefined;
  }

  return {
    isShared: false,
    changes,
    get closedBy() {
      return closedBy;
    },
    send,
    tryDiscover,
    get facts() {
      if (!facts) throw new BackendError("unavailable", "not_executed", "it was not asked yet what it is");
      return facts;
    },
    async discover(signal) {
      if (await tryDiscover(signal)) return;
      onDoubt();
      throw new BackendError("session_gone", "not_executed", otherRevision);
    },
    [Symbol.dispose]() {
      closedBy ??= otherRevision;
      changes[Symbol.dispose]();
    },
  };
}

const otherRevision = "the server speaks another revision now";

/** Whether an error is one that only servers of the session era, or of a revision we don't speak, refuse requests with. */
function isDoubtful(answer: Message): boolean {
  if (!answer.error) return false;
  const { code } = errorOf(answer);
  return code === statelessErrors.unsupportedVersion || (code <= -32000 && code > -32020);
}

function nameHeader({ json, method, params }: Message): string[] {
  const key = nameParams.get(method as string);
  const span = key && params && member(json, params.start, key);
  if (!span || json[span.start] !== 0x22) return [];
  return ["mcp-name", encodeHeaderValue(JSON.parse(json.toString("utf8", span.start, span.end)) as string)];
}
