// What a caller is told who has to sign in at a backend first: a URL to visit, in the words of its era and revision. The call did
// not run, and is to be made again afterwards. Source: MCP 2025-11-25, elicitation, URL mode.
import { BackendError } from "../backends/errors.ts";
import type { Identity } from "../incoming-auth/identity.ts";
import { errorCodes, errorResponse, type Message, readMessage, request, resultResponse } from "../mcp/json-rpc.ts";
import { urlElicitationRequired, withUrlRequests } from "../mcp/translate.ts";
import { SignInNeededError } from "../outgoing-auth/credential.ts";
import { notifySession, type Session } from "../session/session.ts";
import { backendFailure, type Call } from "./call.ts";

const causesMax = 8;

/** Whether a call failed because its caller has to sign in first. */
export function signInOf(error: unknown): SignInNeededError | undefined {
  let cause = error;
  for (let depth = 0; depth < causesMax && cause instanceof Error; depth++) {
    if (cause instanceof SignInNeededError) return cause;
    cause = cause.cause;
  }
  return undefined;
}

/** Answers our own tool of a backend: the caller is signed in, or asked to. */
export async function signIn(call: Call, name: string): Promise<Message> {
  const backend = call.server.backends.get(name);
  try {
    await backend?.prove({ caller: call.caller, clientHeaders: call.headers });
  } catch (error) {
    const needed = signInOf(error);
    if (needed) return askToSignIn(call, name, needed);
    if (error instanceof BackendError) return readMessage(backendFailure(call, name, error));
    throw error;
  }
  return saying(call, `You are signed in at "${name}"; its tools are listed now.`);
}

/** The response that asks the caller to sign in. */
export function askToSignIn(call: Call, backend: string, { url, elicitationId }: SignInNeededError): Message {
  const message = `"${backend}" wants to know who you are: sign in there, then try again`;
  const data = { elicitations: [{ mode: "url", elicitationId, url, message }] };
  const asking = readMessage(errorResponse(call.id, { code: urlElicitationRequired, message, data }));
  if (call.stateless) return withUrlRequests(asking, call.stateless.envelope.capabilities);
  if (canVisit(call.session.capabilities)) return asking;
  const text = `${message}: ${url}`;
  if (call.message.method !== "tools/call")
    return readMessage(errorResponse(call.id, { code: errorCodes.internal, message: text }));
  return saying(call, text, true);
}

function saying(call: Call, text: string, isError = false): Message {
  const result = { ...(call.stateless ? { resultType: "complete" } : {}), content: [{ type: "text", text }], isError };
  return readMessage(resultResponse(call.id, JSON.stringify(result)));
}

/** A user has signed in: clients of theirs that can visit URLs are told that this occasion is over. */
export function tellSignedIn(
  sessions: Iterable<Session>,
  who: Pick<Identity, "issuer" | "subject">,
  elicitationId: string,
): void {
  const method = "notifications/elicitation/complete";
  const message = request(method, JSON.stringify({ elicitationId }));
  for (const session of sessions) {
    const { era, identity, capabilities } = session;
    if (era !== "session" || identity.issuer !== who.issuer || identity.subject !== who.subject) continue;
    // One of each occasion waits for a stream.
    if (canVisit(capabilities)) notifySession(session, `${method} ${elicitationId}`, message);
  }
}

function canVisit(capabilities: string): boolean {
  const { elicitation } = JSON.parse(capabilities) as { elicitation?: { url?: unknown } | null };
  return typeof elicitation?.url === "object" && elicitation.url !== null;
}
