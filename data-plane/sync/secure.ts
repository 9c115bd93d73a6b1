// What a proxy shows a control plane, and what it wants to see: a certificate of the authority, for a control plane.
import { createHash, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { connect, type DetailedPeerCertificate } from "node:tls";
import { controlPlaneCheck } from "../../common/spiffe.ts";
import type { Tls } from "../../proto/grpc.ts";
import type { Identity } from "./identity.ts";

const connectMs = 10_000;

// Longer than any chain that makes sense.
const chainMax = 10;

export function tlsOf({ key, certificate, authority, id }: Identity): Tls {
  return { key, certificate, authority, checkServer: controlPlaneCheck(id.trustDomain) };
}

/** Before there is a certificate: only the authority is known. */
export function tlsOfStranger(authority: string): Tls {
  return { authority, checkServer: controlPlaneCheck(undefined) };
}

/**
 * The authority's certificate with this public key (its SHA-256), among those that the server at an address shows; PEM. Nothing else
 * of what is shown is believed: connections that follow trust this certificate, and check the server's with it.
 */
export async function findAuthority(address: string, pin: Buffer): Promise<string> {
  const [, host = "", port = ""] = /^(.*):(\d+)$/.exec(address) ?? [];
  const name = host.replace(/^\[(.*)\]$/, "$1");
  const socket = connect({
    ...{ host: name, port: Number(port), ALPNProtocols: ["h2"], rejectUnauthorized: false },
    ...(isIP(name) === 0 && { servername: name }),
  });
  try {
    socket.setTimeout(connectMs, () => socket.destroy(new Error("it does not answer")));
    await new Promise((resolve, reject) => void socket.once("secureConnect", resolve).once("error", reject));
    const found = chainOf(socket.getPeerCertificate(true)).find((one) => pinOf(one).equals(pin));
    if (found === undefined) throw new Error("it is not of the authority that the enrolment token is for");
    return found.toString();
  } finally {
    socket.on("error", () => undefined).destroy();
  }
}

function chainOf(first: DetailedPeerCertificate): X509Certificate[] {
  const chain: X509Certificate[] = [];
  for (let at = first, length = 0; at?.raw !== undefined && length < chainMax; length++) {
    chain.push(new X509Certificate(at.raw));
    if (at.issuerCertificate === at) break;
    at = at.issuerCertificate;
  }
  return chain;
}

function pinOf({ publicKey }: X509Certificate): Buffer {
  return createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest();
}
