// Who we are to a backend's authorization server: the client that the operator registered there, else one that a document of ours
// describes (client id metadata documents, draft-ietf-oauth-client-id-metadata-document; MCP 2025-11-25, client registration).
import { None } from "oauth4webapi";
import type { SignInServer } from "./authorization-server.ts";
import { type ClientConfig, type OauthClient, readClient } from "./oauth-client.ts";

export const documentPath = "/oauth/client.json";
export const callbackPath = "/oauth/callback";

export interface UpstreamClients {
  /** For a new sign-in, from pages at `base`; undefined when there is none: it has to be registered. */
  at(base: string | undefined, server: SignInServer): OauthClient | undefined;
  /** That a token was given to; undefined when we are that client no more. */
  known(clientId: string): OauthClient | undefined;
  /** That the operator registered. */
  readonly registered: OauthClient | undefined;
}

/** Throws an Error fit for the operator when a secret can't be read. */
export function createUpstreamClients(config: ClientConfig): UpstreamClients {
  const registered = config.clientId ? readClient(config) : undefined;
  return {
    registered,
    at(base, server) {
      if (registered) return registered;
      if (base === undefined || server.client_id_metadata_document_supported !== true || !isPublishable(base)) return undefined;
      return documentClient(base + documentPath);
    },
    known(clientId) {
      if (registered) return clientId === registered.id ? registered : undefined;
      return clientId.endsWith(documentPath) ? documentClient(clientId) : undefined;
    },
  };
}

function documentClient(id: string): OauthClient {
  return { id, method: "none", isConfidential: false, authenticate: None(), secret: undefined };
}

/** The document that the client id of proxies at `base` stands for. */
export function clientDocument(base: string): object {
  return {
    client_id: base + documentPath,
    client_name: "vmcp",
    redirect_uris: [base + callbackPath],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  };
}

/** Plain http only where nobody but this machine would look it up. */
function isPublishable(base: string): boolean {
  return base.startsWith("https://") || /^http:\/\/(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(base);
}
