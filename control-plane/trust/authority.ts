// The certificate authority: made here and kept in a directory, or given as files. Control planes that share a store share it.
import "reflect-metadata";
import { createHash, createPrivateKey, type KeyObject, randomBytes, X509Certificate } from "node:crypto";
import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
  X509Certificate as X509Parsed,
} from "@peculiar/x509";
import { type SpiffeIdentity, spiffeId } from "../../common/spiffe.ts";
import { ControlPlaneError } from "../errors.ts";
import { TrustError } from "./errors.ts";

const dayMs = 24 * 60 * 60_000;
const ownValidMs = 10 * 365 * dayMs;

// Clocks of a fleet differ. Of a short life it is a part, because certificates are renewed by the half of theirs.
const skewMsMax = 5 * 60_000;

const requestBytesMax = 8 * 1024;

/** A directory that is its own, or the files of an authority that somebody else made. */
export type AuthorityPlace = { readonly directory: string } | { readonly certFile: string; readonly keyFile: string };

export interface Authority {
  readonly trustDomain: string;
  /** PEM: its own certificate first, then those above it or trusted besides. */
  readonly bundle: string;
  /** SHA-256 of its public key, as tokens carry it. */
  readonly pin: Buffer;
  /** The same of everything in the bundle. */
  readonly pins: readonly Buffer[];
  /** Whether this authority, or one that it trusts, has signed this. Says nothing of its dates. */
  hasSigned(certificate: X509Certificate): boolean;
  /** Throws TrustError `invalid` when the request is none, or its key is not P-256. */
  issue(request: Uint8Array, terms: IssueTerms): Promise<Issued>;
}

export interface IssueTerms {
  readonly identity: SpiffeIdentity;
  readonly usage: "client" | "server";
  readonly ttlMs: number;
}

export interface Issued {
  /** PEM. */
  readonly certificate: string;
  /** As Node.js writes serial numbers: hex, upper case. */
  readonly serial: string;
  readonly notAfterMs: number;
}

/** Throws ControlPlaneError `trust_unusable` that says which file is wrong, and how. */
export async function openAuthority(place: AuthorityPlace, trustDomain: string, nowMs: () => number): Promise<Authority> {
  const { certFile, keyFile } = "directory" in place ? await ownFiles(place.directory, trustDomain, nowMs) : place;
  const certificates = readCertificates(certFile);
  const [own] = certificates as [X509Certificate];
  const key = readKey(keyFile);
  if (!own.ca) throw unusable(`the first certificate in ${certFile} is not that of an authority`);
  if (!own.checkPrivateKey(key)) throw unusable(`${keyFile} is not the key of the first certificate in ${certFile}`);
  if (own.validToDate.getTime() <= nowMs()) throw unusable(`the certificate in ${certFile} ended at ${own.validTo}`);
  if (!certificates.some((one) => one.checkIssued(one))) throw unusable(`${certFile} has no root: put it below the issuer`);
  const issuer = new X509Parsed(own.raw);
  const algorithm = signingAlgorithm(key, keyFile);
  const pkcs8 = key.export({ type: "pkcs8", format: "der" });
  const signingKey = await crypto.subtle.importKey("pkcs8", Uint8Array.from(pkcs8), algorithm, false, ["sign"]);

  return {
    trustDomain,
    bundle: certificates.map((one) => one.toString()).join(""),
    pin: pinOf(own),
    pins: certificates.map(pinOf),
    hasSigned: (certificate) => certificates.some((one) => certificate.checkIssued(one) && certificate.verify(one.publicKey)),
    async issue(request, { identity, usage, ttlMs }) {
      const { publicKey } = await readRequest(request);
      const notAfter = new Date(Math.min(nowMs() + ttlMs, own.validToDate.getTime()));
      const made = await X509CertificateGenerator.create({
        subject: `CN=${identity.name.slice(0, 64)}`,
        issuer: issuer.subjectName,
        publicKey,
        signingKey,
        signingAlgorithm: algorithm,
        serialNumber: serialNumber(),
        notBefore: new Date(nowMs() - Math.min(skewMsMax, ttlMs / 10)),
        notAfter,
        extensions: [
          new BasicConstraintsExtension(false, undefined, true),
          new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
          new ExtendedKeyUsageExtension([usage === "server" ? ExtendedKeyUsage.serverAuth : ExtendedKeyUsage.clientAuth]),
          new SubjectAlternativeNameExtension([{ type: "url", value: spiffeId(identity) }]),
          await AuthorityKeyIdentifierExtension.create(issuer),
        ],
      });
      const certificate = `${made.toString("pem")}\n`;
      return { certificate, serial: new X509Certificate(certificate).serialNumber, notAfterMs: notAfter.getTime() };
    },
  };
}

