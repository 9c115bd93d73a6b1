// Certificates of proxies and operators: issued, remembered, revoked.
import { verify, X509Certificate } from "node:crypto";
import { z } from "zod";
import { identityOf, parseSpiffeId, type SpiffeIdentity, segmentPattern, spiffeId } from "../../common/spiffe.ts";
import { type Attempt, type RecordChange, type Records, StoreError } from "../store/store.ts";
import type { Authority } from "./authority.ts";
import { TrustError } from "./errors.ts";
import { createShelf, type Kept } from "./shelf.ts";
import { noAuthority, type Tokens } from "./tokens.ts";

const dayMs = 24 * 60 * 60_000;
const proxyTtlMsDefault = 7 * dayMs;
const operatorTtlMs = { usual: 30 * dayMs, most: 366 * dayMs };

// So long after its end a certificate still proves, with its key and a token, whose it was. After that the name is free.
const graceMs = 30 * dayMs;

// Twice the proxies that one control plane takes, with five renewals each.
const certificatesMax = 20_000;

// Each attempt loses only to another control plane that got on; here they are made in turn. More than so many waiting come again.
const attemptsMax = 5;
const waitingMax = 500;

const certificateSchema = z.object({
  identity: z.string(),
  name: z.string(),
  issuedMs: z.number(),
  expiresMs: z.number(),
  revokedMs: z.number().optional(),
});

export type StoredCertificate = z.infer<typeof certificateSchema>;
export type CertificateRow = StoredCertificate & { readonly serial: string };

const denialSchema = z.object({ expiresMs: z.number() });

export interface EnrolAttempt {
  readonly name: string;
  readonly request: Uint8Array;
  /** Empty: none was shown. */
  readonly token: string;
  /** DER, of a renewal that is late; empty: none. */
  readonly endedCertificate: Uint8Array;
  /** `request`, signed with the key of that certificate. */
  readonly proof: Uint8Array;
}

/** The certificate of a proxy, on the connection. */
export interface ShownCertificate {
  readonly identity: SpiffeIdentity;
  readonly serial: string;
}

export interface Certificates {
  /** Of a proxy, PEM. `shown` undefined: it has none. */
  enrol(attempt: EnrolAttempt, shown: ShownCertificate | undefined, by: Attempt): Promise<string>;
  /** Of an operator, PEM. `ttlMs` undefined: 30 days. */
  issueOperator(name: string, request: Uint8Array, ttlMs: number | undefined, by: Attempt): Promise<IssuedOperator>;
  /** By identity, newest first. */
  list(): Promise<CertificateRow[]>;
  /** All of a proxy's name or of a SPIFFE id that are good for anything. */
  revoke(name: string, by: Attempt): Promise<CertificateRow[]>;
  /** Serial numbers that are refused. */
  denied(): Promise<ReadonlySet<string>>;
}

export interface IssuedOperator {
  readonly certificate: string;
  readonly identity: string;
}

export interface CertificatesOptions {
  readonly records: Records;
  readonly authority: Authority | undefined;
  readonly tokens: Tokens;
  /** Default: 7 days. */
  readonly proxyTtlMs?: number | undefined;
  readonly nowMs: () => number;
}

