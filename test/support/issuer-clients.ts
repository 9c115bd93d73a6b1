// The clients of a test issuer: how they are registered, and how a request is known to be one's.
import type { IncomingHttpHeaders } from "node:http";
import { decodeJwt, type JSONWebKeySet } from "jose";
import type { AdapterPayload, AllClientMetadata, ClientMetadata } from "oidc-provider";
import { exchangeGrant } from "./issuer-provider.ts";

export type ClientAuth = "basic" | "post" | "private_key_jwt" | "none";

export interface ClientProof {
  readonly clientAuth: ClientAuth;
  readonly clientId: string;
}

export interface IssuerClient {
  readonly id: string;
  readonly secret?: string;
  /** Public keys, for `private_key_jwt`. */
  readonly jwks?: JSONWebKeySet;
  /** Default: `basic` with a secret, `private_key_jwt` with keys, else `none`. */
  readonly auth?: ClientAuth;
  /** With one, it may use the code flow. */
  readonly redirectUris?: readonly string[];
  /** Further metadata, by its registered names; wins over the rest. */
  readonly metadata?: AllClientMetadata;
}

const authMethods = {
  basic: "client_secret_basic",
  post: "client_secret_post",
  private_key_jwt: "private_key_jwt",
  none: "none",
} as const;

/** Metadata of these, and of `caller`, which can do nothing. */
export function clientsOf(clients: readonly IssuerClient[] = []): ClientMetadata[] {
  const caller: IssuerClient = { id: "caller", metadata: { grant_types: [] } };
  const all = clients.some(({ id }) => id === caller.id) ? clients : [...clients, caller];
  return all.map((client) => {
    const { id, secret, jwks, redirectUris = [], metadata } = client;
    const auth = client.auth ?? (secret !== undefined ? "basic" : jwks !== undefined ? "private_key_jwt" : "none");
    const hasCodeFlow = redirectUris.length > 0;
    return {
      ...(secret === undefined ? {} : { client_secret: secret }),
      ...(jwks === undefined ? {} : { jwks: jwks as NonNullable<AllClientMetadata["jwks"]> }),
      token_endpoint_auth_method: authMethods[auth],
      redirect_uris: redirectUris,
      response_types: hasCodeFlow ? ["code"] : [],
      grant_types: [
        ...(hasCodeFlow ? ["authorization_code", "refresh_token"] : []),
        ...(auth === "none" ? [] : ["client_credentials"]),
        exchangeGrant,
      ],
      ...metadata,
      client_id: id,
    };
  });
}

const loopbackUrl = /^http:\/\/(127\.0\.0\.1|localhost)(:\d+)?\//;

/**
 * What the document at the URL says, if it is on loopback and may speak for itself: the provider itself fetches only from https, and from
 * no loopback address.
 */
export async function fetchClient(id: string): Promise<AdapterPayload | undefined> {
  if (!loopbackUrl.test(id)) return undefined;
  const response = await fetch(id, { redirect: "error", signal: AbortSignal.timeout(2_500) }).catch(() => undefined);
  if (response?.status !== 200) return undefined;
  const metadata = (await response.json().catch(() => undefined)) as AdapterPayload | undefined;
  const hasSecret = metadata?.client_secret !== undefined || metadata?.token_endpoint_auth_method?.startsWith("client_secret");
  return metadata?.client_id === id && !hasSecret ? metadata : undefined;
}

/** Who asks, and how they prove it. `clientId` is empty when they don't say. */
export function clientOf(headers: IncomingHttpHeaders, params: URLSearchParams): ClientProof {
  const [scheme, credentials = ""] = headers.authorization?.split(" ") ?? [];
  const clientId = params.get("client_id") ?? "";
  if (scheme?.toLowerCase() === "basic") {
    const [id = ""] = Buffer.from(credentials, "base64").toString().split(":");
    return { clientAuth: "basic", clientId: decodeURIComponent(id.replaceAll("+", "%20")) };
  }
  const assertion = params.get("client_assertion");
  if (assertion !== null) return { clientAuth: "private_key_jwt", clientId: subjectOf(assertion) ?? clientId };
  return { clientAuth: params.has("client_secret") ? "post" : "none", clientId };
}

function subjectOf(assertion: string): string | undefined {
  try {
    return decodeJwt(assertion).sub;
  } catch {
    return undefined;
  }
}
