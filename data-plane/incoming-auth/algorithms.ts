// Signature algorithms, and which keys are for which. Asymmetric ones only: with another, who can verify can also sign.
import type { JWK } from "jose";

interface Kind {
  readonly kty: string;
  readonly crv?: string;
}

const rsa: Kind = { kty: "RSA" };
const ed25519: Kind = { kty: "OKP", crv: "Ed25519" };

const kinds = new Map<string, Kind>([
  ...["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map((name) => [name, rsa] as const),
  ["ES256", { kty: "EC", crv: "P-256" }],
  ["ES384", { kty: "EC", crv: "P-384" }],
  ["ES512", { kty: "EC", crv: "P-521" }],
  ["EdDSA", ed25519],
  ["Ed25519", ed25519], // RFC 9864: the same, by its full name
]);

export const knownAlgorithms: readonly string[] = [...kinds.keys()];

export const defaultAlgorithms: readonly string[] = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];

/** Whether a key is of the kind that an algorithm needs, and may be used for it. */
export function fits(jwk: JWK, algorithm: string): boolean {
  const kind = kinds.get(algorithm);
  if (!kind || jwk.kty !== kind.kty || jwk.crv !== kind.crv) return false;
  if (jwk.use !== undefined && jwk.use !== "sig") return false;
  if (jwk.key_ops !== undefined && !(Array.isArray(jwk.key_ops) && jwk.key_ops.includes("verify"))) return false;
  return jwk.alg === undefined || jwk.alg === algorithm;
}

// RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1, RFC 8037 section 2.
const privateMembers = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
const rsaBitsMin = 2_048; // RFC 7518 section 3.3
const rsaBitsMax = 8_192; // verifying takes time with the square of it
const exponentBytesMax = 4;

/**
 * What makes up a public key, and nothing else of it; undefined when it is none, shows private parts, or is an RSA key too
 * small to trust or too large to verify with.
 */
export function publicKeyOf(jwk: Readonly<Record<string, unknown>>): JWK | undefined {
  const { kty, crv, n, e, x, y } = jwk;
  if (privateMembers.some((name) => jwk[name] !== undefined)) return undefined;
  if (kty === "RSA") {
    const bits = bytesOf(n) * 8;
    // A modulus may begin with a zero byte that should not be there.
    if (bits < rsaBitsMin || bits > rsaBitsMax + 8 || bytesOf(e) === 0 || bytesOf(e) > exponentBytesMax) return undefined;
    return { kty, n, e } as JWK;
  }
  if (typeof crv !== "string" || typeof x !== "string") return undefined;
  if (kty === "EC") return typeof y === "string" ? { kty, crv, x, y } : undefined;
  return kty === "OKP" ? { kty, crv, x } : undefined;
}

function bytesOf(value: unknown): number {
  return typeof value === "string" ? Buffer.from(value, "base64url").length : 0;
}
