// Why a call to a backend has no answer.

export type BackendErrorCode =
  /** It could not be reached, or the connection broke. */
  | "unavailable"
  /** No answer within the deadline. */
  | "timeout"
  /** It does not know the session (any more), so the call did not run. */
  | "session_gone"
  /** It answered with something that is not MCP. */
  | "bad_answer"
  /** It refused the request itself (HTTP 4xx); that says nothing about its health. */
  | "refused"
  /** It wants other credentials than we showed, or we have none to show. */
  | "unauthorized"
  /** The breaker is open or too many calls are in flight, so we did not ask. */
  | "shed";

/** `outcome` says whether the call may have run: honest about what we do not know. */
export class BackendError extends Error {
  override name = "BackendError";
  readonly code: BackendErrorCode;
  readonly outcome: "not_executed" | "unknown";

  constructor(code: BackendErrorCode, outcome: "not_executed" | "unknown", message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
    this.outcome = outcome;
  }
}

/** The one line of an error that is fit for operators: no stack, no addresses of memory, bounded. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message || (error as { code?: string }).code || error.name : String(error);
  return text.slice(0, 500);
}
