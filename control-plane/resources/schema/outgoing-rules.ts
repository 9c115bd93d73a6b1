// What the blocks of outgoing auth must be beyond their shape.
import type { z } from "zod";
import { toSeconds } from "./durations.ts";
import { type Partly, type Say, sayExclusive, sayRepeated, within } from "./fields.ts";
import { connectionReason, messageReason, originReason } from "./header-names.ts";
import { oauthClientRules, sayPlainEndpoint, secretRules } from "./oauth-client.ts";
import { blockOf, blocks, type OutgoingAuthPart, type StrategyPart, strategiesOf } from "./outgoing-auth.ts";

type Block<Key extends keyof typeof blocks> = Partly<z.output<(typeof blocks)[Key]>>;

export interface Callers {
  /** Type of incoming auth. */
  readonly type: string | undefined;
  /** It publishes a token endpoint, so that what asks for tokens may leave its own out. */
  readonly issuer: string | undefined;
  /** With which users sign in at it. */
  readonly clientId: string | undefined;
}

export function outgoingAuthRules(value: OutgoingAuthPart, callers: Callers, say: Say): void {
  for (const [path, entry] of strategiesOf(value)) strategyRules(entry, callers, within(say, ...path));
}

function strategyRules(value: StrategyPart, callers: Callers, say: Say): void {
  if (value.type === undefined) return;
  const wanted = blockOf[value.type];
  if (wanted !== undefined && value[wanted] === undefined) {
    say([wanted], `strategy ${value.type} needs ${/^[aou]/.test(wanted) ? "an" : "a"} ${wanted} block`);
  }
  for (const key of Object.keys(blocks) as (keyof typeof blocks)[]) {
    if (key !== wanted && value[key] !== undefined) {
      say([key], `${key} has no effect with type ${value.type}`, { severity: "warning" });
    }
  }
  if (callers.type === "anonymous" || callers.type === "local") tokenlessRules(value, callers.type, say);
  if (callers.type === "oidc" && value.type === "upstream_oauth" && callers.clientId === undefined) {
    say(["type"], "upstream_oauth needs incomingAuth.oidc.clientId: with it users show that a sign-in is their own", {
      hint: "register a client at the issuer, with the redirect URI <public URL of the proxies>/oauth/signed-in",
    });
  }
  if (value.headerInjection) headerRules(value.headerInjection, within(say, "headerInjection"));
  if (value.tokenExchange) exchangeRules(value.tokenExchange, callers.issuer, within(say, "tokenExchange"));
  if (value.clientCredentials) ownTokenRules(value.clientCredentials, callers.issuer, within(say, "clientCredentials"));
  if (value.passThrough) passThroughRules(value.passThrough, within(say, "passThrough"));
  if (value.upstreamOauth) signInRules(value.upstreamOauth, within(say, "upstreamOauth"));
  if (value.awsSts) awsRules(value.awsSts, within(say, "awsSts"));
  if (value.xaa) crossAppRules(value.xaa, within(say, "xaa"));
  if (value.obo) secretRules(value.obo, "clientId", "clientSecret", within(say, "obo"));
}

/** What a strategy can't do when callers have no token of their own. */
function tokenlessRules({ type }: StrategyPart, callers: "anonymous" | "local", say: Say): void {
  if (type === "token_exchange") {
    say(["type"], `token_exchange needs the token of a caller, and with incoming auth ${callers} there is none`, {
      hint: "let callers sign in with incomingAuth type oidc, or use client_credentials",
    });
  }
  if (type === "upstream_oauth" && callers === "anonymous") {
    say(["type"], "with anonymous incoming auth all callers are one user, so they share what one of them signs in to", {
      severity: "warning",
      hint: "let callers sign in, or use incomingAuth type local on your own machine",
    });
  }
}

function headerRules(value: Block<"headerInjection">, say: Say): void {
  const places = ["headerValue", "headerValueEnv", "headerValueFile"] as const;
  const lower = value.headerName?.toLowerCase() ?? "";
  const reason = connectionReason(lower) ?? messageReason(lower);
  if (reason !== undefined) say(["headerName"], `header ${value.headerName} can't be injected: ${reason}`);
  sayExclusive(say, value, places);
  if (places.every((key) => value[key] === undefined)) {
    say(["headerValue"], "a value for the header is missing", {
      hint: "set headerValueEnv to the name of an environment variable of the proxy",
    });
  }
}

