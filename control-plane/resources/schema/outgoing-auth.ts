// What backends are shown: one strategy per backend, each with the block of its type.
import { z } from "zod";
import { toSeconds } from "./durations.ts";
import {
  count,
  duration,
  environmentName,
  flag,
  headerName,
  matching,
  type Partly,
  type Say,
  section,
  text,
  texts,
  url,
  within,
  word,
} from "./fields.ts";
import { isPlainRemote } from "./incoming-auth.ts";

const secret = text("text");
const provider = text("a provider's name");
const idTokenType = "urn:ietf:params:oauth:token-type:id_token";

const blocks = {
  headerInjection: section({
    headerName,
    // RFC 9110 5.5: a header value can't hold line breaks; one that could would smuggle headers.
    headerValue: matching(/^[\t\x20-\x7e\u0080-\u00ff]+$/, "text without line breaks").optional(),
    headerValueEnv: environmentName.optional(),
  }),
  tokenExchange: section({
    tokenUrl: url("the token endpoint").optional(),
    clientId: text("a client id").optional(),
    clientSecret: secret.optional(),
    clientSecretEnv: environmentName.optional(),
    audience: text("an audience").optional(),
    scopes: texts("scopes").optional(),
    subjectTokenType: matching(
      /^(access_token|id_token|jwt|urn:ietf:params:oauth:token-type:(access_token|id_token|jwt))$/,
      "one of access_token, id_token, jwt, or the URN of one of them",
    ).optional(),
    subjectProviderName: provider.optional(),
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
    scopes: texts("scopes").optional(),
    subjectProviderName: provider.optional(),
    subjectTokenType: z.enum([idTokenType], { error: idTokenType }).optional(),
  }),
  obo: section({
    tokenUrl: url("the token endpoint"),
    clientId: text("a client id").optional(),
    clientSecret: secret.optional(),
    clientSecretEnv: environmentName.optional(),
    audience: text("an audience").optional(),
    scopes: texts("scopes").optional(),
    subjectTokenProviderName: provider.optional(),
    cacheSkewSeconds: count(0).optional(),
  }),
};

const blockOf = {
  unauthenticated: undefined,
  header_injection: "headerInjection",
  token_exchange: "tokenExchange",
  upstream_inject: "upstreamInject",
  aws_sts: "awsSts",
  xaa: "xaa",
  obo: "obo",
} as const;

const strategy = section({
  type: word("unauthenticated", "header_injection", "token_exchange", "upstream_inject", "aws_sts", "xaa", "obo"),
  headerInjection: blocks.headerInjection.optional(),
  tokenExchange: blocks.tokenExchange.optional(),
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

type OutgoingAuthPart = Partly<z.output<typeof outgoingAuth>>;
type StrategyPart = Partly<z.output<typeof strategy>>;

/** Every strategy with its path: the default, and each backend's. */
export function strategiesOf(value: OutgoingAuthPart): readonly (readonly [string[], StrategyPart])[] {
  const named = Object.entries(value.backends ?? {}).map(
    ([name, entry]) => [["backends", name], entry ?? {}] as [string[], StrategyPart],
  );
  return value.default === undefined ? named : [[["default"], value.default], ...named];
}

/** `issuer` publishes a token endpoint, so that a token exchange may leave its own out. */
export function outgoingAuthRules(value: OutgoingAuthPart, issuer: string | undefined, say: Say): void {
  for (const [path, entry] of strategiesOf(value)) strategyRules(entry, issuer, within(say, ...path));
}

function strategyRules(value: StrategyPart, issuer: string | undefined, say: Say): void {
  if (value.type === undefined) return;
  const wanted = blockOf[value.type];
  if (wanted !== undefined && value[wanted] === undefined) {
    say([wanted], `strategy ${value.type} needs a ${wanted} block`);
  }
  for (const key of Object.keys(blocks) as (keyof typeof blocks)[]) {
    if (key !== wanted && value[key] !== undefined) {
      say([key], `${key} has no effect with type ${value.type}`, { severity: "warning" });
    }
  }
  if (value.headerInjection) headerRules(value.headerInjection, within(say, "headerInjection"));
  if (value.tokenExchange) exchangeRules(value.tokenExchange, issuer, within(say, "tokenExchange"));
  if (value.awsSts) awsRules(value.awsSts, within(say, "awsSts"));
  if (value.xaa) crossAppRules(value.xaa, within(say, "xaa"));
  if (value.obo) secretRules(value.obo, "clientId", "clientSecret", within(say, "obo"));
}

function headerRules(value: Partly<z.output<typeof blocks.headerInjection>>, say: Say): void {
  if (value.headerValue !== undefined && value.headerValueEnv !== undefined) {
    say(["headerValueEnv"], "headerValue and headerValueEnv exclude each other", {
      hint: "keep headerValueEnv: it leaves the secret out of the file",
    });
  }
  if (value.headerValue === undefined && value.headerValueEnv === undefined) {
    say(["headerValue"], "a value for the header is missing", {
      hint: "set headerValueEnv to the name of an environment variable of the proxy",
    });
  }
}

function exchangeRules(value: Partly<z.output<typeof blocks.tokenExchange>>, issuer: string | undefined, say: Say): void {
  if (value.tokenUrl === undefined && issuer === undefined) {
    say(["tokenUrl"], "the token exchange needs a tokenUrl", {
      hint: "it may be left out only when incomingAuth.oidc.issuer is set, which publishes one",
    });
  }
  secretRules(value, "clientId", "clientSecret", say);
}

function awsRules(value: Partly<z.output<typeof blocks.awsSts>>, say: Say): void {
  const seconds = toSeconds(value.sessionDuration);
  if (seconds !== undefined && (seconds < 900 || seconds > 43_200)) {
    say(["sessionDuration"], "AWS grants sessions of 15m to 12h", { hint: "leave it out for 1h" });
  }
  value.roleMappings?.forEach((mapping, index) => {
    if (mapping !== undefined && (mapping.claim === undefined) === (mapping.matcher === undefined)) {
      say(
        ["roleMappings", index, mapping.claim === undefined ? "claim" : "matcher"],
        mapping.claim === undefined ? "a role mapping needs a claim or a matcher" : "claim and matcher exclude each other",
      );
    }
  });
}

function crossAppRules(value: Partly<z.output<typeof blocks.xaa>>, say: Say): void {
  secretRules(value, "idpClientId", "idpClientSecret", say);
  secretRules(value, "targetClientId", "targetClientSecret", say);
  if (value.idpTokenUrl !== undefined && isPlainRemote(value.idpTokenUrl)) {
    say(["idpTokenUrl"], "tokens must not travel over plain http", { hint: "use https" });
  }
  if (value.targetTokenUrl !== undefined && isPlainRemote(value.targetTokenUrl) && value.insecureTargetTokenUrl !== true) {
    say(["targetTokenUrl"], "tokens must not travel over plain http", {
      hint: "use https, or set insecureTargetTokenUrl: true for a test",
    });
  }
}

function secretRules(value: object, id: string, literal: string, say: Say): void {
  const fields = value as Readonly<Record<string, unknown>>;
  const env = `${literal}Env`;
  if (fields[literal] !== undefined && fields[env] !== undefined) {
    say([env], `${literal} and ${env} exclude each other`, { hint: `keep ${env}: it leaves the secret out of the file` });
  }
  if (fields[id] === undefined && (fields[literal] !== undefined || fields[env] !== undefined)) {
    say([id], `a client secret without ${id}`, { hint: `set ${id}` });
  }
}
