// What stands in front of the services: certificates, trust, the guard.
import { X509Certificate } from "node:crypto";
import { hostname } from "node:os";
import { type KeyPair, type KeyPairFiles, type KeyPairSource, watchKeyPair } from "../../common/key-pair.ts";
import type { Log } from "../../common/log.ts";
import { segmentPattern, trustDomainPattern } from "../../common/spiffe.ts";
import { ControlPlaneError } from "../errors.ts";
import type { Store } from "../store/store.ts";
import type { AuthorityPlace } from "../trust/authority.ts";
import type { BearerOptions } from "../trust/bearer.ts";
import { startTrust, type Trust } from "../trust/trust.ts";
import { createDenials } from "./denials.ts";
import { createGuard, type Guard } from "./guard.ts";
import type { Protection } from "./listen.ts";

export interface SecurityChoice {
  /** Who issues certificates. Default: nobody, so that there are none. */
  readonly authority?: AuthorityPlace | undefined;
  /** In SPIFFE ids. Default `vmcp.local`. */
  readonly trustDomain?: string | undefined;
  /** What clients are shown, of the same authority; read again when it is replaced. Default: certificates that it issues by itself. */
  readonly serverCertificate?: KeyPairFiles | undefined;
  /** How long certificates of proxies last. Default: 7 days. */
  readonly proxyCertificateTtlMs?: number | undefined;
  /** Default: no bearer tokens. */
  readonly oidc?: BearerOptions | undefined;
}

export interface Security extends Protection, AsyncDisposable {
  readonly trust: Trust;
  readonly guard: Guard;
}

export interface SecurityOptions {
  readonly security?: SecurityChoice | undefined;
  readonly log: Log;
}

/** Throws ControlPlaneError `trust_unusable`; StoreError when the store does not answer. */
export async function openSecurity(
  { security: choice = {}, log }: SecurityOptions,
  { store, nowMs }: { readonly store: Store; readonly nowMs: () => number },
): Promise<Security> {
  await using opened = new AsyncDisposableStack();
  const { authority: place, trustDomain = "vmcp.local", serverCertificate, oidc, proxyCertificateTtlMs } = choice;
  if (!trustDomainPattern.test(trustDomain)) throw unusable(`"${trustDomain}" is no trust domain; wanted a lower case DNS name`);
  if (serverCertificate && !place)
    throw unusable("a server certificate needs an authority for those who call: --trust-dir, or --ca-cert and --ca-key");
  // X.509 and JWTs are loaded only by those who have them.
  const authority = place && (await (await import("../trust/authority.ts")).openAuthority(place, trustDomain, nowMs));
  const trust = opened.use(await startTrust({ store, authority, proxyCertificateTtlMs, log, nowMs }));
  const bearer = oidc && (await import("../trust/bearer.ts")).createBearer(oidc);
  const guard = opened.use(createGuard({ trust, bearer, denials: createDenials({ store, log, nowMs }), log, nowMs }));
  const keyPair = authority && opened.use(await serverKeyPair(serverCertificate, authority, log));
  const owned = opened.move();
  return {
    ...{ trust, guard, tls: authority && keyPair && { keyPair, authority: authority.bundle } },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function serverKeyPair(
  files: KeyPairFiles | undefined,
  authority: NonNullable<Trust["authority"]>,
  log: Log,
): Promise<KeyPairSource> {
  if (files === undefined) {
    const { issueServerCertificates } = await import("../trust/server-certificate.ts");
    const name = segmentPattern.test(hostname()) ? hostname() : "control-plane";
    return issueServerCertificates(authority, name, log);
  }
  let source: KeyPairSource;
  try {
    source = watchKeyPair(files, log);
  } catch (error) {
    throw unusable((error as Error).message);
  }
  if (!authority.hasSigned(new X509Certificate(source.current().certificate))) {
    source[Symbol.dispose]();
    throw unusable(`the certificate in ${files.certFile} is not of the authority that proxies trust`);
  }
  // Proxies that enrol look for the authority in what they are shown.
  const withAuthority = ({ certificate, key }: KeyPair) => ({ certificate: certificate + authority.bundle, key });
  return { ...source, current: () => withAuthority(source.current()) };
}

function unusable(message: string): ControlPlaneError {
  return new ControlPlaneError("trust_unusable", message);
}
