// One backend's side of a sign-in: where its users go, and what becomes of the code that they come back with.
import type { Log } from "../../common/log.ts";
import { authorizationUrl, readAuthorization } from "./authorization-request.ts";
import type { CallerProof } from "./caller-proof.ts";
import { NoCredentialError } from "./credential.ts";
import type { OauthClient } from "./oauth-client.ts";
import { SignInError } from "./sign-in-error.ts";
import type { SignInState, Ticket } from "./sign-in-seals.ts";
import type { Asked, Token } from "./token-answer.ts";
import type { TokenEndpoint } from "./token-endpoint.ts";
import type { UpstreamClients } from "./upstream-client.ts";
import type { Upstream, UpstreamDiscovery } from "./upstream-discovery.ts";
import { StoreDownError, type UserToken, unusedMs } from "./user-tokens.ts";

/** Which backend, of what. */
export interface SignInPlace {
  readonly virtualServer: string;
  /** Full resource name of the backend. */
  readonly resource: string;
  /** Its name within the virtual server. */
  readonly backend: string;
}

export interface UpstreamSignIn {
  readonly place: SignInPlace;
  readonly proof: CallerProof;
  /** Where users sign in, when it is asked for from pages at `base`. Rejects with SignInError or DiscoveryError. */
  destination(base: string): Promise<Destination>;
  /** Where the browser goes. Rejects with SignInError or DiscoveryError. */
  url(sent: SignInState, state: string): Promise<string>;
  /** Keeps the token of the ticket's user. Rejects with SignInError or DiscoveryError. */
  finish(parameters: URLSearchParams, sent: SignInState): Promise<void>;
}

export interface Destination {
  readonly issuer: string;
  readonly clientId: string;
  readonly authorizationEndpoint: string;
}

export interface UpstreamSignInOptions {
  readonly place: SignInPlace;
  readonly clients: UpstreamClients;
  readonly discovery: UpstreamDiscovery;
  readonly proof: CallerProof;
  readonly endpointOf: (client: OauthClient) => TokenEndpoint;
  /** Rejects with NoCredentialError. */
  readonly keep: (who: Pick<Ticket, "issuer" | "subject">, token: UserToken) => Promise<void>;
  readonly log: Log;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
}

export function createUpstreamSignIn(options: UpstreamSignInOptions): UpstreamSignIn {
  const { place, clients, discovery, proof, endpointOf, keep, nowMs } = options;

  /** As it was when the browser was sent there; anything else is begun anew. */
  async function same({ issuer, clientId }: SignInState): Promise<{ upstream: Upstream; client: OauthClient }> {
    const upstream = await discovery.find();
    const client = clients.known(clientId);
    if (upstream.server.issuer !== issuer || !client)
      throw new SignInError("used", "the authorization server or the client was changed meanwhile");
    return { upstream, client };
  }

  return {
    place,
    proof,
    async destination(base) {
      const { server } = await discovery.find();
      const client = clients.at(base, server);
      if (!client)
        throw new SignInError(
          "unregistered",
          `${server.issuer} takes no client id metadata documents from ${base}: register a client there with the redirect URI ${base}/oauth/callback, and set clientId`,
        );
      return { issuer: server.issuer, clientId: client.id, authorizationEndpoint: server.authorization_endpoint };
    },
    async url(sent, state) {
      const { server, resource, scopes } = (await same(sent)).upstream;
      return authorizationUrl(server, { ...sent, state }, { resource, scope: scopes.join(" ") });
    },
    async finish(parameters, sent) {
      const { upstream, client } = await same(sent);
      const code = readAuthorization(upstream.server, client.id, parameters).get("code") ?? "";
      const asked = [
        ["code", code],
        ["redirect_uri", sent.redirectUri],
        ["code_verifier", sent.verifier],
        ["resource", upstream.resource],
      ] as const;
      try {
        const token = await endpointOf(client).request("authorization_code", asked, askedFor(upstream));
        await keep(sent.ticket, userTokenOf(token, { issuer: sent.issuer, clientId: client.id, refresh: undefined, nowMs }));
      } catch (error) {
        if (error instanceof StoreDownError) throw new SignInError("store_down", error.message, { cause: error });
        if (error instanceof NoCredentialError) throw new SignInError("server_answer", error.message, { cause: error });
        throw error;
      }
    },
  };
}

/** What a token of a user must be like. One that says nothing of its end is good until the backend refuses it. */
export function askedFor({ resource }: Upstream): Asked {
  const audiences = [resource, resource.endsWith("/") ? resource.slice(0, -1) : `${resource}/`];
  return { requestedType: undefined, audiences, subjectToken: undefined, lifetimes: { maxMs: unusedMs, defaultMs: unusedMs } };
}

/** `refresh`: the refresh token that stays good when there is no new one (RFC 6749 6). */
export function userTokenOf(
  { text, endsMs, refreshToken }: Token,
  given: Pick<UserToken, "issuer" | "clientId" | "refresh"> & { readonly nowMs: () => number },
): UserToken {
  const { issuer, clientId, refresh, nowMs } = given;
  return { access: text, refresh: refreshToken ?? refresh, issuer, clientId, obtainedMs: nowMs(), endsMs };
}
