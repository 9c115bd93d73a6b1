// What becomes of a message inside a session: a request is answered by its method, a notification is taken, an answer
// goes back to the backend that asked.
import type { IncomingHttpHeaders } from "node:http";
import type { Log } from "../../common/log.ts";
import { reasonOf } from "../backends/errors.ts";
import { createLimit } from "../backends/limit.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { errorCodes, errorResponse, type Message, readMessage, type Written, whole } from "../mcp/json-rpc.ts";
import { projectResult } from "../mcp/project.ts";
import { isUnreadable, member, splice } from "../mcp/scan.ts";
import { methods } from "../methods/registry.ts";
import type { Relay } from "../relay/relay.ts";
import type { CallerTokens } from "../session/caller-tokens.ts";
import { StoreUnavailableError } from "../session/record-store.ts";
import { type Session, SessionEndedError } from "../session/session.ts";
import type { VirtualServer } from "../virtual-server.ts";
import type { Answer } from "./answer.ts";
import type { ReadMessage } from "./read-request.ts";
import { type Tapping, tapped } from "./tapped.ts";

/** Where a message came in. */
export interface Place {
  readonly server: VirtualServer;
  readonly session: Session;
  /** For whom the message is, and with which headers it came. */
  readonly caller: Caller;
  readonly headers: IncomingHttpHeaders;
  readonly relay: Relay;
  readonly tokens: CallerTokens;
  readonly tap: Tapping;
  readonly log: Log;
  /** Tells other replicas of a cancelled request, named by the raw text of its id, that is not in flight here. */
  readonly tellCancelled?: (session: Session, request: string) => void;
}

/** Answers a request; never rejects. */
export async function answerRequest(place: Place, { message, params }: ReadMessage, answer: Answer): Promise<void> {
  const { server, session, caller, headers, relay, tokens, tap, log } = place;
  const id = message.id as string;
  const name = message.method as string;
  const method = methods.get(name);
  const refuse = (code: number, text: string) => answer.respond(errorResponse(id, { code, message: text }));
  if (!method) return refuse(errorCodes.methodNotFound, `unknown method: ${name}`);
  if (session.calls.has(id)) return refuse(errorCodes.invalidRequest, "a request with this id is in flight");
  const limit = createLimit();
  session.calls.set(id, limit);
  const view = server.viewOf(session);
  try {
    const { notify } = answer;
    const call = {
      message,
      id,
      params,
      session,
      caller,
      headers,
      server,
      view,
      limit,
      relay,
      tokens,
      notify,
      stateless: undefined,
    };
    const response = await (tap.isOn ? tapped(tap, call, method) : method(call));
    answer.respond(projected(session, name, response));
  } catch (error) {
    if (limit.signal.aborted) return answer.close();
    if (isUnreadable(error)) return refuse(errorCodes.internal, "the backend's answer can't be read");
    if (error instanceof StoreUnavailableError || error instanceof SessionEndedError)
      return refuse(errorCodes.internal, `${error.message}; the request had no lasting effect`);
    log.error({ err: error, method: name, virtualServer: server.name }, "a request failed");
    refuse(errorCodes.internal, "internal error");
  } finally {
    session.calls.delete(id);
    session.usedAtMs = performance.now();
  }
}

/** Takes a notification or an answer; gives why it is refused. */
export function takeMessage({ server, session, relay, log, ...place }: Place, { message }: ReadMessage): string | undefined {
  if (message.method === undefined)
    return relay.answer(session, server.listenerOf, message) ? undefined : "this answers no question of ours";
  if (message.method === "notifications/cancelled") {
    const request = rawParam(message, "requestId");
    const call = session.calls.get(request);
    if (call) call.abort(new Error("cancelled by the client"));
    else place.tellCancelled?.(session, request);
  } else if (message.method === "notifications/roots/list_changed") {
    for (const backend of server.backends.values()) {
      backend
        .tell(session, message.json)
        .catch((error) => log.debug({ reason: reasonOf(error) }, "a backend was not told of new roots"));
    }
  }
  return undefined;
}

/** The text of a parameter as the client wrote it; empty, which is no value, when there is none. */
function rawParam({ json, params }: Message, key: string): string {
  const span = params && member(json, params.start, key);
  return span ? json.toString("utf8", span.start, span.end) : "";
}

/** The response as a client of the session's revision can read it. */
function projected({ protocolVersion }: Session, method: string, written: Written): Written {
  if (protocolVersion >= "2025-06-18") return written;
  const response = whole(written);
  const { result } = readMessage(response);
  if (!result) return response;
  const before = response.subarray(result.start, result.end);
  const after = projectResult(method, protocolVersion, before);
  return after === before ? response : splice(response, [{ ...result, text: after }]);
}
