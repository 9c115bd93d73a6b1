// The refusals that several files come to.
import type { Refusal } from "./authenticator.ts";

export interface Refused {
  readonly refusal: Refusal;
}

/** The request is not one that shows a credential as it should (RFC 6750 section 3.1). */
export function badRequest(description: string): Refused {
  return { refusal: { status: 400, error: "invalid_request", description } };
}

export function badToken(description: string): Refused {
  return { refusal: { status: 401, error: "invalid_token", description } };
}

/** RFC 9449 section 7.1. */
export function badProof(description: string): Refused {
  return { refusal: { status: 401, error: "invalid_dpop_proof", description } };
}

/** Whether the token is good can't be told. */
export function cannotTell(description: string): Refused {
  return { refusal: { status: 503, description } };
}
