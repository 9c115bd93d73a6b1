// Asks an issuer about tokens that only it can read (RFC 7662).
import {
  allowInsecureRequests,
  ClientSecretBasic,
  customFetch,
  introspectionRequest,
  processIntrospectionResponse,
} from "oauth4webapi";
import { readAccessToken } from "./access-token.ts";
import type { Clock } from "./clock.ts";
import type { MetadataSource } from "./metadata.ts";
import type { IssuerSettings } from "./oidc-settings.ts";
import { badToken } from "./refusals.ts";
import { createVerifiedToken, type Judgement } from "./verified-token.ts";

/** "inactive": the issuer doesn't know it, or not any more. "impossible": it answers no such questions. */
export type Introspected = Judgement | "inactive" | "impossible";

/** Rejects with an Error when the issuer gives no answer that can be understood. */
export type Introspect = (token: string) => Promise<Introspected>;

/** An answer counts for so long: the issuer may call a token back at any time. */
const knownMs = 60_000;

export interface IntrospectionOptions {
  readonly settings: IssuerSettings;
  readonly metadata: MetadataSource;
  readonly clock: Clock;
}

/** Undefined without a client to ask as. */
export function createIntrospection({ settings, metadata, clock }: IntrospectionOptions): Introspect | undefined {
  const { client, rules, fetch } = settings;
  if (!client) return undefined;
  const known = { client_id: client.id };
  const authentication = ClientSecretBasic(client.secret.reveal());
  // Which addresses may be asked, and how long, is up to our fetch; the library knows less of it.
  const options = {
    [customFetch]: (url: string, init: RequestInit) => fetch(url, init),
    [allowInsecureRequests]: true,
    additionalParameters: { token_type_hint: "access_token" },
  };
  return async (token) => {
    const endpoint = settings.introspectionUrl ?? (await metadata.get()).introspectionUrl;
    if (!endpoint) return "impossible";
    const server = { issuer: rules.issuer, introspection_endpoint: endpoint };
    const askedAtMs = clock.elapsedMs();
    const response = await introspectionRequest(server, known, authentication, token, options as never);
    const claims = await processIntrospectionResponse(server, known, response);
    if (!claims.active) return "inactive";
    const read = readAccessToken(rules, { claims, source: { kind: "introspection" }, nowMs: clock.nowMs() });
    if ("problem" in read) return badToken(`the token ${read.problem}`);
    const knownUntilMs = askedAtMs + knownMs;
    return { verified: createVerifiedToken({ token, read, rules, knownUntilMs, isCurrent: () => true }) };
  };
}
