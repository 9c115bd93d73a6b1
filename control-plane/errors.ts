// What the control plane refuses to do, for the process that started it. The admin API has its own mapping in admin/errors.ts.

/** Closed set, so that a caller can choose an exit code. */
export type ControlPlaneErrorCode =
  | "address_in_use"
  | "address_invalid"
  | "address_not_loopback"
  | "store_unusable"
  | "trust_unusable"
  | "invalid_resources";

/** `message` is one line for the operator; `details` further lines; `cause` is for the log. */
export class ControlPlaneError extends Error {
  override readonly name = "ControlPlaneError";
  readonly code: ControlPlaneErrorCode;
  readonly details: readonly string[];

  constructor(
    code: ControlPlaneErrorCode,
    message: string,
    options: ErrorOptions & { readonly details?: readonly string[] } = {},
  ) {
    super(message, options);
    this.code = code;
    this.details = options.details ?? [];
  }
}
