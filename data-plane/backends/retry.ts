// Whether a call that failed is made again, and how. A call that may have run is not, unless running it twice changes nothing.
//
// Every attempt is made on the same backend. Where it has other endpoints, one that is left alone, or that sheds calls, would be
// a reason to try those; that is for whoever has them to choose from.
import type { Message } from "../mcp/json-rpc.ts";
import { members } from "../mcp/scan.ts";
import type { BackendErrorCode } from "./errors.ts";

/** "on_new_session": again, and what the backend refused is a session that it does not know any more. */
export type Retry = "no" | "again" | "on_new_session";

/** One attempt that failed, and the call that it was made for. */
export interface Failed {
  readonly method: string | undefined;
  /** False for notifications and answers: nobody waits for what becomes of them, and a new session has no use for them. */
  readonly isRequest: boolean;
  /** As in BackendError. */
  readonly code: BackendErrorCode;
  readonly outcome: "not_executed" | "unknown";
  /** Made so far, this one too. */
  readonly attempts: number;
  /** The backend refused the session of an earlier attempt, so this one was made on a new one. */
  readonly hasNewSession: boolean;
  /** The client has heard something of it: progress, a question, a part of the answer. */
  readonly hasSpoken: boolean;
  /** It goes on with a call that the backend has begun: `inputResponses` or `requestState` are in it. */
  readonly carriesInput: boolean;
  readonly bodyBytes: number;
  /** The backend's budget of retries is not used up. */
  readonly budgetAllows: boolean;
  /** The credential that was refused has been exchanged for another. */
  readonly credentialRenewed?: boolean;
}

/** Attempts that one call may cost, not counting one that the backend refused for its session. */
const attemptsMax = 2;
/** Larger calls are not sent again. */
const retryBytesMax = 64 * 1024;

// Questions that change nothing, however often they are asked. `resources/read` and `prompts/get` are not among them: what they
// do is the server's own affair.
const repeatable: ReadonlySet<string | undefined> = new Set([
  "tools/list",
  "prompts/list",
  "resources/list",
  "resources/templates/list",
  "server/discover",
  "ping",
  "completion/complete",
]);

/** Pure: the same failure has the same answer. Whether time is left is not asked here; a call past its deadline is over. */
export function retryOf(failed: Failed): Retry {
  const { code, attempts, budgetAllows } = failed;
  const isUnrun = failed.outcome === "not_executed";
  if (!failed.isRequest || failed.hasSpoken) return "no";
  // It was refused, whatever it is and however often it was tried. A session that is new and gone as well is a fault.
  if (code === "session_gone") return isUnrun && !failed.hasNewSession ? "on_new_session" : "no";
  if (failed.carriesInput || attempts >= attemptsMax) return "no";
  if (code === "unauthorized") return isUnrun && failed.credentialRenewed ? "again" : "no";
  if (!budgetAllows) return "no";
  if (isUnrun) return code === "unavailable" && failed.bodyBytes <= retryBytesMax ? "again" : "no";
  // A deadline is over, and who did not answer a question will not answer it twice.
  const isBroken = code === "unavailable" || code === "bad_answer";
  return isBroken && repeatable.has(failed.method) ? "again" : "no";
}

/** What the message itself says of a call that failed. */
export function callFacts(message: Message): Pick<Failed, "method" | "isRequest" | "carriesInput" | "bodyBytes"> {
  const { json, method, id, params } = message;
  const keys = params && json[params.start] === openBrace ? members(json, params.start) : [];
  return {
    method,
    isRequest: method !== undefined && id !== undefined,
    carriesInput: keys.some(({ key }) => key === "inputResponses" || key === "requestState"),
    bodyBytes: json.length,
  };
}
const openBrace = 0x7b;
