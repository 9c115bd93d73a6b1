// One MCP session with one backend, whatever carries it.
import type { IncomingHttpHeaders } from "node:http";
import { softwareVersion } from "../../common/version.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { errorCodes, errorResponse, type Message, parseSpan, readMessage, request, resultResponse } from "../mcp/json-rpc.ts";
import { type Era, isSessionVersion, type McpVersion, type SessionVersion } from "../mcp/versions.ts";
import type { StoredLeg } from "../session/record.ts";
import { BackendError } from "./errors.ts";
import type { CallSignal } from "./limit.ts";

/** What the backend said of itself when the session opened, or when it was discovered. */
export interface ServerFacts {
  readonly era: Era;
  readonly protocolVersion: McpVersion;
  /** By name; the values are what the backend declared. */
  readonly capabilities: Readonly<Record<string, unknown>>;
  readonly instructions: string | undefined;
}

/** What a backend is told of the client when a session opens. */
export interface ClientFacts {
  /** What the client speaks, so that the leg speaks it too whatever the server does. Undefined: we ourselves, who speak both. */
  readonly era?: Era;
  readonly protocolVersion: SessionVersion;
  /** JSON text of clientInfo. */
  readonly clientInfo: string;
  /** JSON text of what the client can do. */
  readonly capabilities: string;
  /** Whoever used it last; what we show the backend is made for them. Looked at whenever something is sent. */
  readonly caller?: Caller | undefined;
}

/** We ourselves, when no client stands behind us. */
export const gateway: ClientFacts = {
  protocolVersion: "2025-11-25",
  clientInfo: JSON.stringify({ name: "vmcp", version: softwareVersion }),
  capabilities: "{}",
};

/** An open session; with a server of the stateless era, what stands for one. */
export interface Leg {
  readonly facts: ServerFacts;
  /**
   * Sends a request and gives the response, under the id of the request. Throws BackendError.
   * What the backend sends on the call's own stream before the answer goes to `onMessage`; without one, its requests are refused.
   */
  request(message: Message, options: RequestOptions): Promise<Message>;
  /** Sends a notification or a response; throws BackendError. */
  notify(message: Buffer, signal: AbortSignal): Promise<void>;
  /** Hears what the backend sends outside of calls, until it stops or `signal` ends it. False when it offers no such stream. */
  listen(onMessage: Hear, options: ListenOptions): Promise<boolean>;
  /**
   * Hears of a task too, on the stream of `listen`, or no longer; false when the server does not take that, or there is no such
   * stream. Only servers of the stateless era can.
   */
  followTask?(taskId: string, isWanted: boolean): Promise<boolean>;
  /** Several client sessions use it, so the backend can't be told, nor tell us, which one is meant. */
  readonly isShared: boolean;
  /** Why it ended; undefined while it is open. */
  readonly closedBy: string | undefined;
  /** What another replica needs to go on with it; undefined when only this connection can. */
  readonly resumable?: Resumable;
  /** Ends the session; never rejects, bounded in time. */
  close(): Promise<void>;
  /** Lets go of it without ending it, for another replica to go on with. Without it there is nothing to let go of. */
  leave?(): void;
}

/** A session with a server, as far as another replica needs to know it. */
export type Resumable = Omit<StoredLeg, "place">;

/** The leg with some of it done another way. */
export function legWith(leg: Leg, changes: Partial<Leg>): Leg {
  return Object.create(leg, Object.getOwnPropertyDescriptors(changes)) as Leg;
}

/** Hears a message; the promise, if any, is how long the backend should not be read any further. */
export type Hear = (message: Message) => Promise<void> | undefined;

export interface ListenOptions {
  readonly signal: AbortSignal;
  /** The backend has taken the stream: from now on nothing is missed. */
  readonly onOpen?: () => void;
  /** Wants to hear of changed lists, from servers that only say what they are asked for. */
  readonly wantsLists?: boolean;
}

export interface RequestOptions {
  readonly signal: CallSignal;
  /** For whom the request is made. Default: whoever used the session last. */
  readonly caller?: Caller | undefined;
  /** Of the client's own request. */
  readonly clientHeaders?: IncomingHttpHeaders | undefined;
  readonly onMessage?: Hear | undefined;
  /** `Mcp-Param-*` headers, for servers of the stateless era. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** The same, looked up again after the server said that they are wrong; undefined when they are not known. */
  readonly freshHeaders?: (() => Promise<Readonly<Record<string, string>> | undefined>) | undefined;
}

/** The initialize request of a leg: to the backend we are as able as the client is. */
export function initializeRequest(client: ClientFacts): Message {
  const params = `{"protocolVersion":"${client.protocolVersion}","capabilities":${client.capabilities},"clientInfo":${client.clientInfo}}`;
  return readMessage(request("initialize", params, '"vmcp-initialize"'));
}

export const initializedNotification = request("notifications/initialized", undefined);

/** Tells a backend that nobody waits for `message` any more. */
export function cancelled(message: Message): Buffer {
  return request("notifications/cancelled", `{"requestId":${message.id}}`);
}

/** Reads the answer to initialize; throws BackendError when the backend refused or speaks no revision that we do. */
export function readServerFacts(response: Message): ServerFacts {
  if (response.error) {
    const { message } = parseJson(response, "error") as { message?: unknown };
    throw new BackendError("bad_answer", "not_executed", `refused to initialize: ${String(message).slice(0, 200)}`);
  }
  const result = parseJson(response, "result") as Partial<Record<string, unknown>>;
  if (!isSessionVersion(result.protocolVersion)) {
    throw new BackendError(
      "bad_answer",
      "not_executed",
      `speaks MCP revision ${JSON.stringify(result.protocolVersion)}, which we do not`,
    );
  }
  const capabilities =
    typeof result.capabilities === "object" && result.capabilities !== null
      ? (result.capabilities as Record<string, unknown>)
      : {};
  const instructions =
    typeof result.instructions === "string" && result.instructions.trim() !== "" ? result.instructions : undefined;
  return { era: "session", protocolVersion: result.protocolVersion, capabilities, instructions };
}

/** What we answer a backend ourselves: ping, and anything that nobody is there to answer. */
export function answerServerRequest(message: Message): Buffer {
  const id = message.id as string;
  if (message.method === "ping") return resultResponse(id, "{}");
  return errorResponse(id, { code: errorCodes.methodNotFound, message: `the client does not offer ${message.method}` });
}

/** Whether a backend asks something that a client may answer. */
export function isClientRequest(message: Message): boolean {
  return message.method !== undefined && message.id !== undefined && message.method !== "ping";
}

function parseJson(response: Message, part: "result" | "error"): unknown {
  try {
    const value = parseSpan(response, response[part]);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // falls through: not an object either way
  }
  throw new BackendError("bad_answer", "unknown", `the ${part} of initialize is not an object`);
}
