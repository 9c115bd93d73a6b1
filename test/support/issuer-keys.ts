// The signing keys of a test issuer: one of each kind signs, older ones may stay published.
import { exportJWK, exportSPKI, generateKeyPair, type JWK } from "jose";

export type KeyAlgorithm = "RS256" | "ES256";

export interface SigningKey {
  readonly kid: string;
  readonly alg: KeyAlgorithm;
  readonly privateKey: CryptoKey;
  readonly privateJwk: JWK;
  readonly publicJwk: JWK;
  /** SPKI: what a verifier that confuses algorithms would take for an HMAC secret. */
  readonly publicPem: string;
}

export interface KeyRing {
  /** The one that signs now. */
  current(alg: KeyAlgorithm): SigningKey;
  /** What is published, newest first. */
  published(): readonly SigningKey[];
  /** Adds one of each kind, which signs from now on. */
  rotate(): Promise<void>;
  /** Publishes only the ones that sign. */
  removeOld(): void;
}

const algorithms = ["RS256", "ES256"] as const satisfies readonly KeyAlgorithm[];

/** Begins with one key of each kind. `name` begins the ids of keys, so that those of two issuers differ. */
export async function createKeyRing(name: string): Promise<KeyRing> {
  let generation = 0;
  let keys: readonly SigningKey[] = [];

  async function rotate(): Promise<void> {
    generation++;
    const suffix = `${name}-${generation}`;
    const fresh = await Promise.all(algorithms.map((alg) => createKey(alg, `${alg.toLowerCase()}-${suffix}`)));
    keys = [...fresh, ...keys];
  }

  await rotate();
  return {
    current: (alg) => keys.find((key) => key.alg === alg) as SigningKey,
    published: () => keys,
    rotate,
    removeOld: () => {
      keys = keys.slice(0, algorithms.length);
    },
  };
}

async function createKey(alg: KeyAlgorithm, kid: string): Promise<SigningKey> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const about = { kid, alg, use: "sig" };
  const [privateJwk, publicJwk] = await Promise.all([exportJWK(privateKey), exportJWK(publicKey)]);
  return {
    kid,
    alg,
    privateKey,
    privateJwk: { ...privateJwk, ...about },
    publicJwk: { ...publicJwk, ...about },
    publicPem: await exportSPKI(publicKey),
  };
}
