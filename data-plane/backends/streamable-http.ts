// A session over Streamable HTTP (MCP 2025-03-26 to 2025-11-25).
import { setTimeout as sleep } from "node:timers/promises";
import { createEventParser } from "../mcp/event-stream.ts";
import { type Message, readMessage } from "../mcp/json-rpc.ts";
import type { SessionVersion } from "../mcp/versions.ts";
import type { HeaderList } from "../outgoing-auth/credential.ts";
import { BackendError, reasonOf } from "./errors.ts";
import { answerBytesMax, type Exchange } from "./http-exchange.ts";
import { post as postOnce } from "./http-post.ts";
import { readStream, type StreamReader } from "./http-stream.ts";
import type { HttpTarget } from "./http-target.ts";
import {
  answerServerRequest,
  type ClientFacts,
  cancelled,
  type Hear,
  initializedNotification,
  initializeRequest,
  isClientRequest,
  type Leg,
  type ListenOptions,
  type RequestOptions,
  type Resumable,
  readServerFacts,
  type ServerFacts,
} from "./leg.ts";
import { abortSignalOf } from "./limit.ts";
import { type Asker, sendWith } from "./shown.ts";

const postOnly = ["accept", "application/json, text/event-stream", "content-type", "application/json"];
const closeMs = 2_000;
const retryMsMin = 250;
const resumptionsMax = 1_000;
const answersMax = 8;

