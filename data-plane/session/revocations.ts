// Which sessions the operator has revoked.
import type { Epoch } from "./record.ts";

/** One of `session`, `subject` and `all` says which sessions. */
export interface Revocation {
  /** Sessions that were opened at a lower revision are over. */
  readonly epoch: number;
  /** Key of one session. */
  readonly session?: string;
  /** With `subject`; undefined: of any issuer. */
  readonly issuer?: string;
  readonly subject?: string;
  readonly all: boolean;
  /** With `all`; undefined: of any virtual server. */
  readonly virtualServer?: string;
}

/** What revocations look at. */
export interface Revocable {
  readonly key: string;
  readonly virtualServer: string;
  readonly issuer: string;
  readonly subject: string;
  readonly epoch: Epoch;
}

/** Whether a session is over. One that was opened under another store can't be compared, and any revocation that names it ends it. */
export function isRevoked(
  session: Revocable,
  terms: { readonly storeUid: string; readonly revocations: readonly Revocation[] },
): boolean {
  const since = session.epoch.storeUid === terms.storeUid ? session.epoch.revision : -1;
  return terms.revocations.some((revocation) => revocation.epoch > since && isNamed(session, revocation));
}

function isNamed({ key, virtualServer, issuer, subject }: Revocable, named: Revocation): boolean {
  if (named.session !== undefined) return named.session === key;
  if (named.subject !== undefined) return named.subject === subject && (named.issuer ?? issuer) === issuer;
  return named.all && (named.virtualServer ?? virtualServer) === virtualServer;
}
