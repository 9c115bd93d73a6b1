// Who we are to a token endpoint, and how we prove it.
import { createPrivateKey, type KeyObject } from "node:crypto";
import { type ClientAuth, ClientSecretPost, type CryptoKey, None, PrivateKeyJwt } from "oauth4webapi";
import { readSecret, Secret } from "../secrets.ts";

/** As the messages of all strategies that are a client have it; empty texts are unset. */
export interface ClientConfig {
  readonly clientId: string;
  readonly clientSecret: string;
  readonly clientSecretEnv: string;
  readonly clientSecretFile: string;
  readonly clientAuthMethod: string;
  readonly privateKeyEnv: string;
  readonly privateKeyFile: string;
  readonly privateKeyId: string;
}

export interface OauthClient {
  /** Empty: we are nobody there. */
  readonly id: string;
  readonly method: string;
  /** Whether it can prove who it is, so that tokens may be for itself. */
  readonly isConfidential: boolean;
  readonly authenticate: ClientAuth;
  /** What must not be written anywhere, even if the endpoint repeats it. */
  readonly secret: Secret | undefined;
}

/**
 * Reads secret or key, once. Without a method: `private_key_jwt` when there is a key, `client_secret_basic` when there is a
 * secret, else `none`. Throws an Error that shows nothing of either.
 */
export function readClient(config: ClientConfig): OauthClient {
  const { clientId: id, clientSecret, clientSecretEnv, clientSecretFile } = config;
  const key = readSecret({ env: config.privateKeyEnv, file: config.privateKeyFile });
  const secret = clientSecret ? new Secret(clientSecret) : readSecret({ env: clientSecretEnv, file: clientSecretFile });
  const method = config.clientAuthMethod || (key ? "private_key_jwt" : secret ? "client_secret_basic" : "none");
  const isConfidential = method !== "none";
  if (isConfidential && id === "") throw new Error(`client authentication ${method} needs a client id`);
  const client = { id, method, isConfidential, secret: key ?? secret };
  switch (method) {
    case "none":
      return { ...client, authenticate: id === "" ? () => undefined : None() };
    case "client_secret_basic":
      return { ...client, authenticate: basic(wanted(secret, method, "a client secret")) };
    case "client_secret_post":
      return { ...client, authenticate: ClientSecretPost(wanted(secret, method, "a client secret")) };
    case "private_key_jwt": {
      const { key: own, kid } = readKey(wanted(key, method, "a private key"));
      const named = config.privateKeyId || kid;
      return { ...client, authenticate: PrivateKeyJwt({ key: own, ...(named ? { kid: named } : {}) }) };
    }
    default:
      throw new Error(`client authentication "${method}" is not known`);
  }
}

function wanted(secret: Secret | undefined, method: string, what: string): string {
  if (!secret) throw new Error(`client authentication ${method} needs ${what}`);
  return secret.reveal();
}

/**
 * RFC 6749 2.3.1: id and secret form-encoded. The library also encodes `-`, `.` and `_`, which the encoding leaves alone
 * (WHATWG URL), and which servers that decode nothing then do not recognise.
 */
function basic(secret: string): ClientAuth {
  return (_server, { client_id: id }, _body, headers) => {
    headers.set("authorization", `Basic ${Buffer.from(`${formEncoded(id)}:${formEncoded(secret)}`).toString("base64")}`);
  };
}

function formEncoded(text: string): string {
  return new URLSearchParams([["", text]]).toString().slice(1);
}

const modulusBitsMin = 2_048;
const curves: Readonly<Record<string, string>> = { prime256v1: "P-256", secp384r1: "P-384", secp521r1: "P-521" };
const hashes: Readonly<Record<string, string>> = { "256": "SHA-256", "384": "SHA-384", "512": "SHA-512" };

/** A PEM or a JWK. RSA signs RS256 unless the JWK says otherwise, ECDSA what its curve asks for. */
function readKey(text: string): { readonly key: CryptoKey; readonly kid: string | undefined } {
  const jwk = text.trimStart().startsWith("{") ? readJwk(text) : undefined;
  let key: KeyObject;
  try {
    key = jwk ? createPrivateKey({ key: jwk, format: "jwk" }) : createPrivateKey(text);
  } catch {
    throw new Error("the private key can't be read; wanted: PEM without a passphrase, or JWK"); // the cause might show it
  }
  const kid = typeof jwk?.kid === "string" ? jwk.kid : undefined;
  return { key: key.toCryptoKey(algorithmOf(key, jwk?.alg), false, ["sign"]) as CryptoKey, kid };
}

function readJwk(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("the private key begins like a JWK, and is no JSON");
  }
}

function algorithmOf({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject, named: unknown) {
  if (type === "rsa" || type === "rsa-pss") {
    if ((details?.modulusLength ?? 0) < modulusBitsMin)
      throw new Error(`an RSA key of fewer than ${modulusBitsMin} bits is too short`);
    const [, family, bits = ""] = /^([RP])S(256|384|512)$/.exec(String(named ?? (type === "rsa" ? "RS256" : "PS256"))) ?? [];
    const hash = hashes[bits];
    if (!hash) throw new Error("the alg of the private key is none that an RSA key can sign with");
    return { name: family === "P" ? "RSA-PSS" : "RSASSA-PKCS1-v1_5", hash };
  }
  const namedCurve = curves[details?.namedCurve ?? ""];
  if (type === "ec" && namedCurve) return { name: "ECDSA", namedCurve };
  if (type === "ed25519") return { name: "Ed25519" };
  throw new Error("the private key is none that client assertions are signed with; wanted: RSA, P-256, P-384, P-521 or Ed25519");
}