/** Opens a session, or goes on with one that another replica opened; throws BackendError. */
export async function openSessionLeg(
  target: HttpTarget & { readonly onSessionGone: () => void },
  client: ClientFacts,
  opening: AbortSignal,
  resumed?: Resumable,
): Promise<Leg> {
  const { calls, streams, path, log, credential } = target;
  // Names and values in turn, as undici writes them; made once.
  let sessionHeaders: readonly string[] = [];
  let postHeaders: readonly string[] = postOnly;
  let closedBy: string | undefined;
  let sessionId: string | undefined;
  let answersOpen = 0;

  /** Sends one POST; resolves with the response to `awaited`, or with nothing when none is awaited. */
  function post(body: Buffer, awaited: Message | undefined, options: RequestOptions): Promise<Message | undefined> {
    const { signal, onMessage } = options;
    const asker = askerOf(options);
    return sendWith(credential, asker, (shown, refusals) =>
      postOnce(awaited ? calls : streams, {
        path,
        headers: [...postHeaders, ...shown],
        body,
        awaited,
        signal,
        hasSession: sessionId !== undefined,
        onMessage(message) {
          if (message.id !== undefined && !(onMessage && isClientRequest(message))) return answerIt(message);
          return onMessage?.(message);
        },
        onStart(status, responseHeaders) {
          refusals.noteStart(status, responseHeaders);
          const minted = responseHeaders["mcp-session-id"];
          if (awaited?.method === "initialize" && typeof minted === "string") sessionId = minted;
        },
        resume: (exchange) => resume(exchange, abortSignalOf(signal), asker),
      }),
    );
  }

  /** What stands for the session itself is its client, whoever that is by then. */
  function askerOf({ caller = client.caller, clientHeaders }: Asker): Asker {
    return { caller, clientHeaders };
  }

  /** Goes on with a call's stream that ended before the answer, as often as the server ends it (MCP 2025-11-25, resumability). */
  async function resume(exchange: Exchange, signal: AbortSignal, asker: Asker): Promise<Message> {
    for (let round = 0; ; round++) {
      const from = exchange.resumption();
      if (!from || round === resumptionsMax)
        throw new BackendError("unavailable", "unknown", "the event stream ended before the answer");
      await sleep(Math.max(from.retryMs, retryMsMin), undefined, { signal }).catch(() => undefined);
      signal.throwIfAborted();
      try {
        let outcome: Message | BackendError | undefined;
        const isOffered = await sendWith(credential, asker, (shown, refusals) => {
          const headers = [...sessionHeaders, ...shown, "last-event-id", from.lastEventId];
          return readStream(
            streams,
            { path, headers, signal, refusals },
            {
              onChunk(chunk, stop) {
                outcome = exchange.data(chunk);
                if (outcome) stop();
                return exchange.pressure();
              },
            },
          );
        });
        if (outcome instanceof Error) throw outcome;
        if (outcome) return outcome;
        if (!isOffered)
          throw new BackendError("unavailable", "unknown", "the event stream ended before the answer and can't be resumed");
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        // A credential that was renewed meanwhile is a reason to ask again, like a stream that was cut.
        if (error instanceof BackendError && !error.credentialRenewed) throw asLost(error);
        // Cut again; but a server that is not there any more has lost the call.
        if (isUnreachable(error)) throw new BackendError("unavailable", "unknown", reasonOf(error), error);
      }
    }
  }

  /** Answers pings on a stream outside of calls. */
  function answering(onMessage: Hear): Hear {
    return (message) => {
      if (message.method === undefined) return undefined; // an answer here is somebody else's stream, resumed
      return message.method === "ping" && message.id !== undefined ? answerIt(message) : onMessage(message);
    };
  }

  /** Answers a backend's request ourselves. One that floods us with them gets few answers, and no queue. */
  function answerIt(message: Message): undefined {
    if (answersOpen >= answersMax) return undefined;
    answersOpen++;
    notify(answerServerRequest(message), AbortSignal.timeout(closeMs))
      .catch((error) => log.debug({ reason: reasonOf(error) }, "could not answer a backend's request"))
      .finally(() => {
        answersOpen--;
      });
    return undefined;
  }

  async function notify(message: Buffer, signal: AbortSignal): Promise<void> {
    await post(message, undefined, { signal });
  }

  function listen(onMessage: Hear, { signal, onOpen }: ListenOptions): Promise<boolean> {
    const parser = createEventParser(answerBytesMax);
    const stream: StreamReader = {
      ...(onOpen ? { onOpen } : {}),
      onChunk(chunk) {
        let wait: Promise<void> | undefined;
        for (const event of parser.push(chunk)) if (event.data.length > 0) wait = onMessage(readMessage(event.data)) ?? wait;
        return wait;
      },
    };
    return sendWith(credential, askerOf({}), (shown, refusals) =>
      readStream(streams, { path, headers: [...sessionHeaders, ...shown], signal, refusals }, stream),
    );
  }

  async function handshake(): Promise<ServerFacts> {
    const initialize = initializeRequest(client);
    const answered = readServerFacts((await post(initialize.json, initialize, { signal: opening })) as Message);
    speak(answered.protocolVersion);
    await notify(initializedNotification, opening);
    return answered;
  }

  /** What every request says from now on. */
  function speak(protocolVersion: string): void {
    sessionHeaders = ["mcp-protocol-version", protocolVersion, ...(sessionId === undefined ? [] : ["mcp-session-id", sessionId])];
    postHeaders = [...postOnly, ...sessionHeaders];
  }

  function goOn({ sessionId: known, protocolVersion, capabilities }: Resumable): ServerFacts {
    sessionId = known;
    speak(protocolVersion);
    return { era: "session", protocolVersion, capabilities, instructions: undefined };
  }

  async function endSession(): Promise<void> {
    if (sessionId === undefined) return;
    const ending = sessionHeaders.length > 0 ? sessionHeaders : ["mcp-session-id", sessionId];
    const sayGoodbye = async (shown: HeaderList): Promise<void> => {
      const headers = [...ending, ...shown];
      const { body } = await calls.request({ path, method: "DELETE", headers, signal: AbortSignal.timeout(closeMs) });
      await body.dump();
    };
    // One that gets none ends by itself one day.
    await target.ending(() => sendWith(credential, askerOf({}), sayGoodbye)).catch(() => undefined);
  }

  const facts = resumed
    ? goOn(resumed)
    : await handshake().catch(async (error: unknown) => {
        await endSession(); // the server may hold one already
        throw error;
      });

  return {
    facts,
    isShared: false,
    get closedBy() {
      return closedBy;
    },
    async request(message, requestOptions) {
      try {
        return (await post(message.json, message, requestOptions)) as Message;
      } catch (error) {
        if (error instanceof BackendError && error.code === "session_gone") {
          closedBy = error.message;
          target.onSessionGone();
        }
        // A closed connection is no cancellation in this era (MCP 2025-11-25, transports): it has to be said.
        if (requestOptions.signal.aborted) notify(cancelled(message), AbortSignal.timeout(closeMs)).catch(() => undefined);
        throw error;
      }
    },
    notify,
    listen: (onMessage, options) => listen(answering(onMessage), options),
    ...(sessionId === undefined ? {} : { resumable: resumableOf(sessionId, facts) }),
    async close() {
      if (closedBy !== undefined) return;
      closedBy = "it was closed";
      await endSession();
    },
    leave() {
      closedBy ??= "another replica goes on with it";
    },
  };
}

function resumableOf(sessionId: string, { protocolVersion, capabilities }: ServerFacts): Resumable {
  return { sessionId, protocolVersion: protocolVersion as SessionVersion, capabilities };
}

function isUnreachable(error: unknown): boolean {
  return ["ECONNREFUSED", "EHOSTUNREACH", "ENOTFOUND", "UND_ERR_CONNECT_TIMEOUT", "UND_ERR_DESTROYED"].includes(
    (error as { code?: string }).code ?? "",
  );
}

/** The call began before its stream was cut, so it is not to be made again whatever a resumption is refused for. */
function asLost(error: BackendError): BackendError {
  return new BackendError(error.code, "unknown", error.message, error);
}
