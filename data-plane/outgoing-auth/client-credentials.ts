// A token of the gateway's own (RFC 6749 4.4), the same for all callers.
import type { Credential, HeaderList } from "./credential.ts";
import { readClient } from "./oauth-client.ts";
import type { CreateCredential, StrategyTools } from "./strategy.ts";
import { createTokenEndpoint, type TokenEndpoint } from "./token-endpoint.ts";
import { createTokenLocation } from "./token-location.ts";
import { cacheKey, configDigest, createTokenSource } from "./token-source.ts";
import { type Target, targetOf } from "./token-target.ts";

export const clientCredentials: CreateCredential = ({ clientCredentials: block }, recipient, tools) => {
  if (!block) throw new Error("client_credentials needs its block");
  const { gates, nowMs } = tools;
  const { virtualServer, backend, resource, incomingAuth } = recipient;
  const log = tools.log.child({ virtualServer, backend, strategy: "client_credentials" });
  const client = readClient(block);
  if (!client.isConfidential) throw new Error("client_credentials needs a client secret or a private key");
  const location = createTokenLocation({ config: block, incomingAuth, nowMs });
  const endpoint = createTokenEndpoint({ location, client, gates, log, nowMs });
  const key = ["client", resource, location.name, configDigest(block)];
  const own = createOwnToken({ endpoint, target: targetOf(block), key, tools });
  return {
    show: own.show,
    refused: (_caller, shown) => own.refused(shown),
    contextOf: () => undefined,
    counters: tools.counters,
    clientHeaders: [],
    gatewayShows: "the same as callers",
  } satisfies Credential;
};

export interface OwnToken {
  /** As in Credential, for nobody in particular. */
  show(): HeaderList | Promise<HeaderList>;
  refused(shown: HeaderList): Promise<boolean>;
}

export interface OwnTokenOptions {
  readonly endpoint: TokenEndpoint;
  readonly target: Target;
  /** Everything that the token depends on. */
  readonly key: readonly string[];
  readonly tools: StrategyTools;
}

export function createOwnToken({ endpoint, target, key, tools }: OwnTokenOptions): OwnToken {
  const { keys, cache, counters, nowMs } = tools;
  const gateway = {};
  const tokens = createTokenSource({
    ...{ cache, counters, nowMs },
    keyOf: () => cacheKey(keys, key),
    endsMsOf: () => Number.POSITIVE_INFINITY,
    obtain: () => {
      const asked = { requestedType: undefined, audiences: target.audiences, subjectToken: undefined };
      return endpoint.request("client_credentials", target.parameters, asked);
    },
  });
  return { show: () => tokens.show(gateway), refused: (shown) => tokens.refused(gateway, shown) };
}
