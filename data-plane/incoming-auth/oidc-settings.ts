// What an operator declared about issuers, checked as a whole: this proxy enforces all of it or serves nothing.
import { BlockList, isIP } from "node:net";
import type { Duration } from "@bufbuild/protobuf/wkt";
import type { OidcConfig, OidcIssuer } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { createGuardedFetch, type GuardedFetch } from "../outbound/guarded-fetch.ts";
import { readSecret, type Secret } from "../secrets.ts";
import type { TokenRules } from "./access-token.ts";
import { defaultAlgorithms, knownAlgorithms } from "./algorithms.ts";

export interface OidcSettings {
  /** In the order of the configuration. */
  readonly issuers: readonly IssuerSettings[];
  readonly requiredScopes: readonly string[];
  readonly toolScopes: ReadonlyMap<string, readonly string[]>;
  /** Advertised. */
  readonly scopes: readonly string[];
  readonly resource: string | undefined;
  /** Undefined: nobody passes certificates on. */
  readonly certificates: CertificateSettings | undefined;
}

export interface IssuerSettings {
  readonly rules: TokenRules;
  readonly algorithms: readonly string[];
  /** Undefined: discovered. */
  readonly jwksUrl: string | undefined;
  /** Undefined: discovered, when there is a client. */
  readonly introspectionUrl: string | undefined;
  /** Who we are when we ask about tokens. */
  readonly client: { readonly id: string; readonly secret: Secret } | undefined;
  readonly fetch: GuardedFetch;
}

export interface CertificateSettings {
  /** In lower case. */
  readonly header: string;
  readonly from: BlockList;
}

const defaultTokenAgeMs = 24 * 60 * 60_000;
const tokenAgeMaxMs = 366 * 24 * 60 * 60_000;
const defaultSkewMs = 30_000;
/** Somebody whose clocks are further apart has other problems, and would open tokens that have long expired. */
const skewMaxMs = 5 * 60_000;
const fetchMs = 5_000;

type Say = (problem: string) => void;

/** `timeoutMs`: for each answer of an issuer; default 5,000. Throws an Error with everything that is wrong. */
export function readOidcSettings(config: OidcConfig | undefined, timeoutMs = fetchMs): OidcSettings {
  if (!config) throw new Error(`incoming auth "oidc" has no oidc block`);
  const problems: string[] = [];
  const all = [config, ...config.additionalIssuers];
  const issuers = all.map((one) => readIssuer(one, (problem) => problems.push(`issuer "${one.issuer}": ${problem}`), timeoutMs));
  const seen = new Set<string>();
  for (const { issuer } of all) {
    if (seen.has(issuer)) problems.push(`issuer "${issuer}": stands there twice`);
    seen.add(issuer);
  }
  const toolScopes = readToolScopes(config, (problem) => problems.push(problem));
  const certificates = readCertificates(config, (problem) => problems.push(problem));
  if (problems.length > 0) throw new Error(`incoming auth "oidc" can't be enforced by this proxy:\n${problems.join("\n")}`);
  const { requiredScopes, scopes, resource } = config;
  return {
    issuers,
    requiredScopes: [...new Set(requiredScopes)],
    toolScopes,
    scopes: scopes.length > 0 ? scopes : [...new Set(requiredScopes)],
    resource: resource || undefined,
    certificates,
  };
}

function readIssuer(config: OidcConfig | OidcIssuer, say: Say, timeoutMs: number): IssuerSettings {
  const { issuer, audience, jwksUrl, introspectionUrl, algorithms, requiredClaims, tokenType } = config;
  if (audience === "") say("no audience is set, and a token that is for everybody is not for us");
  for (const [name, address] of Object.entries({ issuer, jwksUrl, introspectionUrl }))
    if (name === "issuer" || address !== "") checkUrl(name, address, config.insecureAllowHttp, say);
  if (URL.parse(issuer)?.search || issuer.includes("#")) say("an issuer has neither query nor fragment (RFC 8414 section 2)");
  for (const algorithm of algorithms)
    if (!knownAlgorithms.includes(algorithm))
      say(`"${algorithm}" is no asymmetric signature algorithm; wanted: ${knownAlgorithms.join(", ")}`);
  if (requiredClaims.includes("")) say("a required claim has no name");
  if (tokenType !== "" && tokenType.toLowerCase() !== "at+jwt") say(`tokenType is "${tokenType}"; wanted at+jwt, or unset`);
  return {
    rules: {
      issuer,
      audience,
      requiredClaims,
      maxTokenAgeMs: readDuration(
        "maxTokenAge",
        config.maxTokenAge,
        { defaultMs: defaultTokenAgeMs, minMs: 1, maxMs: tokenAgeMaxMs },
        say,
      ),
      clockSkewMs: readDuration("clockSkew", config.clockSkew, { defaultMs: defaultSkewMs, minMs: 0, maxMs: skewMaxMs }, say),
      wantsType: tokenType !== "",
    },
    algorithms: algorithms.length > 0 ? algorithms : defaultAlgorithms,
    jwksUrl: jwksUrl || undefined,
    introspectionUrl: introspectionUrl || undefined,
    client: readClient(config, say),
    fetch: openFetch(config, say, timeoutMs),
  };
}

