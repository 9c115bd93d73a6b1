// Proofs that a caller has the key that its token is bound to (RFC 9449 section 4.3). One for each request.
import { createHash } from "node:crypto";
import { calculateJwkThumbprint } from "jose";
import { defaultAlgorithms, fits, publicKeyOf } from "./algorithms.ts";
import type { Presented } from "./authenticator.ts";
import type { Clock } from "./clock.ts";
import { isObject, type Members, readCompactJws } from "./compact-jws.ts";
import { badProof, cannotTell, type Refused } from "./refusals.ts";
import { createReplays } from "./replays.ts";
import { importKey, isSigned } from "./signature.ts";

export const dpopAlgorithms: readonly string[] = defaultAlgorithms;

export interface Bound {
  readonly token: string;
  /** Thumbprint of the key that the token is bound to. */
  readonly jkt: string;
  readonly clockSkewMs: number;
}

export interface Dpop {
  /** Undefined when the request proves it. Rejects only when something is wrong with us. */
  check(presented: Presented, bound: Bound): Promise<Refused | undefined>;
}

const proofAgeMs = 60_000;
const proofsMax = 100_000;
const proofLengthMax = 8 * 1024;

/** `clockSkewMaxMs`: the largest that a token's issuer is granted. */
export function createDpop({ clock, clockSkewMaxMs }: { readonly clock: Clock; readonly clockSkewMaxMs: number }): Dpop {
  // From a skew before its `iat` to its age and a skew after it.
  const replays = createReplays({ windowMs: proofAgeMs + 2 * clockSkewMaxMs, idsMax: proofsMax, clock });
  return {
    async check({ headers, method, url }, { token, jkt, clockSkewMs }) {
      // Node joins headers of one name with a comma, which no proof has in it.
      const proof = headers.dpop;
      if (typeof proof !== "string") return badProof("the token is bound to a key, and the request has no DPoP proof");
      if (proof.length > proofLengthMax) return badProof(`the proof is longer than ${proofLengthMax} characters`);
      const jws = readCompactJws(proof);
      if ("problem" in jws) return badProof(`the proof ${jws.problem}`);
      const { header, claims } = jws;
      if (header.typ?.toLowerCase() !== "dpop+jwt") return badProof("the proof is not of type dpop+jwt");
      if (!dpopAlgorithms.includes(header.alg)) return badProof("the proof is signed in a way that is not accepted here");
      const problem = claimProblem(claims, { method, url, token, clockSkewMs, nowMs: clock.nowMs() });
      if (problem) return badProof(`the proof ${problem}`);
      // The thumbprint first: else anybody could have us verify with a key that takes long.
      const key = isObject(header.jwk) ? publicKeyOf(header.jwk) : undefined;
      if (!key || !fits(key, header.alg)) return badProof("the proof has no public key that goes with its algorithm");
      if ((await calculateJwkThumbprint(key)) !== jkt) return badProof("the proof is made with another key than the token's");
      const imported = await importKey(key, header.alg);
      if (!imported || !(await isSigned(proof, imported, header.alg))) return badProof("the signature of the proof is wrong");
      // Last, so that only who has the key can fill it.
      const taken = replays.take(sha256(`${jkt} ${claims.jti}`));
      if (taken === "full") return cannotTell("too many proofs come now");
      return taken === "seen" ? badProof("the proof was used before") : undefined;
    },
  };
}

interface Wanted {
  readonly method: string;
  readonly url: string;
  readonly token: string;
  readonly clockSkewMs: number;
  readonly nowMs: number;
}

function claimProblem(
  { jti, htm, htu, iat, ath }: Members,
  { method, url, token, clockSkewMs, nowMs }: Wanted,
): string | undefined {
  if (typeof jti !== "string" || jti === "") return "has no jti";
  if (htm !== method) return "is for another method";
  const target = targetOf(url);
  if (typeof htu !== "string" || target === undefined || targetOf(htu) !== target) return "is for another URL";
  if (typeof iat !== "number" || !Number.isFinite(iat)) return "does not say when it was made";
  if (iat * 1_000 > nowMs + clockSkewMs) return "was made in the future";
  if (nowMs >= iat * 1_000 + proofAgeMs + clockSkewMs) return "is too old";
  if (ath !== sha256(token)) return "is for another token";
  return undefined;
}

/** RFC 9449 section 4.3 point 9: without query and fragment, and alike however it is written (RFC 3986 section 6.2). */
function targetOf(address: string): string | undefined {
  const url = URL.parse(address);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:") || url.username !== "" || url.password !== "")
    return undefined;
  return url.origin + url.pathname.replace(/%[0-9A-Fa-f]{2}/g, plainOctet);
}

function plainOctet(triplet: string): string {
  const character = String.fromCharCode(Number.parseInt(triplet.slice(1), 16));
  return /[A-Za-z0-9\-._~]/.test(character) ? character : triplet.toUpperCase();
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("base64url");
}
