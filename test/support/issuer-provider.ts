// The provider behind a test issuer: a certified library, told what the tests need of it, with token exchange and a sign-in page.
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { createLocalJWKSet, createRemoteJWKSet, decodeJwt, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";
import Provider, {
  type AccessToken,
  type AdapterFactory,
  type ClientCredentials,
  type ClientMetadata,
  type Configuration,
  errors,
  type KoaContextWithOIDC,
  type ResourceServer,
  type TokenEndpointGrantContext,
} from "oidc-provider";
import type { KeyAlgorithm, KeyRing } from "./issuer-keys.ts";

export const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";
/** Ours, inside: the audience that a token gets whatever was asked for. */
export const audienceHeader = "x-test-audience";
/** Begins the resource indicator of an audience that is no URI. */
export const audienceUrn = "urn:test:audience:";

const tokenTypes = ["access_token", "jwt", "id_token"].map((name) => `urn:ietf:params:oauth:token-type:${name}`);

export interface ProviderOptions {
  readonly issuer: string;
  readonly keys: KeyRing;
  readonly store: AdapterFactory;
  readonly cookieKey: string;
  readonly clients: readonly ClientMetadata[];
  /** Whose tokens may be exchanged. */
  readonly peers: readonly { readonly issuer: string; readonly jwksUrl: string }[];
  readonly hasClientDocuments: boolean;
  readonly rotatesRefreshTokens: boolean;
  readonly formatOf: (audience: string) => { readonly format: "jwt" | "opaque"; readonly alg: KeyAlgorithm };
  readonly claimsOf: (sub: string) => Readonly<Record<string, unknown>>;
  /** Of every resource, separated by spaces. */
  readonly scopes: () => string;
  readonly isOffered: (scope: string) => boolean;
  readonly accessTokenSeconds: () => number;
}

export interface TokenWish {
  readonly sub: string;
  readonly audience: string | undefined;
  readonly scope: string | undefined;
  readonly clientId: string;
  readonly expiresInSeconds: number;
  readonly format: "jwt" | "opaque";
  readonly alg: KeyAlgorithm;
  readonly cnf: { readonly jkt?: string; readonly "x5t#S256"?: string } | undefined;
  readonly claims: Readonly<Record<string, unknown>>;
}

export interface IssuerProvider {
  readonly listener: RequestListener;
  /** Issues one without asking anybody. */
  issue(wish: TokenWish): Promise<string>;
}

/** Signs with the keys that are current now; keys that come later need a provider of their own. */
export function createIssuerProvider(options: ProviderOptions): IssuerProvider {
  const { issuer, keys } = options;
  /** Claims beyond the standard ones, of tokens that are about to be signed. */
  const extras = new WeakMap<object, Readonly<Record<string, unknown>>>();

  const resourceServer = (audience: string, wish: Partial<TokenWish> = {}): ResourceServer => {
    const { format, alg } = { ...options.formatOf(audience), ...wish };
    const common = { audience, scope: wish.scope ?? options.scopes(), accessTokenTTL: options.accessTokenSeconds() };
    if (format === "opaque") return { ...common, accessTokenFormat: format };
    return { ...common, accessTokenFormat: format, jwt: { sign: { alg, kid: keys.current(alg).kid } } };
  };

  const provider = new Provider(issuer, {
    clients: options.clients,
    adapter: options.store,
    jwks: { keys: keys.published().map(({ privateJwk }) => privateJwk) } as NonNullable<Configuration["jwks"]>,
    cookies: { keys: [options.cookieKey] },
    clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
    claims: { openid: ["sub"], profile: ["name"], email: ["email"] },
    pkce: { required: () => true },
    rotateRefreshToken: options.rotatesRefreshTokens,
    // The library's default wants `offline_access`, which it drops from requests without `prompt=consent`.
    issueRefreshToken: (_ctx, client) => client.grantTypeAllowed("refresh_token"),
    findAccount: (_ctx, sub) => ({
      accountId: sub,
      claims: () => ({ sub, name: sub, email: `${sub}@example.com`, ...options.claimsOf(sub) }),
    }),
    extraTokenClaims: (_ctx, token) => ({ ...claimsOfUser(token), ...extras.get(token) }),
    interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` },
    renderError: (ctx, out) => {
      ctx.type = "json";
      ctx.body = out;
    },
    ttl: {
      AccessToken: () => options.accessTokenSeconds(),
      ClientCredentials: () => options.accessTokenSeconds(),
      IdToken: 3_600,
      Interaction: 3_600,
      Session: 86_400,
      Grant: 86_400,
      RefreshToken: 86_400,
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true },
      clientIdMetadataDocument: { enabled: options.hasClientDocuments, ack: "draft-02" },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => [],
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => resourceServer(audienceOf(ctx, resource)),
      },
    },
  });
  provider.registerGrantType<ExchangeParams>(exchangeGrant, exchange, exchangeParams, ["audience", "resource"]);
  // An unexpected error would be an answer 500 and nothing else.
  provider.on("server_error", (_ctx, error) => console.error(error));

  const claimsOfUser = (token: AccessToken | ClientCredentials) =>
    token.kind === "AccessToken" ? options.claimsOf((token as AccessToken).accountId) : {};

  const ownKeys = createLocalJWKSet({ keys: keys.published().map(({ publicJwk }) => publicJwk) });
  const keysOf = new Map<string, JWTVerifyGetKey>([[issuer, ownKeys]]);
  for (const { issuer: peer, jwksUrl } of options.peers)
    keysOf.set(peer, createRemoteJWKSet(new URL(jwksUrl), { cooldownDuration: 0 })); // it may rotate at any time

  /** RFC 8693. Takes no DPoP proof, because the library shares its checks only with its own grants. */
  async function exchange(ctx: TokenEndpointGrantContext<ExchangeParams>): Promise<void> {
    const { client, params } = ctx.oidc;
    const subject = await readToken("subject_token", params.subject_token, params.subject_token_type);
    const hasActor = params.actor_token !== undefined || params.actor_token_type !== undefined;
    const actor = hasActor ? await readToken("actor_token", params.actor_token, params.actor_token_type) : undefined;
    const { requested_token_type: wanted = tokenTypes[0] } = params;
    if (wanted !== tokenTypes[0] && wanted !== tokenTypes[1])
      throw new errors.InvalidRequest(`requested_token_type ${wanted} is not supported`);
    const target = [params.resource ?? params.audience ?? []].flat();
    if (target.length !== 1) throw new errors.InvalidTarget("one resource or audience is needed");
    const wishes = (params.scope ?? subject.scope)?.split(" ") ?? [];
    const scope = wishes.filter(options.isOffered).join(" ") || undefined;
    const audience = audienceOf(ctx, target[0] as string);
    const token = new provider.AccessToken({ client, accountId: subject.sub, gty: "token_exchange", grantId: "", scope });
    token.resourceServer = new provider.ResourceServer(audience, resourceServer(audience));
    const act = actor ? { ...actorOf(actor), ...(subject.act ? { act: subject.act } : {}) } : subject.act;
    if (act) extras.set(token, { act });
    ctx.oidc.entity("AccessToken", token);
    ctx.body = {
      access_token: await token.save(),
      issued_token_type: wanted,
      token_type: token.tokenType,
      expires_in: token.expiration,
      scope: token.scope,
    };
  }

  const actorOf = ({ sub, iss }: SubjectClaims) => (iss === issuer ? { sub } : { sub, iss });

  /** RFC 8693, 2.2.2: a token that is no good for any reason is an invalid request. */
  async function readToken(name: string, token: string | undefined, type: string | undefined): Promise<SubjectClaims> {
    if (token === undefined || type === undefined) throw new errors.InvalidRequest(`${name} and ${name}_type must come together`);
    if (!tokenTypes.includes(type)) throw new errors.InvalidRequest(`${name}_type ${type} is not supported`);
    const claims = token.split(".").length === 3 ? await readJwt(token) : await readOpaque(token);
    if (typeof claims?.sub !== "string") throw new errors.InvalidRequest(`${name} is not valid`);
    return claims as SubjectClaims;
  }

  async function readJwt(token: string): Promise<JWTPayload | undefined> {
    try {
      const { iss } = decodeJwt(token);
      const trusted = keysOf.get(iss ?? "");
      return trusted && (await jwtVerify(token, trusted, { algorithms: ["RS256", "ES256"] })).payload;
    } catch {
      return undefined;
    }
  }

  async function readOpaque(value: string): Promise<JWTPayload | undefined> {
    const token = (await provider.AccessToken.find(value)) ?? (await provider.ClientCredentials.find(value));
    if (!token) return undefined;
    const sub = "accountId" in token ? token.accountId : (token.clientId as string);
    return { iss: issuer, sub, scope: token.scope, ...token.extra };
  }

  async function interact(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
    if (prompt.name === "consent") return consent();
    if (request.method !== "POST") {
      const hint = typeof params.login_hint === "string" ? params.login_hint : "";
      return void response.writeHead(200, { "content-type": "text/html" }).end(signInPage(hint));
    }
    const accountId = new URLSearchParams(await text(request)).get("user") ?? "";
    return provider.interactionFinished(request, response, { login: { accountId } }, { mergeWithLastSubmission: false });

    async function consent(): Promise<void> {
      const known = grantId === undefined ? undefined : await provider.Grant.find(grantId);
      const owner = { clientId: String(params.client_id), accountId: session?.accountId as string };
      const grant = known ?? new provider.Grant(owner);
      const missing = prompt.details as MissingConsent;
      grant.addOIDCScope(missing.missingOIDCScope?.join(" ") ?? "");
      grant.addOIDCClaims(missing.missingOIDCClaims ?? []);
      for (const [resource, scopes] of Object.entries(missing.missingResourceScopes ?? {}))
        grant.addResourceScope(resource, scopes.join(" "));
      const result = { consent: { grantId: await grant.save() } };
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
    }
  }

  async function issue(wish: TokenWish): Promise<string> {
    const { sub: accountId, audience, scope, clientId, cnf } = wish;
    const client = await provider.Client.find(clientId);
    if (!client) throw new Error(`no client "${clientId}" is registered with ${issuer}`);
    const nowSeconds = Math.floor(Date.now() / 1_000);
    const exp = nowSeconds + wish.expiresInSeconds;
    // One that has ended was valid for an hour.
    const times = { exp, iat: wish.expiresInSeconds > 0 ? nowSeconds : exp - 3_600 };
    const token = new provider.AccessToken({ client, accountId, scope, gty: "test", grantId: "", ...times, ...cnf });
    if (audience !== undefined) {
      token.resourceServer = new provider.ResourceServer(audience, resourceServer(audience, wish));
    } else if (wish.format === "jwt") throw new Error("a JWT needs an audience");
    extras.set(token, wish.claims);
    return token.save();
  }

  const callback = provider.callback();
  return {
    listener: (request, response) => {
      if (!request.url?.startsWith("/interaction/")) return void callback(request, response);
      interact(request, response).catch((error: Error) => response.writeHead(400).end(error.message));
    },
    issue,
  };
}

interface ExchangeParams {
  readonly subject_token?: string;
  readonly subject_token_type?: string;
  readonly actor_token?: string;
  readonly actor_token_type?: string;
  readonly audience?: string | string[];
  readonly resource?: string | string[];
  readonly scope?: string;
  readonly requested_token_type?: string;
}

const exchangeParams = [
  "subject_token",
  "subject_token_type",
  "actor_token",
  "actor_token_type",
  "audience",
  "resource",
  "scope",
  "requested_token_type",
] as const satisfies readonly (keyof ExchangeParams)[];

interface SubjectClaims {
  readonly iss: string;
  readonly sub: string;
  readonly scope?: string;
  readonly act?: unknown;
}

interface MissingConsent {
  readonly missingOIDCScope?: readonly string[];
  readonly missingOIDCClaims?: string[];
  readonly missingResourceScopes?: Readonly<Record<string, readonly string[]>>;
}

function audienceOf(ctx: KoaContextWithOIDC, resource: string): string {
  const forced = ctx.get(audienceHeader);
  if (forced) return forced;
  return resource.startsWith(audienceUrn) ? decodeURIComponent(resource.slice(audienceUrn.length)) : resource;
}

const escapes: Readonly<Record<string, string>> = { "&": "&amp;", '"': "&quot;", "<": "&lt;" };

const signInPage = (user: string): string => `<!doctype html>
<title>Sign in</title>
<form method="post">
  <input id="user" name="user" value="${user.replace(/[&"<]/g, (found) => escapes[found] as string)}" autofocus>
  <button id="sign-in">Sign in</button>
</form>
`;
