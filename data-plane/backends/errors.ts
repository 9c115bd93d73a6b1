// Why a call to a backend has no answer.

export type BackendErrorCode =
  /** It could not be reached, or the connection broke. */
  | "unavailable"
  /** It is no longer part of the virtual server, so it was not asked. */
  | "gone"
  /** No answer within the deadline. */
  | "timeout"
  /** It does not know the session (any more), so the call did not run. */
  | "session_gone"
  /** It answered with something that is not MCP. */
  | "bad_answer"
  /** It refused the request itself (HTTP 4xx); that says nothing about its health. */
  | "refused"
  /** It wants other credentials than we showed. */
  | "unauthorized"
  /** There is no credential that we may show it, so it was not asked. */
  | "no_credential"
  /** It asked the client something, and nobody answered in time; that says nothing about its health either. */
  | "unanswered"
  /** The breaker is open or too many calls are in flight, so we did not ask. */
  | "shed";

/** `outcome` says whether the call may have run: honest about what we do not know. */
export class BackendError extends Error {
  override name = "BackendError";
  readonly code: BackendErrorCode;
  readonly outcome: "not_executed" | "unknown";
  /** Of a refused credential: there is another one to show. */
  readonly credentialRenewed: boolean;
  /** Of a refused request: it has too much to do (HTTP 429). */
  readonly asksForLess: boolean;
  /** Of a call that was shed because the last ones failed. */
  readonly leftAlone: LeftAlone | undefined;

  constructor(
    code: BackendErrorCode,
    outcome: "not_executed" | "unknown",
    message: string,
    cause?: unknown,
    more: { readonly credentialRenewed?: boolean; readonly asksForLess?: boolean; readonly leftAlone?: LeftAlone } = {},
  ) {
    super(message, { cause });
    this.code = code;
    this.outcome = outcome;
    this.credentialRenewed = more.credentialRenewed ?? false;
    this.asksForLess = more.asksForLess ?? false;
    this.leftAlone = more.leftAlone;
  }
}

/** How long a backend has been left alone, and after how long calling it may be worth another try. */
export interface LeftAlone {
  readonly sinceMs: number;
  readonly retryAfterMs: number;
}

/** Why a call to a backend that left was not made. */
export function backendGone(): BackendError {
  return new BackendError("gone", "not_executed", "it is no longer part of this server");
}

/** Why a call ends whose client was asked something. */
export function nobodyAnswered(): BackendError {
  return new BackendError("unanswered", "unknown", "nobody answered in time");
}

/** An HTTP status that says that the request was not taken. */
export function refusedWith(status: number): BackendError {
  return new BackendError("refused", "not_executed", `answered HTTP ${status}`, undefined, { asksForLess: status === 429 });
}

/** What the system says of a connection, in words that name no address: they reach clients too. */
const connectionFaults: ReadonlyMap<string, string> = new Map([
  ["ECONNREFUSED", "nobody listens there"],
  ["ECONNRESET", "the connection was reset"],
  ["EPIPE", "the connection was closed"],
  ["ENOTFOUND", "its host name is not known"],
  ["EAI_AGAIN", "its host name can't be looked up"],
  ["EHOSTUNREACH", "its host can't be reached"],
  ["ENETUNREACH", "its network can't be reached"],
  ["ETIMEDOUT", "the connection timed out"],
  ["UND_ERR_CONNECT_TIMEOUT", "it did not take the connection in time"],
  ["UND_ERR_SOCKET", "the connection was lost"],
  ["UND_ERR_DESTROYED", "its connections were closed"],
]);

/** The one line of an error that is fit for operators and clients: no stack, no addresses, bounded. */
export function reasonOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code;
  const known = typeof code === "string" ? connectionFaults.get(code) : undefined;
  if (known !== undefined) return known;
  const text = error instanceof Error ? error.message || String(code ?? error.name) : String(error);
  return text.slice(0, 500);
}
