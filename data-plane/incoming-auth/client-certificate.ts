// The certificate of a caller whose TLS ends at a proxy in front of us (RFC 9440), for tokens that are bound to one (RFC 8705).
import { createHash, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import type { Presented } from "./authenticator.ts";
import type { CertificateSettings } from "./oidc-settings.ts";
import { badToken, type Refused } from "./refusals.ts";

/** Undefined when the caller has shown the certificate with this SHA-256 (base64url). */
export function checkCertificate(
  { headers, remoteAddress }: Presented,
  { certificates, thumbprint }: { readonly certificates: CertificateSettings | undefined; readonly thumbprint: string },
): Refused | undefined {
  if (!certificates || !isFrom(certificates, remoteAddress)) return unseen;
  const der = readByteSequence(headers[certificates.header]);
  if (!der) return unseen;
  const seen = createHash("sha256").update(der).digest();
  const wanted = Buffer.from(thumbprint, "base64url");
  return wanted.length === seen.length && timingSafeEqual(wanted, seen) ? undefined : other;
}

const unseen = badToken("the token is bound to a certificate, and none came with the request in a way that counts here");
const other = badToken("the token is bound to another certificate");

function isFrom({ from }: CertificateSettings, address: string | undefined): boolean {
  const family = isIP(address ?? "");
  return family !== 0 && from.check(address as string, family === 4 ? "ipv4" : "ipv6");
}

/** RFC 9651 section 3.3.5. Two headers that were joined have a comma, and are none. */
function readByteSequence(value: string | readonly string[] | undefined): Buffer | undefined {
  if (typeof value !== "string") return undefined;
  const [, text] = /^ *:([A-Za-z0-9+/]+={0,2}): *$/.exec(value) ?? [];
  if (text === undefined) return undefined;
  const bytes = Buffer.from(text, "base64");
  return bytes.length > 0 ? bytes : undefined;
}
