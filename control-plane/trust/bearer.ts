// Bearer tokens of people: JWTs of one OpenID provider, made out to this control plane.
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify } from "jose";
import { ControlPlaneError } from "../errors.ts";
import { TrustError } from "./errors.ts";

const askMs = 5_000;
const skewSeconds = 30;
const groupsMax = 200;

// Asymmetric ones: whoever can verify must not be able to sign.
const algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"];

export interface BearerOptions {
  /** As in the `iss` claim; its metadata is below it (OpenID Connect Discovery 1.0, section 4). */
  readonly issuer: string;
  /** One of the `aud` claim. */
  readonly audience: string;
}

export interface Bearer {
  /** Throws TrustError `unproven`; the message does not repeat the token. */
  verify(token: string): Promise<{ readonly subject: string; readonly groups: readonly string[]; readonly expiresMs: number }>;
}

/** Asks the provider when the first token comes. Throws ControlPlaneError when the issuer is no https address, nor one of this machine. */
export function createBearer({ issuer, audience }: BearerOptions): Bearer {
  if (!isSecure(issuer)) throw new ControlPlaneError("trust_unusable", `the OIDC issuer "${issuer}" is no https address`);
  let keys: Promise<ReturnType<typeof createRemoteJWKSet>> | undefined;

  async function find(): Promise<ReturnType<typeof createRemoteJWKSet>> {
    const response = await fetch(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`, {
      redirect: "error",
      signal: AbortSignal.timeout(askMs),
    });
    const { issuer: said, jwks_uri: address } = (await response.json()) as { issuer?: unknown; jwks_uri?: unknown };
    if (said !== issuer || typeof address !== "string" || !isSecure(address))
      throw new Error("its metadata is not of this issuer");
    return createRemoteJWKSet(new URL(address), { timeoutDuration: askMs });
  }

  return {
    async verify(token) {
      keys ??= find();
      const found = await keys.catch((error: Error) => {
        keys = undefined;
        throw new TrustError("unproven", `the OIDC issuer can't be asked: ${error.message}`);
      });
      try {
        const checks = { issuer, audience, algorithms, clockTolerance: skewSeconds, requiredClaims: ["sub", "exp"] };
        const { payload } = await jwtVerify(token, found, checks);
        return { subject: String(payload.sub), groups: groupsOf(payload), expiresMs: (Number(payload.exp) + skewSeconds) * 1000 };
      } catch (error) {
        const reason = error instanceof errors.JOSEError ? error.message : "its keys can't be had";
        throw new TrustError("unproven", `the bearer token is not valid: ${reason}`);
      }
    },
  };
}

function groupsOf({ groups }: JWTPayload): string[] {
  return Array.isArray(groups) ? groups.filter((one) => typeof one === "string").slice(0, groupsMax) : [];
}

function isSecure(address: string): boolean {
  const url = URL.parse(address);
  const isLocal = url !== null && /^(127\.\d+\.\d+\.\d+|localhost|\[::1\])$/.test(url.hostname);
  return url?.protocol === "https:" || (url?.protocol === "http:" && isLocal);
}
