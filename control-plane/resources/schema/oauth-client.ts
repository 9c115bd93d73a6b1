// How the gateway shows an authorization server who it is, wherever it asks one for a token.
import {
  absolutePath,
  environmentName,
  isPlainRemote,
  type Partly,
  type Say,
  sayExclusive,
  scopes,
  text,
  word,
} from "./fields.ts";

/** Keys of a block, for `section`. */
export const oauthClientShape = {
  clientId: text("a client id").optional(),
  clientSecret: text("text").optional(),
  clientSecretEnv: environmentName.optional(),
  clientSecretFile: absolutePath.optional(),
  clientAuthMethod: word("client_secret_basic", "client_secret_post", "private_key_jwt", "none").optional(),
  privateKeyEnv: environmentName.optional(),
  privateKeyFile: absolutePath.optional(),
  privateKeyId: text("a key id").optional(),
  scopes: scopes.optional(),
};

interface OauthClient {
  readonly clientId: string;
  readonly clientSecret: string;
  readonly clientSecretEnv: string;
  readonly clientSecretFile: string;
  readonly clientAuthMethod: string;
  readonly privateKeyEnv: string;
  readonly privateKeyFile: string;
  readonly privateKeyId: string;
}

export function oauthClientRules(value: Partly<OauthClient>, say: Say): void {
  const method = value.clientAuthMethod;
  const secretKey = (["clientSecret", "clientSecretEnv", "clientSecretFile"] as const).find((key) => value[key] !== undefined);
  const keyKey = (["privateKeyEnv", "privateKeyFile"] as const).find((key) => value[key] !== undefined);
  secretRules(value, "clientId", "clientSecret", say);
  sayExclusive(say, value, ["privateKeyEnv", "privateKeyFile"]);
  if (secretKey !== undefined && keyKey !== undefined) {
    say([keyKey], `${secretKey} and ${keyKey} exclude each other`, {
      hint: "a client has a secret or a private key; keep what the authorization server knows",
    });
  }
  if (keyKey !== undefined && value.clientId === undefined)
    say(["clientId"], "a private key without clientId", { hint: "set clientId" });
  if (keyKey === undefined && value.privateKeyId !== undefined)
    say(["privateKeyId"], "privateKeyId has no effect without a private key", { severity: "warning" });
  if (method === "none" && (secretKey ?? keyKey) !== undefined) {
    say(["clientAuthMethod"], `clientAuthMethod none and ${secretKey ?? keyKey} exclude each other`, {
      hint: "leave clientAuthMethod out: what is given says which one it is",
    });
  }
  if (method === "private_key_jwt" && keyKey === undefined)
    say(["clientAuthMethod"], "private_key_jwt needs a private key", { hint: "set privateKeyEnv or privateKeyFile" });
  if (method?.startsWith("client_secret_") && secretKey === undefined)
    say(["clientAuthMethod"], `${method} needs a client secret`, { hint: "set clientSecretEnv or clientSecretFile" });
}

/** `literal` is the key with the secret itself; the same with Env and File are the other places it may be in. */
export function secretRules(value: object, id: string, literal: string, say: Say): void {
  const fields = value as Readonly<Record<string, unknown>>;
  const places = [literal, `${literal}Env`, `${literal}File`];
  sayExclusive(say, value, places);
  if (fields[id] === undefined && places.some((key) => fields[key] !== undefined))
    say([id], `a client secret without ${id}`, { hint: `set ${id}` });
}

/** Reports an endpoint that gets tokens or secrets over plain http; `exemption` is the flag that allows it. */
export function sayPlainEndpoint(say: Say, value: object, { key, exemption }: { key: string; exemption?: string }): void {
  const fields = value as Readonly<Record<string, unknown>>;
  const address = fields[key];
  if (typeof address !== "string" || !isPlainRemote(address)) return;
  if (exemption !== undefined && fields[exemption] === true) return;
  say([key], "tokens must not travel over plain http", {
    hint: exemption === undefined ? "use https" : `use https, or set ${exemption}: true for a test`,
  });
}
