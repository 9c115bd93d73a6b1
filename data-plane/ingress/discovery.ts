// Where clients learn how to get a token: one document per endpoint (RFC 9728; MCP 2025-11-25, authorization).
import type { IncomingMessage } from "node:http";
import { TLSSocket } from "node:tls";
import type { VirtualServer } from "../virtual-server.ts";

/** Before the path of the endpoint (RFC 9728 section 3.1). */
export const wellKnown = "/.well-known/oauth-protected-resource";

interface Public {
  readonly publicUrl: string | undefined;
}

interface Asked {
  readonly request: IncomingMessage;
}

/** The URL of a request as its client knows it, without the query. Host was checked before. */
export function urlOf(options: Public, asked: Asked): string {
  return baseOf(options, asked) + pathOf(asked.request);
}

/** Where the document of the endpoint is that a request was made to. */
export function metadataUrl(options: Public, asked: Asked): string {
  return metadataUrlOf(urlOf(options, asked));
}

/** The document of an endpoint, at this path of ours; undefined when there is nothing to discover. */
export function metadataOf(server: VirtualServer, path: string, options: Public & Asked): object | undefined {
  const { discovery } = server.auth;
  if (!discovery) return undefined;
  return {
    resource: discovery.resource ?? baseOf(options, options) + path,
    resource_name: server.name,
    authorization_servers: discovery.authorizationServers,
    ...(discovery.scopes.length > 0 ? { scopes_supported: discovery.scopes } : {}),
    bearer_methods_supported: ["header"],
    ...(discovery.dpopAlgorithms.length > 0 ? { dpop_signing_alg_values_supported: discovery.dpopAlgorithms } : {}),
  };
}

/** `https://host[:port]`: what the operator said, else what the client says. */
export function baseOf({ publicUrl }: Public, { request }: Asked): string {
  if (publicUrl !== undefined) return publicUrl;
  const scheme = request.socket instanceof TLSSocket ? "https" : "http";
  return `${scheme}://${request.headers.host ?? ""}`;
}

function metadataUrlOf(endpoint: string): string {
  const { origin, pathname } = new URL(endpoint);
  return origin + wellKnown + pathname;
}

/** Without the query. */
export function pathOf({ url = "/" }: IncomingMessage): string {
  const query = url.indexOf("?");
  return query < 0 ? url : url.slice(0, query);
}
