// Who is who between the planes: names in certificates, as the SPIFFE ID specification has them (one URI, in the subject alternative name).
import { checkServerIdentity, type PeerCertificate } from "node:tls";

export interface SpiffeIdentity {
  readonly kind: "proxy" | "operator" | "control-plane";
  readonly trustDomain: string;
  /** Of proxies only; empty for others. */
  readonly scope: string;
  readonly name: string;
}

/** One segment of a SPIFFE id, so also the names of enrolled proxies, operators and scopes. */
export const segmentPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$/;

export const trustDomainPattern = /^[a-z0-9][a-z0-9._-]{0,252}$/;

/** `spiffe://example.org/proxy/prod/edge-1`, `spiffe://example.org/operator/alice`. */
export function spiffeId({ kind, trustDomain, scope, name }: SpiffeIdentity): string {
  return `spiffe://${trustDomain}/${kind}/${kind === "proxy" ? `${scope}/` : ""}${name}`;
}

/** Undefined when it is none of ours. */
export function parseSpiffeId(text: string): SpiffeIdentity | undefined {
  const [scheme, empty, trustDomain = "", kind, ...path] = text.split("/");
  if (scheme !== "spiffe:" || empty !== "" || !trustDomainPattern.test(trustDomain)) return undefined;
  if (!path.every((segment) => segmentPattern.test(segment))) return undefined;
  const [first, second] = path;
  if (kind === "proxy" && first !== undefined && second !== undefined && path.length === 2)
    return { kind, trustDomain, scope: first, name: second };
  if ((kind === "operator" || kind === "control-plane") && first !== undefined && path.length === 1)
    return { kind, trustDomain, scope: "", name: first };
  return undefined;
}

/** Of a certificate, from its subject alternative names as Node.js writes them. Undefined when there is no such URI, or several. */
export function identityOf(subjectAltName: string | undefined): SpiffeIdentity | undefined {
  const uris = (subjectAltName ?? "").split(", ").filter((entry) => entry.startsWith("URI:"));
  return uris.length === 1 ? parseSpiffeId((uris[0] as string).slice("URI:".length)) : undefined;
}

/**
 * Accepts a control plane by its SPIFFE id, at whatever address it answers; other certificates by the name of the host. What the
 * certificate is worth, its authority says, which is checked before. `trustDomain` undefined: any.
 */
export function controlPlaneCheck(trustDomain: string | undefined) {
  return (host: string, certificate: PeerCertificate): Error | undefined => {
    const identity = identityOf(certificate.subjectaltname);
    if (identity === undefined) return checkServerIdentity(host, certificate);
    if (identity.kind === "control-plane" && (trustDomain === undefined || identity.trustDomain === trustDomain))
      return undefined;
    return new Error(`${host} is ${spiffeId(identity)}, and not a control plane${trustDomain ? ` of ${trustDomain}` : ""}`);
  };
}
