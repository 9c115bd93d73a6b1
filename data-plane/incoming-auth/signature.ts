// Signatures, by a key that we chose. What a header says about keys is not followed.
import { compactVerify, errors, importJWK, type JWK } from "jose";

/** Undefined when it is no key after all: a point that is not on its curve, say. */
export async function importKey(jwk: JWK, algorithm: string): Promise<CryptoKey | undefined> {
  try {
    return (await importJWK(jwk, algorithm)) as CryptoKey;
  } catch {
    return undefined;
  }
}

/** `token` has been read strictly (compact-jws.ts), so what is verified is what was read. */
export async function isSigned(token: string, key: CryptoKey, algorithm: string): Promise<boolean> {
  try {
    await compactVerify(token, key, { algorithms: [algorithm] });
    return true;
  } catch (error) {
    if (error instanceof errors.JOSEError) return false;
    throw error;
  }
}
