// Every user's own token, for which they signed in at the backend's authorization server (RFC 6749 4.1, RFC 7636; MCP 2025-11-25,
// authorization). Who has none is told where to sign in. The gateway itself gets in with a token of its own, if it is given one.
import { randomUUID } from "node:crypto";
import type { Caller } from "../incoming-auth/caller.ts";
import type { Identity } from "../incoming-auth/identity.ts";
import { createCallerProof } from "./caller-proof.ts";
import { type Credential, type HeaderList, NoCredentialError, SignInNeededError } from "./credential.ts";
import type { OauthClient } from "./oauth-client.ts";
import { createSignInSeals, ticketMs } from "./sign-in-seals.ts";
import type { CreateCredential } from "./strategy.ts";
import { createTokenEndpoint, type TokenEndpoint } from "./token-endpoint.ts";
import { cacheKey, configDigest } from "./token-source.ts";
import { createUpstreamClients } from "./upstream-client.ts";
import { createUpstreamDiscovery, type Upstream } from "./upstream-discovery.ts";
import { createUpstreamOwnToken, noOwnToken } from "./upstream-own-token.ts";
import { askedFor, createUpstreamSignIn, userTokenOf } from "./upstream-sign-in.ts";
import { createUserTokenSource } from "./user-token-source.ts";
import { userTokenKey } from "./user-tokens.ts";

const pendingMax = 20_000;
/** A link is given out again while there is so much time left to follow it. */
const linkLeftMs = 5 * 60_000;
const noteMs = 10 * 60_000;
const contextOf = (caller: Caller | undefined): string | undefined => caller && userOf(caller.identity);

