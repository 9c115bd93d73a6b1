// `initialize`: a session is opened, and the client learns what it is connected to.
import type { ServerResponse } from "node:http";
import type { Caller } from "../incoming-auth/caller.ts";
import { errorCodes, errorResponse, resultResponse } from "../mcp/json-rpc.ts";
import { member, withoutMembers } from "../mcp/scan.ts";
import { negotiate } from "../mcp/versions.ts";
import { initializeResult } from "../methods/initialize.ts";
import type { SessionFacts } from "../session/local-sessions.ts";
import type { Session } from "../session/session.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { respondJson } from "./answer.ts";
import type { ReadMessage } from "./read-request.ts";
import { refuse } from "./refuse.ts";

// Sessions keep both for as long as they live, and every new spelling of capabilities costs a view.
const clientInfoBytesMax = 4 * 1024;
const capabilitiesBytesMax = 8 * 1024;

export interface Opening {
  readonly server: VirtualServer;
  readonly caller: Caller;
  /** Undefined when there is no room. Throws StoreUnavailableError. */
  readonly open: (facts: Omit<SessionFacts, "era">) => Promise<Session | undefined>;
}

/** Answers the request and, when it is good, opens a session. */
export async function openSession(opening: Opening & { readonly response: ServerResponse }, read: ReadMessage): Promise<void> {
  const opened = await createSession(opening, read);
  if (!opened) return refuse(opening.response, 503, "too many sessions", { headers: { "retry-after": "1" } });
  const headers = opened.session ? { "mcp-session-id": opened.session.id } : {};
  respondJson(opening.response, opened.answer, { headers });
}

/** The answer to `initialize` and, when the request is good, the session it opened. Undefined when there is no room. */
export async function createSession(
  { server, caller, open }: Opening,
  { message, params }: ReadMessage,
): Promise<{ readonly answer: Buffer; readonly session?: Session } | undefined> {
  const id = message.id as string;
  const { protocolVersion, clientInfo, capabilities } = params;
  if (typeof protocolVersion !== "string" || !isObject(clientInfo) || !(capabilities === undefined || isObject(capabilities))) {
    const wanted = "initialize needs protocolVersion, clientInfo and capabilities";
    return { answer: errorResponse(id, { code: errorCodes.invalidParams, message: wanted }) };
  }
  const raw = (key: string): Buffer | undefined => {
    const span = message.params && member(message.json, message.params.start, key);
    return span && message.json.subarray(span.start, span.end);
  };
  const [clientInfoJson, capabilitiesJson] = [raw("clientInfo"), raw("capabilities")];
  if (bytesOf(clientInfoJson) > clientInfoBytesMax || bytesOf(capabilitiesJson) > capabilitiesBytesMax) {
    const limits = `clientInfo may have ${clientInfoBytesMax} bytes, capabilities ${capabilitiesBytesMax}`;
    return { answer: errorResponse(id, { code: errorCodes.invalidParams, message: limits }) };
  }
  const session = await open({
    virtualServer: server.name,
    identity: caller.identity,
    caller,
    protocolVersion: negotiate(protocolVersion),
    clientInfo: clientInfoJson?.toString() ?? "{}",
    capabilities: inOrder(capabilitiesJson),
  });
  if (!session) return undefined;
  await server.join(session);
  return { answer: resultResponse(id, initializeResult(server, session)), session };
}

function bytesOf(json: Buffer | undefined): number {
  return json?.length ?? 0;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Capabilities in one order, so that clients that declare the same are known to be alike. Tasks are not carried yet. */
function inOrder(capabilities: Buffer = Buffer.from("{}")): string {
  const members = Object.entries(JSON.parse(withoutMembers(capabilities, ["tasks"]).toString()) as object);
  return JSON.stringify(Object.fromEntries(members.sort(([a], [b]) => (a < b ? -1 : 1))));
}
