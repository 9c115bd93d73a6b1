// Who calls.

export interface Identity {
  readonly issuer: string;
  readonly subject: string;
}
