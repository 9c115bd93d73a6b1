// A caller who was let in: who, with what, allowed what.
import type { Secret } from "../secrets.ts";
import type { Identity } from "./identity.ts";

export interface Caller {
  readonly identity: Identity;
  /** What was shown for it; undefined where nobody is asked to show anything. */
  readonly token: CallerToken | undefined;
  /** What the token is good for. */
  readonly scopes: ReadonlySet<string>;
}

/** A verified token. It is for us, and never goes to a backend; an exchange may be made with it. */
export interface CallerToken {
  readonly secret: Secret;
  /** SHA-256 of the token, base64url. */
  readonly digest: string;
  /** Milliseconds since 1970. */
  readonly expiresAtMs: number;
}