export const upstreamOauth: CreateCredential = ({ upstreamOauth: block }, recipient, tools) => {
  if (!block) throw new Error("upstream_oauth needs its block");
  const { virtualServer, backend, resource, url = "" } = recipient;
  const { keys, counters, gates, nowMs, signIns, publicUrl } = tools;
  const log = tools.log.child({ virtualServer, backend, strategy: "upstream_oauth" });
  const clients = createUpstreamClients(block);
  const discovery = createUpstreamDiscovery({ backendUrl: url, config: block, nowMs });
  const proof = createCallerProof(recipient.incomingAuth);
  const seals = createSignInSeals({ keys, nowMs });
  if (recipient.incomingAuth?.type === "anonymous")
    log.warn("nobody is asked who they are, so all callers share what one of them signs in to");

  // One per client: all that is asked at the server is asked through here.
  const endpoints = new Map<string, TokenEndpoint>();
  function endpointOf(client: OauthClient): TokenEndpoint {
    const existing = endpoints.get(client.id);
    if (existing) return existing;
    const { fetch, isHttpAllowed, doubt } = discovery;
    const find = async () => {
      const { issuer, token_endpoint } = (await discovery.find()).server;
      return { url: token_endpoint, issuer, isHttpAllowed };
    };
    const location = { name: block?.issuer || url, find, doubt, fetch };
    const endpoint = createTokenEndpoint({ location, client, gates, log, nowMs });
    endpoints.set(client.id, endpoint);
    if (endpoints.size > 16) endpoints.delete(endpoints.keys().next().value as string);
    return endpoint;
  }

  const users = createUserTokenSource({
    ...{ store: tools.userTokens, nowMs },
    isOurs: ({ issuer }) => discovery.known === undefined || discovery.known.server.issuer === issuer,
    async renew({ refresh, issuer, clientId }) {
      const client = clients.known(clientId);
      const upstream = await find();
      if (!client || upstream.server.issuer !== issuer) return undefined;
      const parameters = [["refresh_token", refresh] as const, ["resource", upstream.resource] as const];
      const token = await endpointOf(client).request("refresh_token", parameters, askedFor(upstream));
      counters.obtained++;
      return userTokenOf(token, { issuer, clientId, refresh, nowMs });
    },
  });

  async function find(): Promise<Upstream> {
    try {
      return await discovery.find();
    } catch (error) {
      note((error as Error).message);
      throw new NoCredentialError("where its users sign in can't be found out right now", { fault: "temporary", cause: error });
    }
  }

  let noted = { reason: "", untilMs: 0 };
  function note(reason: string): void {
    if (reason === noted.reason && nowMs() < noted.untilMs) return;
    noted = { reason, untilMs: nowMs() + noteMs };
    log.warn({ reason }, "where users sign in can't be found out");
  }

  // What the operator says decides where a token is kept; which server gave it stands in the token, as it may not be known yet.
  const written = [resource, url, block.issuer, block.resource, block.clientId, [...block.scopes].sort().join(" ")];
  const keyOf = ({ issuer, subject }: Pick<Identity, "issuer" | "subject">): string =>
    userTokenKey(keys, [issuer, subject, ...written]);

  const pending = new Map<string, { readonly error: SignInNeededError; readonly base: string; readonly untilMs: number }>();
  /** What the caller is told; the same while the link is good. */
  function signInNeeded({ issuer, subject }: Identity, user: string, base: string | undefined): NoCredentialError {
    if (!proof.isPossible(issuer))
      return new NoCredentialError("its users have to sign in, and callers of this issuer can't do that here");
    if (base === undefined)
      return new NoCredentialError("its users have to sign in, and the gateway does not know where it can be visited");
    const known = pending.get(user);
    if (known?.base === base && nowMs() < known.untilMs - linkLeftMs) return known.error;
    const elicitationId = known && nowMs() < known.untilMs ? known.error.elicitationId : randomUUID();
    const ticket = seals.sealTicket({ issuer, subject, virtualServer, resource, elicitationId });
    if (ticket === undefined)
      return new NoCredentialError("its users have to sign in, and this caller's name is too long for that");
    const error = new SignInNeededError("its users have to sign in first", {
      url: `${base}/oauth/connect/${ticket}`,
      elicitationId,
    });
    pending.delete(user);
    pending.set(user, { error, base, untilMs: nowMs() + ticketMs });
    if (pending.size > pendingMax) pending.delete(pending.keys().next().value as string);
    return error;
  }

  async function get(identity: Identity, user: string, base: string | undefined): Promise<HeaderList> {
    const shown = await users.get(user, keyOf(identity));
    if (!shown) throw signInNeeded(identity, user, base);
    pending.delete(user);
    return shown;
  }

  const { registered } = clients;
  const own = registered?.isConfidential
    ? createUpstreamOwnToken({
        ...{ tools, log },
        key: () => cacheKey(keys, ["upstream-own", resource, url, configDigest(block)]),
        async obtain() {
          const upstream = await find();
          const scope = upstream.scopes.join(" ");
          const parameters = [["resource", upstream.resource] as const, ...(scope ? [["scope", scope] as const] : [])];
          const { lifetimes: _, ...asked } = askedFor(upstream);
          return endpointOf(registered).request("client_credentials", parameters, asked);
        },
      })
    : noOwnToken;

  const signIn = createUpstreamSignIn({
    ...{ place: { virtualServer, resource, backend }, clients, discovery, proof, log, nowMs },
    endpointOf,
    async keep(who, token) {
      const user = userOf(who);
      await users.put(user, keyOf(who), token);
      pending.delete(user);
    },
  });

  const credential: Credential = {
    show(caller, clientHeaders) {
      if (!caller) return own.show();
      const { identity } = caller;
      const user = userOf(identity);
      const found = users.find(user, () => keyOf(identity));
      if (found) {
        counters.memoryHits++;
        return found;
      }
      counters.misses++;
      // Host was checked when the request came in.
      const host = clientHeaders?.host;
      return get(identity, user, publicUrl ?? (host === undefined ? undefined : `http://${host}`));
    },
    async refused(caller, shown, challenge) {
      counters.backendRefusals++;
      discovery.learn(challenge);
      try {
        if (caller) return await users.refused(userOf(caller.identity), keyOf(caller.identity), shown);
      } catch {
        return false; // what is wrong is said when the next one is to be shown
      }
      return own.refused(shown);
    },
    contextOf,
    counters,
    clientHeaders: ["host"],
    canSignIn: true,
    get gatewayShows() {
      return own.isNobody ? "nobody" : "its own token";
    },
  };
  signIns.offer(credential, signIn);
  return credential;
};

/** Names a user; no two users are one. */
function userOf({ issuer, subject }: Pick<Identity, "issuer" | "subject">): string {
  return `${issuer.length} ${issuer} ${subject}`;
}
