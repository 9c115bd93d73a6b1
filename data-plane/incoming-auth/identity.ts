// Who calls. Everything here comes from what was verified, in one place.

export interface Identity {
  /** Who says so. */
  readonly issuer: string;
  readonly subject: string;
  /** Nobody was asked: all callers are one. */
  readonly isAnonymous: boolean;
  /** The client that the caller uses (`azp` or `client_id`). */
  readonly client?: string;
  /** The key that the token is bound to (`jkt` or `x5t#S256` of `cnf`, RFC 7800). */
  readonly confirmation?: string;
  /** SHA-256 of the token, base64url; only needed where sessions are bound to tokens. */
  readonly tokenDigest?: string;
}
