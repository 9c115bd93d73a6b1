// What is not done because there is too much to do: a place for each call, and refusals that say when to come again. Messages that are
// no requests (cancellations, answers to questions of backends) need no place, and neither does the end of a session.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Caller } from "../incoming-auth/caller.ts";
import { errorCodes } from "../mcp/json-rpc.ts";
import type { Place } from "../overload/concurrency.ts";
import type { Overload, Refusal } from "../overload/overload.ts";
import type { ReadMessage } from "./read-request.ts";
import { refuse } from "./refuse.ts";

/** A request whose caller is known. */
export interface Arrived {
  readonly overload: Overload;
  readonly caller: Caller;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

// What is smaller has come with its headers. To read it costs less than the new connection of a client that was cut off in the middle.
const bodyBytesRead = 64 * 1024;

/** Whether a large body need not be read, because the headers say that it is a call and there is no place for it. Answers then. */
export function isShedUnread(arrived: Arrived): boolean {
  const { headers } = arrived.request;
  const bytes = headers["content-length"];
  if (bytes !== undefined && Number(bytes) <= bodyBytesRead) return false;
  const method = headers["mcp-method"];
  const isCall = typeof method === "string" ? !method.startsWith("notifications/") : headers["mcp-session-id"] === undefined;
  const reason = isCall ? arrived.overload.refusalOf(shareOf(arrived)) : undefined;
  if (reason !== undefined) shed(arrived, reason);
  return reason !== undefined;
}

/** A place for what was read, to be left when its work has ended; undefined when it was refused here. */
export function placeFor(
  arrived: Arrived,
  read: ReadMessage | readonly ReadMessage[],
  requests: number,
): Place | undefined | Promise<Place | undefined> {
  const first = "message" in read ? read : undefined;
  const caller = shareOf(arrived);
  // Who is behind a proxy is not believed, but shows that there is one.
  const behind = arrived.request.headers["x-forwarded-for"];
  arrived.overload.saw(arrived.request.socket, behind === undefined ? caller : `${caller} ${behind}`);
  const entering = arrived.overload.enter(caller, requests);
  if (entering instanceof Promise) return entering.then((entered) => settled(arrived, entered, first));
  return settled(arrived, entering, first);
}

function settled(arrived: Arrived, entered: Place | Refusal, read: ReadMessage | undefined): Place | undefined {
  if (typeof entered === "string") return void shed(arrived, entered, read?.message.id);
  if (!arrived.response.destroyed) return entered;
  arrived.overload.leave(entered); // whoever asked is gone, and nothing has run
  return undefined;
}

/** Counts a stream on this response until it closes; false when it was refused here. */
export function hasRoomForStream(arrived: Arrived, { id, isResumed }: { id?: string; isResumed?: boolean } = {}): boolean {
  const { identity } = arrived.caller;
  const reason = arrived.overload.openStream(arrived.response, identity.isAnonymous ? undefined : shareOf(arrived), isResumed);
  if (reason !== undefined) shed(arrived, reason, id);
  return reason === undefined;
}

/** Whose share a request is of. Anonymous callers are told apart by where they are, which is all that is known of them. */
function shareOf({ caller: { identity }, request }: Arrived): string {
  return identity.isAnonymous ? (request.socket.remoteAddress ?? "") : `${identity.issuer} ${identity.subject}`;
}

const messages: Readonly<Record<Refusal, string>> = {
  caller_over_share: "you have more calls in flight than your share, and others are waiting",
  gateway_full: "the gateway has as many calls in flight as it can serve",
  too_many_streams: "too many streams",
  too_many_streams_of_caller: "you have too many streams",
  under_pressure: "the gateway is short of resources",
};

/** 429 when it is the caller who has too much, 503 when it is the gateway. Nothing has run. */
export function shed({ overload, response }: Pick<Arrived, "overload" | "response">, reason: Refusal, id?: string): void {
  const isCallers = reason === "caller_over_share" || reason === "too_many_streams_of_caller";
  const { afterSeconds, unreadMs } = overload.refused(reason, response.req.socket);
  refuse(response, isCallers ? 429 : 503, messages[reason], {
    id,
    code: errorCodes.internal,
    data: { reason, retryable: true, outcome: "not_executed" },
    headers: { "retry-after": `${afterSeconds}`, ...(overload.isCrowded ? { connection: "close" } : {}) },
  });
  if (unreadMs > 0 && response.req.complete) leaveUnread(response.req.socket, unreadMs);
}

/** Reads nothing more from a connection for a while; what its client sends meanwhile waits in the kernel. */
function leaveUnread(socket: Socket, ms: number): void {
  socket.pause();
  setTimeout(() => socket.resume(), ms).unref();
}
