// What backends are shown: one strategy per backend, each with the block of its type.
import { z } from "zod";
import {
  absolutePath,
  count,
  duration,
  environmentName,
  flag,
  headerName,
  issuerUrl,
  matching,
  type Partly,
  scopes,
  section,
  text,
  url,
  word,
} from "./fields.ts";
import { oauthClientShape } from "./oauth-client.ts";

const secret = text("text");
const provider = text("a provider's name");
const idTokenType = "urn:ietf:params:oauth:token-type:id_token";
const tokenType = matching(
  /^(access_token|id_token|jwt|urn:ietf:params:oauth:token-type:(access_token|id_token|jwt))$/,
  "one of access_token, id_token, jwt, or the URN of one of them",
);

/** How an authorization server is reached. */
const reach = { insecureAllowHttp: flag.optional(), allowPrivateIp: flag.optional(), caBundlePath: absolutePath.optional() };

export const blocks = {
  headerInjection: section({
    headerName,
    // RFC 9110 5.5: a header value can't hold line breaks; one that could would smuggle headers.
    headerValue: matching(/^[\t\x20-\x7e\u0080-\u00ff]+$/, "text without line breaks").optional(),
    headerValueEnv: environmentName.optional(),
    headerValueFile: absolutePath.optional(),
  }),
  tokenExchange: section({
    tokenUrl: url("the token endpoint").optional(),
    ...oauthClientShape,
    audience: text("an audience").optional(),
    resource: text("a resource (RFC 8707)").optional(),
    subjectTokenType: tokenType.optional(),
    subjectProviderName: provider.optional(),
    requestedTokenType: tokenType.optional(),
    actorTokenEnv: environmentName.optional(),
    actorTokenFile: absolutePath.optional(),
    actorTokenType: tokenType.optional(),
    ...reach,
  }),
  clientCredentials: section({
    tokenUrl: url("the token endpoint").optional(),
    ...oauthClientShape,
    clientId: text("a client id"),
    audience: text("an audience").optional(),
    resource: text("a resource (RFC 8707)").optional(),
    ...reach,
  }),
  passThrough: section({
    headers: z.array(headerName, { error: "a list of header names" }).min(1, { error: "at least one header name" }),
    trustedWithAuthorization: flag.optional(),
  }),
  upstreamOauth: section({
    ...oauthClientShape,
    issuer: issuerUrl("the authorization server").optional(),
    resource: text("a resource (RFC 8707)").optional(),
    ...reach,
  }),
  upstreamInject: section({ providerName: provider }),
  awsSts: section({
    region: text("an AWS region"),
    service: text("a service name").optional(),
    fallbackRoleArn: text("a role ARN").optional(),
    roleMappings: z
      .array(
        section({
          claim: text("a claim's value").optional(),
          matcher: text("a CEL expression").optional(),
          roleArn: text("a role ARN"),
          priority: count(0).optional(),
        }),
        { error: "a list of maps, one per role" },
      )
      .optional(),
    roleClaim: text("a claim's name").optional(),
    // The original counts seconds here and nowhere else.
    sessionDuration: z.preprocess((value) => (Number.isSafeInteger(value) ? `${value}s` : value), duration()).optional(),
    sessionNameClaim: text("a claim's name").optional(),
    subjectProviderName: provider.optional(),
  }),
  xaa: section({
    idpTokenUrl: url("the identity provider's token endpoint"),
    idpClientId: text("a client id").optional(),
    idpClientSecret: secret.optional(),
    idpClientSecretEnv: environmentName.optional(),
    targetTokenUrl: url("the target's token endpoint"),
    insecureTargetTokenUrl: flag.optional(),
    targetClientId: text("a client id").optional(),
    targetClientSecret: secret.optional(),
    targetClientSecretEnv: environmentName.optional(),
    targetAudience: text("the audience of the assertion"),
    targetResource: text("a resource (RFC 8707)").optional(),
    scopes: scopes.optional(),
    subjectProviderName: provider.optional(),
    subjectTokenType: z.enum([idTokenType], { error: idTokenType }).optional(),
  }),
  obo: section({
    tokenUrl: url("the token endpoint"),
    clientId: text("a client id").optional(),
    clientSecret: secret.optional(),
    clientSecretEnv: environmentName.optional(),
    audience: text("an audience").optional(),
    scopes: scopes.optional(),
    subjectTokenProviderName: provider.optional(),
    cacheSkewSeconds: count(0).optional(),
  }),
};

/** Strategy type → the key of its block. */
export const blockOf = {
  unauthenticated: undefined,
  header_injection: "headerInjection",
  token_exchange: "tokenExchange",
  client_credentials: "clientCredentials",
  pass_through: "passThrough",
  upstream_oauth: "upstreamOauth",
  upstream_inject: "upstreamInject",
  aws_sts: "awsSts",
  xaa: "xaa",
  obo: "obo",
} as const;

const strategy = section({
  type: word(...(Object.keys(blockOf) as [keyof typeof blockOf])),
  headerInjection: blocks.headerInjection.optional(),
  tokenExchange: blocks.tokenExchange.optional(),
  clientCredentials: blocks.clientCredentials.optional(),
  passThrough: blocks.passThrough.optional(),
  upstreamOauth: blocks.upstreamOauth.optional(),
  upstreamInject: blocks.upstreamInject.optional(),
  awsSts: blocks.awsSts.optional(),
  xaa: blocks.xaa.optional(),
  obo: blocks.obo.optional(),
});

export const outgoingAuth = section({
  // The original insists on it; its own README leaves it out.
  source: word("inline", "discovered").optional(),
  default: strategy.optional(),
  backends: z.record(z.string(), strategy, { error: "a map of backend name to strategy" }).optional(),
});

export type OutgoingAuthPart = Partly<z.output<typeof outgoingAuth>>;
export type StrategyPart = Partly<z.output<typeof strategy>>;

/** Every strategy with its path: the default, and each backend's. */
export function strategiesOf(value: OutgoingAuthPart): readonly (readonly [string[], StrategyPart])[] {
  const named = Object.entries(value.backends ?? {}).map(
    ([name, entry]) => [["backends", name], entry ?? {}] as [string[], StrategyPart],
  );
  return value.default === undefined ? named : [[["default"], value.default], ...named];
}