/** What they throw is TrustError or StoreError; nothing has changed then. */
export function createCertificates({ records, authority, tokens, nowMs, ...options }: CertificatesOptions): Certificates {
  const { proxyTtlMs = proxyTtlMsDefault } = options;
  const shelf = createShelf(records, "certificates", certificateSchema);
  const inTurn = createTurns();
  const denials = createShelf(records, "deniedCertificates", denialSchema);

  async function enrol(attempt: EnrolAttempt, shown: ShownCertificate | undefined, by: Attempt): Promise<string> {
    if (authority === undefined) throw noAuthority();
    if (attempt.token === "" && !shown) throw new TrustError("unproven", "show an enrolment token, or the certificate to renew");
    if (!segmentPattern.test(attempt.name)) throw notAName(attempt.name);
    const stored = await shelf.list();
    const { scope, changes } =
      shown && attempt.token === ""
        ? renewal(attempt, shown, stored)
        : await admission(attempt, stored, { authority, tokens, nowMs: nowMs() });
    const identity = { kind: "proxy", trustDomain: authority.trustDomain, scope, name: attempt.name } as const;
    return issue(identity, { request: attempt.request, ttlMs: proxyTtlMs, stored, changes, by });
  }

  async function issue(identity: SpiffeIdentity, { request, ttlMs, stored, changes, by }: Issuing): Promise<string> {
    if (authority === undefined) throw noAuthority();
    const past = stored.filter(({ value }) => value.expiresMs + graceMs < nowMs());
    if (stored.length - past.length >= certificatesMax) throw new TrustError("full", `${certificatesMax} certificates are valid`);
    const { certificate, serial, notAfterMs } = await authority.issue(request, { identity, ttlMs, usage: "client" });
    const value = { identity: spiffeId(identity), name: identity.name, issuedMs: nowMs(), expiresMs: notAfterMs };
    const ended = past.flatMap(({ id }) => [shelf.remove(id), denials.remove(id)]);
    await records.change([shelf.add(serial, value), ...changes, ...ended], by);
    return certificate;
  }

  async function revoke(name: string, by: Attempt): Promise<CertificateRow[]> {
    const isMeant = parseSpiffeId(name)
      ? ({ identity }: StoredCertificate) => identity === name
      : ({ identity, name: its }: StoredCertificate) => its === name && parseSpiffeId(identity)?.kind === "proxy";
    // Those that have ended too: with a token their keys would still prove whose they were.
    const held = (await shelf.list()).filter(({ value }) => isMeant(value) && isLive(value, nowMs() - graceMs));
    if (held.length === 0) throw new TrustError("not_found", `"${name}" has no certificate to revoke`);
    const revoked = held.map((kept) => ({ kept, value: { ...kept.value, revokedMs: nowMs() } }));
    await records.change(
      revoked.flatMap(({ kept, value }) => [shelf.replace(kept, value), denials.add(kept.id, { expiresMs: value.expiresMs })]),
      by,
    );
    return revoked.map(({ kept, value }) => ({ serial: kept.id, ...value }));
  }

  return {
    enrol: (attempt, shown, by) => inTurn(() => enrol(attempt, shown, by)),
    issueOperator: (name, request, ttlMs = operatorTtlMs.usual, by) =>
      inTurn(async () => {
        if (authority === undefined) throw noAuthority();
        if (!segmentPattern.test(name)) throw notAName(name);
        if (ttlMs < 60_000 || ttlMs > operatorTtlMs.most)
          throw new TrustError("invalid", "an operator's certificate lasts 1 minute to 1 year");
        const identity = { kind: "operator", trustDomain: authority.trustDomain, scope: "", name } as const;
        const certificate = await issue(identity, { request, ttlMs, stored: await shelf.list(), changes: [], by });
        return { certificate, identity: spiffeId(identity) };
      }),
    async list() {
      const rows = (await shelf.list()).map(({ id, value }) => ({ serial: id, ...value }));
      return rows.sort((a, b) => (a.identity === b.identity ? b.issuedMs - a.issuedMs : a.identity < b.identity ? -1 : 1));
    },
    revoke: (name, by) => inTurn(() => revoke(name, by)),
    denied: async () => new Set((await denials.list()).map(({ id }) => id)),
  };

  /** One that is valid, by itself. It is touched, so that it can't be revoked in the same moment. */
  function renewal({ name }: EnrolAttempt, { identity, serial }: ShownCertificate, stored: readonly Kept<StoredCertificate>[]) {
    if (identity.name !== name) throw new TrustError("denied", `${spiffeId(identity)} can't renew the certificate of "${name}"`);
    const present = stored.find(({ id }) => id === serial);
    if (present?.value.revokedMs !== undefined) throw new TrustError("unproven", "the certificate has been revoked");
    return { scope: identity.scope, changes: present ? [shelf.replace(present, present.value)] : [] };
  }
}

interface Issuing {
  readonly request: Uint8Array;
  readonly ttlMs: number;
  readonly stored: readonly Kept<StoredCertificate>[];
  /** What has to hold and to happen with it. */
  readonly changes: readonly RecordChange[];
  readonly by: Attempt;
}

/** By a token. A name that has a certificate is somebody: a token alone does not make somebody else of it. */
async function admission(
  attempt: EnrolAttempt,
  stored: readonly Kept<StoredCertificate>[],
  { authority, tokens, nowMs }: { readonly authority: Authority; readonly tokens: Tokens; readonly nowMs: number },
) {
  const { name, token } = attempt;
  const { scope, createdMs, change } = await tokens.spend(token, name);
  const before = stored.filter(({ value }) => value.name === name && parseSpiffeId(value.identity)?.kind === "proxy");
  const revokedMs = Math.max(0, ...before.map(({ value }) => value.revokedMs ?? 0));
  if (createdMs <= revokedMs) throw new TrustError("denied", `"${name}" was revoked after this token was made; ask for another`);
  const held = before.filter(({ value }) => isLive(value, nowMs - graceMs));
  if (held.length > 0 && !held.some(({ id }) => isProven(attempt, id, authority)))
    throw new TrustError(
      "denied",
      `"${name}" has a certificate already: prove to have its key, or revoke it (vmcpctl proxy revoke ${name}) and make another token`,
    );
  return { scope, changes: [change] };
}

/** Whether the request is signed with the key of the certificate that was issued with this serial number. */
function isProven({ name, request, endedCertificate, proof }: EnrolAttempt, serial: string, authority: Authority): boolean {
  try {
    const certificate = new X509Certificate(endedCertificate);
    const isIt = certificate.serialNumber === serial && identityOf(certificate.subjectAltName)?.name === name;
    return isIt && authority.hasSigned(certificate) && verify("sha256", request, certificate.publicKey, proof);
  } catch {
    return false;
  }
}

function isLive({ expiresMs, revokedMs }: StoredCertificate, nowMs: number): boolean {
  return revokedMs === undefined && expiresMs > nowMs;
}

function notAName(name: string): TrustError {
  const shown = JSON.stringify(name.slice(0, 100));
  return new TrustError("invalid", `${shown} is no name for a certificate; wanted letters, digits, ".", "_", "-", at most 253`);
}

function createTurns() {
  let waiting = 0;
  let last: Promise<unknown> = Promise.resolve();
  return async <T>(work: () => Promise<T>): Promise<T> => {
    if (waiting >= waitingMax) throw new TrustError("full", "too many enrol at once; try again");
    waiting += 1;
    const turn = last
      .then(() => again(work))
      .finally(() => {
        waiting -= 1;
      });
    last = turn.catch(() => undefined);
    return turn;
  };
}

async function again<T>(work: () => Promise<T>): Promise<T> {
  for (let attempts = 1; ; attempts++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== "conflict" || attempts === attemptsMax) throw error;
    }
  }
}
