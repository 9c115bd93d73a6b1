// `initialize`: a session is opened, and the client learns what it is connected to.
import type { ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Identity } from "../incoming-auth/identity.ts";
import { errorCodes, errorResponse, resultResponse } from "../mcp/json-rpc.ts";
import { member, withoutMembers } from "../mcp/scan.ts";
import { negotiate } from "../mcp/versions.ts";
import { initializeResult } from "../methods/initialize.ts";
import type { SessionStore } from "../session/store.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { respondJson } from "./answer.ts";
import type { ReadMessage } from "./read-request.ts";
import { refuse } from "./refuse.ts";

const joinMs = 2_000;

export interface Opening {
  readonly server: VirtualServer;
  readonly identity: Identity;
  readonly sessions: SessionStore;
  readonly response: ServerResponse;
}

/** Answers the request and, when it is good, opens a session. */
export async function openSession(
  { server, identity, sessions, response }: Opening,
  { message, params }: ReadMessage,
): Promise<void> {
  const id = message.id as string;
  const { protocolVersion, clientInfo, capabilities } = params;
  if (typeof protocolVersion !== "string" || !isObject(clientInfo) || !(capabilities === undefined || isObject(capabilities))) {
    const wanted = "initialize needs protocolVersion, clientInfo and capabilities";
    return respondJson(response, errorResponse(id, { code: errorCodes.invalidParams, message: wanted }));
  }
  const raw = (key: string): Buffer | undefined => {
    const span = message.params && member(message.json, message.params.start, key);
    return span && message.json.subarray(span.start, span.end);
  };
  const session = sessions.create({
    virtualServer: server.name,
    identity,
    protocolVersion: negotiate(protocolVersion),
    clientInfo: raw("clientInfo")?.toString() ?? "{}",
    capabilities: inOrder(raw("capabilities")),
  });
  if (!session) return refuse(response, 503, "too many sessions", { headers: { "retry-after": "1" } });
  // Backends that list more for a client like this get a moment to do so, the first time one comes.
  const joined = Promise.all([...server.backends.values()].map((backend) => backend.join(session)));
  await Promise.race([joined, sleep(joinMs, undefined, { ref: false })]);
  respondJson(response, resultResponse(id, initializeResult(server, session)), { "mcp-session-id": session.id });
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Capabilities in one order, so that clients that declare the same are known to be alike. Tasks are not carried yet. */
function inOrder(capabilities: Buffer = Buffer.from("{}")): string {
  const members = Object.entries(JSON.parse(withoutMembers(capabilities, ["tasks"]).toString()) as object);
  return JSON.stringify(Object.fromEntries(members.sort(([a], [b]) => (a < b ? -1 : 1))));
}
