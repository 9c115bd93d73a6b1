// One MCP session with one backend, whatever carries it.
import { errorCodes, errorResponse, type Message, parseSpan, readMessage, request, resultResponse } from "../mcp/json-rpc.ts";
import { isSessionVersion, type SessionVersion } from "../mcp/versions.ts";
import { BackendError } from "./errors.ts";

/** What the backend said when the session opened. */
export interface ServerFacts {
  readonly protocolVersion: SessionVersion;
  /** By name; the values are what the backend declared. */
  readonly capabilities: Readonly<Record<string, unknown>>;
  readonly instructions: string | undefined;
}

/** What a backend is told of the client when a session opens. */
export interface ClientFacts {
  readonly protocolVersion: SessionVersion;
  /** JSON text of clientInfo. */
  readonly clientInfo: string;
  /** JSON text of what the client can do. */
  readonly capabilities: string;
}

/** An open session. */
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
  /** Several client sessions use it, so the backend can't be told, nor tell us, which one is meant. */
  readonly isShared: boolean;
  /** Why it ended; undefined while it is open. */
  readonly closedBy: string | undefined;
  /** Ends the session; never rejects, bounded in time. */
  close(): Promise<void>;
}

/** Hears a message; the promise, if any, is how long the backend should not be read any further. */
export type Hear = (message: Message) => Promise<void> | undefined;

export interface ListenOptions {
  readonly signal: AbortSignal;
  /** The backend has taken the stream: from now on nothing is missed. */
  readonly onOpen?: () => void;
}

export interface RequestOptions {
  readonly signal: AbortSignal;
  readonly onMessage?: Hear;
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
  return { protocolVersion: result.protocolVersion, capabilities, instructions };
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
