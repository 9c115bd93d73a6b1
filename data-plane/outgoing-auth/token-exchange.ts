// A token of the backend's for the caller's own (RFC 8693). The gateway itself gets in with a token of its own, if the token
// endpoint gives it one.
import { createHmac } from "node:crypto";
import type { TokenExchange } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import type { Caller, CallerToken } from "../incoming-auth/caller.ts";
import { encode } from "../mcp/encode.ts";
import { readSecret } from "../secrets.ts";
import { createOwnToken } from "./client-credentials.ts";
import { type Credential, type HeaderList, NoCredentialError, unavailable } from "./credential.ts";
import { readClient } from "./oauth-client.ts";
import type { CreateCredential } from "./strategy.ts";
import { tokenTypeOf } from "./token-answer.ts";
import { createTokenEndpoint, TokenRequestError } from "./token-endpoint.ts";
import { createTokenLocation } from "./token-location.ts";
import { cacheKey, configDigest, createTokenSource } from "./token-source.ts";
import { targetOf } from "./token-target.ts";

const grantType = "urn:ietf:params:oauth:grant-type:token-exchange";
/** How long the endpoint's word is taken for it that the gateway gets no token of its own. */
const refusalMs = 10 * 60_000;

type CallerWithToken = Caller & { readonly token: CallerToken };

export const tokenExchange: CreateCredential = ({ tokenExchange: block }, recipient, tools) => {
  if (!block) throw new Error("token_exchange needs its block");
  if (block.subjectProviderName)
    return unavailable("a token exchange for an upstream provider's token is not part of this version");
  const { log: parent, keys, gates, cache, counters, nowMs } = tools;
  const { virtualServer, backend, resource, incomingAuth } = recipient;
  const log = parent.child({ virtualServer, backend, strategy: "token_exchange" });
  const client = readClient(block);
  const location = createTokenLocation({ config: block, incomingAuth, nowMs });
  const endpoint = createTokenEndpoint({ location, client, gates, log, nowMs });
  readActor(block); // throws now what would throw at every exchange
  const requestedType = tokenTypeOf(block.requestedTokenType);
  const target = targetOf(block);
  const digest = configDigest(block);

  const tokens = createTokenSource<CallerWithToken>({
    ...{ cache, counters, nowMs },
    keyOf({ identity, token }) {
      const who = [identity.issuer, identity.subject, identity.client ?? "", token.digest];
      const what = [resource, block.audience, block.resource, [...block.scopes].sort().join(" "), requestedType];
      return cacheKey(keys, ["exchange", ...who, ...what, location.name, client.id, digest]);
    },
    endsMsOf: ({ token }) => token.expiresAtMs,
    async obtain({ token }) {
      if (token.expiresAtMs <= nowMs())
        throw new TokenRequestError("the caller's token has expired", { failure: "refused_caller" });
      const subjectToken = token.secret.reveal();
      const parameters: (readonly [string, string])[] = [
        ["subject_token", subjectToken],
        ["subject_token_type", tokenTypeOf(block.subjectTokenType)],
        ["requested_token_type", requestedType],
        ...target.parameters,
        ...readActor(block),
      ];
      return endpoint.request(grantType, parameters, { requestedType, audiences: target.audiences, subjectToken });
    },
  });

  const own = client.isConfidential
    ? createOwnToken({ endpoint, target, tools, key: ["own", resource, location.name, digest] })
    : undefined;
  let nobodyUntilMs = own ? 0 : Number.POSITIVE_INFINITY;
  const isNobody = (): boolean => nowMs() < nobodyUntilMs;

  function noteOwn(reason: string): void {
    if (!isNobody()) log.warn({ reason }, "the gateway gets no token of its own here; listings are made for each caller");
    nobodyUntilMs = nowMs() + refusalMs;
  }

  function noOwn(error: unknown): never {
    if (error instanceof TokenRequestError && error.isLasting) noteOwn(error.message);
    throw error;
  }

  function showOwn(): HeaderList | Promise<HeaderList> {
    if (!own || isNobody()) throw new NoCredentialError("this backend is only called for callers, who have tokens to exchange");
    const shown = own.show();
    return shown instanceof Promise ? shown.catch(noOwn) : shown;
  }

  const contexts = new WeakMap<Caller, string>();
  return {
    show(caller) {
      if (!caller) return showOwn();
      if (!caller.token) {
        counters.failed.no_subject = (counters.failed.no_subject ?? 0) + 1;
        throw new NoCredentialError("the caller showed no token that could be exchanged for one for this backend");
      }
      return tokens.show(caller as CallerWithToken);
    },
    async refused(caller, shown) {
      if (caller) return caller.token !== undefined && tokens.refused(caller as CallerWithToken, shown);
      if (!own) return false;
      const hasOther = await own.refused(shown);
      // It was refused as soon as it was there: the backend wants to know for whom it is.
      if (!hasOther) noteOwn("the backend does not accept it");
      return hasOther;
    },
    contextOf(caller) {
      if (!caller || !isNobody()) return undefined;
      const known = contexts.get(caller);
      if (known) return known;
      const { issuer, subject, client: app = "" } = caller.identity;
      // What a token allows is part of it: the token that is made of it may show less.
      const fields = encode("context/1", issuer, subject, app, ...[...caller.scopes].sort());
      const context = createHmac("sha256", keys.active.derive("outgoing-context")).update(fields).digest("base64url");
      contexts.set(caller, context);
      return context;
    },
    counters,
    clientHeaders: [],
    get gatewayShows() {
      return isNobody() ? "nobody" : "its own token";
    },
  } satisfies Credential;
};

/** Read for every exchange: such tokens are short-lived, and their files are written anew. */
function readActor({ actorTokenEnv: env, actorTokenFile: file, actorTokenType }: TokenExchange): [string, string][] {
  const actor = readSecret({ env, file })?.reveal();
  if (actor === undefined) return [];
  return [
    ["actor_token", actor],
    ["actor_token_type", tokenTypeOf(actorTokenType)],
  ];
}