function checkUrl(name: string, address: string, allowHttp: boolean, say: Say): void {
  const url = URL.parse(address);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:")) return say(`${name} "${address}" is no http or https URL`);
  if (url.username !== "" || url.password !== "") say(`${name} has a user in it`);
  const isLoopback = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
  if (url.protocol === "http:" && !allowHttp && !isLoopback)
    say(`${name} is plain http, so anybody on the way can forge tokens; use https, or set insecureAllowHttp for a test`);
}

interface Range {
  readonly defaultMs: number;
  readonly minMs: number;
  readonly maxMs: number;
}

function readDuration(name: string, duration: Duration | undefined, { defaultMs, minMs, maxMs }: Range, say: Say): number {
  if (!duration) return defaultMs;
  const ms = Number(duration.seconds) * 1_000 + duration.nanos / 1_000_000;
  if (!(ms >= minMs && ms <= maxMs)) say(`${name} is ${ms} ms; wanted ${minMs} to ${maxMs}`);
  return ms;
}

function readClient(config: OidcConfig | OidcIssuer, say: Say): IssuerSettings["client"] {
  const { clientId: id, clientSecretEnv: env, clientSecretFile: file, introspectionUrl } = config;
  if (env && file) say("clientSecretEnv and clientSecretFile are both set; set one of them");
  if ((env || file) && !id) say("there is a client secret, but no clientId");
  if (introspectionUrl && !(id && (env || file))) say("introspectionUrl needs a clientId and a client secret");
  const secret = attempt(() => readSecret({ env, file }), say);
  return id && secret ? { id, secret } : undefined;
}

/** What is declared may be asked for on its word; addresses that the issuer names may not, unless the operator allows it. */
function openFetch(config: OidcConfig | OidcIssuer, say: Say, timeoutMs: number): GuardedFetch {
  const { issuer, jwksUrl, introspectionUrl, jwksAllowPrivateIp: allowPrivate, insecureAllowHttp: allowHttp } = config;
  const named = [issuer, jwksUrl, introspectionUrl].filter((url) => URL.canParse(url));
  const ca = config.caBundlePath ? { caFile: config.caBundlePath } : {};
  const fetch = attempt(
    () => createGuardedFetch({ named, allowPrivate, allowHttp, timeoutMs, ...ca }),
    (problem) => say(`caBundlePath: ${problem}`),
  );
  return fetch ?? (() => Promise.reject(new Error("not configured")));
}

function attempt<T>(read: () => T, say: Say): T | undefined {
  try {
    return read();
  } catch (error) {
    say((error as Error).message);
    return undefined;
  }
}

// RFC 6749 section 3.3.
const scopeToken = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

function readToolScopes({ scopes, requiredScopes, toolScopes }: OidcConfig, say: Say): ReadonlyMap<string, readonly string[]> {
  for (const scope of new Set([...scopes, ...requiredScopes, ...toolScopes.flatMap((one) => one.scopes)]))
    if (!scopeToken.test(scope)) say(`"${scope}" is no scope (RFC 6749 section 3.3)`);
  const byTool = new Map<string, Set<string>>();
  for (const { tool, scopes } of toolScopes) {
    if (tool === "") say("toolScopes has an entry without a tool");
    const all = byTool.get(tool) ?? new Set(requiredScopes);
    for (const scope of scopes) all.add(scope);
    byTool.set(tool, all);
  }
  return new Map([...byTool].map(([tool, all]) => [tool, [...all]]));
}

function readCertificates(config: OidcConfig, say: Say): CertificateSettings | undefined {
  const { clientCertificateHeader: header, clientCertificateFrom: blocks } = config;
  if (header === "" && blocks.length === 0) return undefined;
  if (header === "") say("clientCertificateFrom is set, but no clientCertificateHeader");
  else if (!/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(header)) say(`clientCertificateHeader "${header}" is no name of a header`);
  if (blocks.length === 0) say("clientCertificateHeader needs clientCertificateFrom: else anybody could send it");
  const from = new BlockList();
  for (const block of blocks) {
    const [, net = "", bits = ""] = /^([^/]+)\/(\d{1,3})$/.exec(block) ?? [];
    const family = isIP(net);
    if (family === 0 || Number(bits) > (family === 4 ? 32 : 128)) say(`"${block}" is no CIDR block`);
    else from.addSubnet(net, Number(bits), family === 4 ? "ipv4" : "ipv6");
  }
  return { header: header.toLowerCase(), from };
}
