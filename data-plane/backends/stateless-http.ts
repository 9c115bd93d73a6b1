// Requests of the stateless era over HTTP: a POST each, with headers that repeat what the body says.
// Source: MCP 2026-07-28, transports, streamable HTTP.

import type { Caller } from "../incoming-auth/caller.ts";
import { withEnvelope } from "../mcp/envelope.ts";
import { encodeHeaderValue } from "../mcp/header-values.ts";
import { errorCodes, type Message, readMessage, request, withId } from "../mcp/json-rpc.ts";
import { member, parseValue } from "../mcp/scan.ts";
import { nameParams, statelessErrors, statelessVersion } from "../mcp/stateless.ts";
import { errorOf, failure } from "../mcp/translate.ts";
import { createChangeFeed } from "./change-feed.ts";
import { BackendError, reasonOf } from "./errors.ts";
import { post } from "./http-post.ts";
import type { HttpTarget } from "./http-target.ts";
import type { ClientFacts, RequestOptions, ServerFacts } from "./leg.ts";
import { withDeadline } from "./limit.ts";
import { sendWith } from "./shown.ts";
import { envelopeOf, readDiscovery, type StatelessWire } from "./stateless-leg.ts";

/** What it takes to send; `onDoubt` hears of answers that no server of this era gives. */
export interface StatelessHttp extends StatelessWire, Disposable {
  /** Whether the server is of this era; then it has facts. Asked for `caller`, if any. Throws BackendError when that can't be told. */
  tryDiscover(signal: AbortSignal, caller?: Caller): Promise<boolean>;
}

/** Nothing is sent before it is asked for. `gateway` is who asks what we ask ourselves. */
export function createStatelessHttp(target: HttpTarget, gateway: ClientFacts, onDoubt: () => void): StatelessHttp {
  const own = envelopeOf(gateway);
  let closedBy: string | undefined;
  let facts: ServerFacts | undefined;
  let asking: Promise<boolean> | undefined;
  let lastId = 0;
  const changes = createChangeFeed({
    async open(message, { capabilities, ...options }) {
      const enveloped = withEnvelope(message, envelopeOf({ ...gateway, capabilities }));
      const { answer, status, refusal } = await exchange(target.streams, enveloped, options);
      if (answer) return answer;
      if (status !== 404 && status !== 405) throw refusal as BackendError; // not now; that says nothing about later
      return failure(message, errorCodes.methodNotFound, reasonOf(refusal));
    },
    log: target.log,
  });

  interface Reply {
    /** Undefined when it was refused without a word of MCP. */
    readonly answer: Message | undefined;
    readonly status: number;
    readonly refusal?: BackendError;
  }

  async function exchange(pool: HttpTarget["calls"], message: Message, options: RequestOptions): Promise<Reply> {
    const { signal, onMessage, headers } = options;
    let status = 0;
    // Many clients stand behind us, and each has an id 1.
    const sent = withId(message, String(++lastId));
    try {
      const own = ["mcp-method", message.method as string, ...nameHeader(message), ...Object.entries(headers ?? {}).flat()];
      const answer = await sendWith(target.credential, options, (shown, refusals) =>
        post(pool, {
          path: target.path,
          headers: [...everyRequest, ...own, ...shown],
          body: sent.json,
          awaited: sent,
          signal,
          hasSession: false,
          // Servers of this era ask nothing on streams; what has an id is none of ours.
          onMessage: (said) => (said.id === undefined ? onMessage?.(said) : undefined),
          onStart(seen, responseHeaders) {
            status = seen;
            refusals.noteStart(seen, responseHeaders);
          },
        }),
      );
      return { answer: withId(answer as Message, message.id as string), status };
    } catch (error) {
      if (error instanceof BackendError && error.code === "refused") return { answer: undefined, status, refusal: error };
      throw error;
    }
  }

  async function send(message: Message, options: RequestOptions): Promise<Message> {
    const reply = await exchange(target.calls, message, options);
    // Refused before it ran, and perhaps by a server that is not what it was: that can be asked.
    if (isDoubtful(reply.status, reply.answer) && !(await isStillStateless(options.caller))) {
      onDoubt();
      throw new BackendError("session_gone", "not_executed", otherRevision);
    }
    if (reply.answer) return reply.answer;
    throw reply.refusal as BackendError;
  }

  /** Whether the server is of this era still; asked once for all that doubt it. */
  function isStillStateless(caller: Caller | undefined): Promise<boolean> {
    asking ??= withDeadline(askMs, (signal) => tryDiscover(signal, caller))
      .catch(() => true) // it can't be told, so nothing changes
      .finally(() => {
        asking = undefined;
      });
    return asking;
  }

  async function tryDiscover(signal: AbortSignal, caller?: Caller): Promise<boolean> {
    const message = withEnvelope(readMessage(request("server/discover", undefined, '"vmcp-discover"')), own);
    const ask = async () => {
      const { answer, status } = await exchange(target.calls, message, { signal, caller });
      // Whatever it says with it, these say nothing of what it is.
      if (status >= 500) throw new BackendError("unavailable", "unknown", `answered HTTP ${status}`);
      if (busy.has(status))
        throw new BackendError("unavailable", "not_executed", `answered HTTP ${status}`, undefined, {
          asksForLess: status === 429,
        });
      return answer && readDiscovery(answer); // a refusal without a word of MCP is none of this era
    };
    const first = await ask();
    const found = first === "again" ? await ask() : first;
    if (found === "again") throw new BackendError("bad_answer", "unknown", "refuses the revision that it says it speaks");
    // The same object while it says the same, so that who looks can tell; and for those who still look, what it was last.
    if (found && JSON.stringify(found) !== JSON.stringify(facts)) facts = found;
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
    async discover(signal, caller) {
      if (await tryDiscover(signal, caller)) return;
      onDoubt();
      throw new BackendError("session_gone", "not_executed", otherRevision);
    },
    [Symbol.dispose]() {
      closedBy ??= otherRevision;
      changes[Symbol.dispose]();
    },
  };
}

const everyRequest = [
  ...["accept", "application/json, text/event-stream", "content-type", "application/json"],
  ...["mcp-protocol-version", statelessVersion],
];
const askMs = 3_000;
// Request timeout, too early, too many requests.
const busy = new Set([408, 425, 429]);
const otherRevision = "the server speaks another revision now";

/** Whether an answer is one that servers of the session era, or of a revision we don't speak, refuse requests with. */
function isDoubtful(status: number, answer: Message | undefined): boolean {
  if (status !== 400 && status !== 404 && status !== 405) return false;
  if (!answer) return true;
  if (!answer.error) return false;
  const { code } = errorOf(answer);
  return code === statelessErrors.unsupportedVersion || (code <= -32000 && code > -32020);
}

function nameHeader({ json, method, params }: Message): string[] {
  const key = nameParams.get(method as string);
  const span = key && params && member(json, params.start, key);
  const name = span && parseValue(json, span);
  return typeof name === "string" ? ["mcp-name", encodeHeaderValue(name)] : [];
}