function exchangeRules(value: Block<"tokenExchange">, issuer: string | undefined, say: Say): void {
  endpointRules("the token exchange needs a tokenUrl", value, issuer, say);
  oauthClientRules(value, say);
  sayExclusive(say, value, ["actorTokenEnv", "actorTokenFile"]);
  if (value.actorTokenType !== undefined && (value.actorTokenEnv ?? value.actorTokenFile) === undefined)
    say(["actorTokenType"], "actorTokenType has no effect without an actor token", { severity: "warning" });
}

function ownTokenRules(value: Block<"clientCredentials">, issuer: string | undefined, say: Say): void {
  endpointRules("client credentials need a tokenUrl", value, issuer, say);
  oauthClientRules(value, say);
  const places = ["clientSecret", "clientSecretEnv", "clientSecretFile", "privateKeyEnv", "privateKeyFile"] as const;
  if (places.every((key) => value[key] === undefined)) {
    say(["clientSecretEnv"], "client credentials need a client secret or a private key", {
      hint: "set clientSecretEnv, clientSecretFile, privateKeyEnv or privateKeyFile",
    });
  }
}

function endpointRules(
  message: string,
  value: { readonly tokenUrl?: string | undefined },
  issuer: string | undefined,
  say: Say,
): void {
  if (value.tokenUrl === undefined && issuer === undefined) {
    say(["tokenUrl"], message, {
      hint: "it may be left out only when incomingAuth.oidc.issuer is set, which publishes one",
    });
  }
  sayPlainEndpoint(say, value, { key: "tokenUrl", exemption: "insecureAllowHttp" });
}

function passThroughRules(value: Block<"passThrough">, say: Say): void {
  const names = (value.headers ?? []).map((name) => name?.toLowerCase());
  names.forEach((name, index) => {
    const reason = name === undefined ? undefined : passThroughReason(name);
    if (reason !== undefined) say(["headers", index], `header ${value.headers?.[index]} can't pass through: ${reason}`);
  });
  sayRepeated(
    within(say, "headers"),
    names.map((name, index) => [[index], name] as const),
    (name) => `header ${name} stands twice`,
  );
  const at = names.indexOf("authorization");
  const isTrusted = value.trustedWithAuthorization === true;
  if (at >= 0 && !isTrusted) {
    say(["headers", at], "header Authorization can't pass through: the backend would get the caller's own token", {
      hint: "use token_exchange, or set trustedWithAuthorization: true if the backend may do all that the caller may",
    });
  }
  if (at >= 0 && isTrusted) {
    say(["headers", at], "the backend gets the caller's own token, and can do with it all that the caller may", {
      severity: "warning",
      hint: "use token_exchange if the backend's authorization server can",
    });
  }
  if (at < 0 && isTrusted) {
    say(["trustedWithAuthorization"], "trustedWithAuthorization has no effect without Authorization among the headers", {
      severity: "warning",
    });
  }
}

function passThroughReason(name: string): string | undefined {
  if (name === "cookie") return "it carries the caller's credential for this gateway";
  if (name.startsWith("proxy-")) return connectionReason("proxy-connection");
  return connectionReason(name) ?? messageReason(name) ?? originReason(name.startsWith("x-forwarded-") ? "forwarded" : name);
}

function signInRules(value: Block<"upstreamOauth">, say: Say): void {
  oauthClientRules(value, say);
  sayPlainEndpoint(say, value, { key: "issuer", exemption: "insecureAllowHttp" });
}

function awsRules(value: Block<"awsSts">, say: Say): void {
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

function crossAppRules(value: Block<"xaa">, say: Say): void {
  secretRules(value, "idpClientId", "idpClientSecret", say);
  secretRules(value, "targetClientId", "targetClientSecret", say);
  sayPlainEndpoint(say, value, { key: "idpTokenUrl" });
  sayPlainEndpoint(say, value, { key: "targetTokenUrl", exemption: "insecureTargetTokenUrl" });
}
