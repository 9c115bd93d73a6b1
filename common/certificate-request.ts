// A key of one's own, and the request for a certificate of it (PKCS #10). Loaded by those who ask for one.
import "reflect-metadata";
import { PemConverter, Pkcs10CertificateRequestGenerator } from "@peculiar/x509";

export interface CertificateRequest {
  /** PKCS #8, PEM. */
  readonly key: string;
  /** DER; signed with the key, which so is proven to be there. */
  readonly request: Uint8Array;
}

/** P-256. What the certificate will say decides who issues it. */
export async function requestCertificate(): Promise<CertificateRequest> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const request = await Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: algorithm });
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return { key: `${PemConverter.encode(pkcs8, "PRIVATE KEY")}\n`, request: new Uint8Array(request.rawData) };
}
