// The text that a proxy enrols with, `vmcpt.<id>.<secret>`. Behind the secret comes the pin of the authority, so that who has a token
// knows whom to show it to.
const prefix = "vmcpt";
const secretBytes = 24;
const pinBytes = 32;

export interface EnrolmentTokenParts {
  /** Public: it names the token. */
  readonly id: string;
  readonly secret: Buffer;
  /** SHA-256 of the authority's public key (SubjectPublicKeyInfo, DER), as in RFC 7469. */
  readonly pin: Buffer;
}

export function formatToken({ id, secret, pin }: EnrolmentTokenParts): string {
  return [prefix, id, Buffer.concat([secret, pin]).toString("base64url")].join(".");
}

/** Undefined when it is no such text. */
export function parseToken(text: string): EnrolmentTokenParts | undefined {
  const [first, id, rest, ...more] = text.trim().split(".");
  if (first !== prefix || id === undefined || !/^[a-z0-9]{8,32}$/.test(id) || rest === undefined || more.length > 0)
    return undefined;
  const bytes = Buffer.from(rest, "base64url");
  if (bytes.length !== secretBytes + pinBytes || bytes.toString("base64url") !== rest) return undefined;
  return { id, secret: bytes.subarray(0, secretBytes), pin: bytes.subarray(secretBytes) };
}

/** For makers of tokens. */
export const tokenSecretBytes = secretBytes;
