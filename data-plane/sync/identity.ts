// Who this proxy is, on its disk: key, certificate and the authority's certificates in one file, so that they always belong together.
import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdir, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { identityOf, type SpiffeIdentity } from "../../common/spiffe.ts";

export interface Identity {
  readonly id: SpiffeIdentity;
  /** All in PEM. */
  readonly key: string;
  readonly certificate: string;
  readonly authority: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** The message is for the operator. */
export class IdentityError extends Error {
  override readonly name = "IdentityError";
}

const fileName = "identity.pem";

/** Undefined when there is none. Throws IdentityError when it can't be used. */
export async function loadIdentity(directory: string): Promise<Identity | undefined> {
  const path = join(directory, fileName);
  try {
    const text = await readFile(path, "utf8");
    const [certificate = "", ...authority] = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/g) ?? [];
    const [key = ""] = text.match(/-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n?/) ?? [];
    return readIdentity({ key, certificate, authority: authority.join("") });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new IdentityError(`${path} can't be used: ${(error as Error).message}; move it away to enrol anew`);
  }
}

/** Throws an Error that says what does not fit. */
export function readIdentity(parts: Pick<Identity, "key" | "certificate" | "authority">): Identity {
  const certificate = new X509Certificate(parts.certificate);
  if (!certificate.checkPrivateKey(createPrivateKey(parts.key))) throw new Error("key and certificate are not of one pair");
  if (parts.authority === "") throw new Error("it has no certificate of the authority");
  const id = identityOf(certificate.subjectAltName);
  if (id?.kind !== "proxy") throw new Error("the certificate is not that of a proxy");
  const [notBeforeMs, notAfterMs] = [certificate.validFromDate.getTime(), certificate.validToDate.getTime()];
  return { id, ...parts, notBeforeMs, notAfterMs };
}

/** Written aside, synced and renamed: what is there is whole. */
export async function saveIdentity(directory: string, { key, certificate, authority }: Identity): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, fileName);
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.chmod(0o600); // one that was left there may have had other rights
    await file.writeFile(key + certificate + authority);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}
