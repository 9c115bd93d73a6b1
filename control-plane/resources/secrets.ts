// Which keys hold secrets, so that no report ever shows one.

/** Blocks of outgoing auth: whatever is in them counts as secret, unless it is known to be harmless. A mistyped key must not leak. */
const credentialBlocks: ReadonlySet<string> = new Set([
  "headerInjection",
  "tokenExchange",
  "clientCredentials",
  "upstreamOauth",
  "xaa",
  "obo",
]);

const harmlessKeys: ReadonlySet<string> = new Set([
  "headerName",
  "tokenUrl",
  "clientId",
  "clientAuthMethod",
  "audience",
  "resource",
  "scopes",
  "issuer",
  "requestedTokenType",
  "actorTokenType",
  "insecureAllowHttp",
  "allowPrivateIp",
  "caBundlePath",
  "subjectTokenType",
  "subjectProviderName",
  "subjectTokenProviderName",
  "idpTokenUrl",
  "idpClientId",
  "targetTokenUrl",
  "insecureTargetTokenUrl",
  "targetClientId",
  "targetAudience",
  "targetResource",
  "cacheSkewSeconds",
]);

const headerMaps: ReadonlySet<string> = new Set(["headers", "embeddingHeaders"]);

const secretWord =
  /secret|passw(or)?d|passphrase|headerval|authorization|cookie|credential|private_?key|api_?-?key|access_?key|(^|[_-]|[a-z])token$|(^|_)(pwd|pat|key|auth)$/i;

const place = /(Env|File)$/; // where a secret is, not the secret
const notSecret = /url$|tokentype$|^(clientcredentials|trustedwithauthorization)$/i;

/** Whether a value below a key of this name is likely a secret. */
export function isSecretName(name: string): boolean {
  return secretWord.test(name) && !place.test(name) && !notSecret.test(name);
}

/** Whether a key of this name holds a map whose values are all secret. */
export function isHeaderMap(name: string): boolean {
  return headerMaps.has(name);
}

/** Whether the value at `path` must not be shown. */
export function isSecretPath(path: readonly (string | number)[]): boolean {
  return path.some((part, index) => {
    if (typeof part !== "string") return false;
    if (isSecretName(part)) return true;
    const parent = path[index - 1];
    if (typeof parent !== "string") return false;
    if (isHeaderMap(parent)) return true;
    return credentialBlocks.has(parent) && !harmlessKeys.has(part) && !place.test(part);
  });
}