function pinOf({ publicKey }: X509Certificate): Buffer {
  return createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest();
}

const ellipticCurve = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

/** Made at the first start. The key is linked into place last and never over another, so that of two that start at once one counts. */
async function ownFiles(directory: string, trustDomain: string, nowMs: () => number) {
  const [certFile, keyFile] = [join(directory, "ca.pem"), join(directory, "ca-key.pem")];
  const files = { certFile, keyFile };
  if (existsSync(keyFile)) return files;
  const made = join(directory, `.new-${process.pid}`);
  try {
    if (!existsSync(directory)) mkdirSync(directory, { mode: 0o700 });
    const { certificate, key } = await makeAuthority(trustDomain, nowMs());
    writeFileSync(made, key, { mode: 0o600 });
    writeFileSync(certFile, certificate, { flag: "wx" });
    linkSync(made, keyFile);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST")
      throw unusable(`can't make an authority in ${directory}: ${(error as Error).message}`);
  } finally {
    rmSync(made, { force: true });
  }
  return files;
}

async function makeAuthority(
  trustDomain: string,
  nowMs: number,
): Promise<{ readonly certificate: string; readonly key: string }> {
  const keys = await crypto.subtle.generateKey(ellipticCurve, true, ["sign", "verify"]);
  const made = await X509CertificateGenerator.createSelfSigned({
    name: `CN=vmcp ${trustDomain}`.slice(0, 64),
    keys,
    signingAlgorithm: ellipticCurve,
    serialNumber: serialNumber(),
    notBefore: new Date(nowMs - skewMsMax),
    notAfter: new Date(nowMs + ownValidMs),
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const key = PemConverter.encode(await crypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
  return { certificate: `${made.toString("pem")}\n`, key: `${key}\n` };
}

async function readRequest(bytes: Uint8Array): Promise<Pkcs10CertificateRequest> {
  if (bytes.byteLength > requestBytesMax) throw new TrustError("invalid", "the certificate request is too large");
  let request: Pkcs10CertificateRequest;
  try {
    request = new Pkcs10CertificateRequest(Uint8Array.from(bytes));
  } catch {
    throw new TrustError("invalid", "the certificate request is no PKCS #10 in DER");
  }
  const { name, namedCurve } = request.publicKey.algorithm as { name: string; namedCurve?: string };
  if (name !== "ECDSA" || namedCurve !== "P-256") throw new TrustError("invalid", "the certificate request wants a P-256 key");
  if (!(await request.verify())) throw new TrustError("invalid", "the certificate request is not signed with its own key");
  return request;
}

/** RFC 5280, section 4.1.2.2: positive. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] as number) & 0x3f) | 0x40;
  return bytes.toString("hex");
}

function signingAlgorithm(key: KeyObject, file: string) {
  const { namedCurve } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === "rsa") return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  if (namedCurve === "prime256v1") return ellipticCurve;
  if (namedCurve === "secp384r1") return { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" };
  throw unusable(`${file} is a ${namedCurve ?? key.asymmetricKeyType} key; wanted P-256, P-384 or RSA`);
}

function readCertificates(file: string): X509Certificate[] {
  const blocks = read(file).match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw unusable(`${file} has no certificate in PEM`);
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch {
    throw unusable(`${file} has a certificate that can't be read`);
  }
}

function readKey(file: string): KeyObject {
  const text = read(file);
  try {
    return createPrivateKey(text);
  } catch {
    throw unusable(`${file} has no private key in PEM that can be read without a passphrase`);
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw unusable(`can't read ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function unusable(message: string): ControlPlaneError {
  return new ControlPlaneError("trust_unusable", message);
}
