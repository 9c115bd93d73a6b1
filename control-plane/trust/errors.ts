// Why somebody does not get a token, a certificate or a role.

/** `unproven`: who it is was not shown. `denied`: it was, and is not enough. `no_authority`: this control plane makes no certificates. */
export type TrustErrorCode = "invalid" | "unproven" | "denied" | "not_found" | "exists" | "full" | "no_authority";

/** The message is for whoever called, and holds no secret. */
export class TrustError extends Error {
  override readonly name = "TrustError";
  readonly code: TrustErrorCode;

  constructor(code: TrustErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
