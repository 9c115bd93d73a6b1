// That the person in the browser is the caller who was given the link: else a link that is passed on would sign somebody else in at a
// backend, for the one who passed it on. Where callers come with tokens of an issuer, the person signs in there, too (OpenID Connect
// Core 1.0, 3.1), and is compared. MCP 2025-11-25, elicitation, URL mode: identifying the user.
import {
  allowInsecureRequests,
  authorizationCodeGrantRequest,
  clockTolerance,
  customFetch,
  getValidatedIdTokenClaims,
  processAuthorizationCodeResponse,
  validateApplicationLevelSignature,
} from "oauth4webapi";
import type { IncomingAuth, OidcConfig, OidcIssuer } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { createGuardedFetch } from "../outbound/guarded-fetch.ts";
import { authorizationUrl, readAuthorization } from "./authorization-request.ts";
import { findServer, type SignInServer } from "./authorization-server.ts";
import { readClient } from "./oauth-client.ts";
import { SignInError } from "./sign-in-error.ts";
import type { SignInState } from "./sign-in-seals.ts";

export interface CallerProof {
  /** Whether a browser can be shown to belong to a caller of this issuer. */
  isPossible(issuer: string): boolean;
  /** Where it is shown; undefined where the browser's own connection tells, as that of any client does. */
  at(issuer: string): CallerIssuer | undefined;
}

export interface CallerIssuer {
  readonly clientId: string;
  /** Rejects with DiscoveryError. */
  server(): Promise<SignInServer>;
  /** Where the browser goes. Rejects with DiscoveryError. */
  url(sent: SignInState, state: string): Promise<string>;
  /** `sub` of whoever signed in. Rejects with SignInError or DiscoveryError. */
  subjectOf(parameters: URLSearchParams, sent: SignInState): Promise<string>;
}

const nowhere: CallerProof = { isPossible: () => true, at: () => undefined };
const freshMs = 10 * 60_000;
const timeoutMs = 5_000;
const toleranceSeconds = 30;

/** Throws an Error fit for the operator when people can't sign in at the issuer of the callers. */
export function createCallerProof(incomingAuth: IncomingAuth | undefined): CallerProof {
  if (incomingAuth?.type !== "oidc") return nowhere;
  const { oidc } = incomingAuth;
  if (!oidc?.clientId)
    throw new Error("upstream_oauth needs incomingAuth.oidc.clientId: users prove with it that a sign-in is theirs");
  const issuers = new Map<string, CallerIssuer>();
  for (const config of [oidc, ...oidc.additionalIssuers]) if (config.clientId) issuers.set(config.issuer, createIssuer(config));
  return { isPossible: (issuer) => issuers.has(issuer), at: (issuer) => issuers.get(issuer) ?? unknown(issuer) };
}

function unknown(issuer: string): never {
  throw new SignInError("not_served", `callers of ${issuer} can't sign in with a browser`);
}

function createIssuer(config: OidcConfig | OidcIssuer): CallerIssuer {
  const { issuer, clientId, clientSecretEnv, clientSecretFile, insecureAllowHttp, jwksAllowPrivateIp, caBundlePath } = config;
  const secret = { clientSecret: "", clientSecretEnv, clientSecretFile };
  const key = { clientAuthMethod: "", privateKeyEnv: "", privateKeyFile: "", privateKeyId: "" };
  const { authenticate } = readClient({ clientId, ...secret, ...key });
  const client = { client_id: clientId, [clockTolerance]: toleranceSeconds };
  const ca = caBundlePath ? { caFile: caBundlePath } : {};
  const rules = { named: [issuer], allowPrivate: jwksAllowPrivateIp, allowHttp: insecureAllowHttp };
  const fetch = createGuardedFetch({ ...rules, timeoutMs, ...ca });
  const isHttpAllowed = insecureAllowHttp || /^http:\/\/(localhost|127\.\d+\.\d+\.\d+|\[::1\])([:/]|$)/.test(issuer);
  const options = { [customFetch]: fetch as never, [allowInsecureRequests]: isHttpAllowed };
  let known: { readonly server: Promise<SignInServer>; readonly untilMs: number } | undefined;

  function server(): Promise<SignInServer> {
    if (known && performance.now() < known.untilMs) return known.server;
    const found = findServer(issuer, { fetch, isHttpAllowed, isOpenid: true });
    const one = { server: found, untilMs: performance.now() + freshMs };
    found.catch(() => {
      if (known === one) known = undefined;
    });
    known = one;
    return found;
  }

  return {
    clientId,
    server,
    url: async (sent, state) => authorizationUrl(await server(), { ...sent, state }, { scope: "openid", nonce: sent.nonce }),
    async subjectOf(parameters, { clientId: sentAs, redirectUri, verifier, nonce }) {
      if (sentAs !== clientId) throw new SignInError("used", "the client at the issuer was changed meanwhile");
      const metadata = await server();
      const read = readAuthorization(metadata, clientId, parameters);
      try {
        const response = await authorizationCodeGrantRequest(
          metadata,
          client,
          authenticate,
          read,
          redirectUri,
          verifier,
          options,
        );
        const expected = { expectedNonce: nonce, requireIdToken: true };
        const answer = await processAuthorizationCodeResponse(metadata, client, response, expected);
        await validateApplicationLevelSignature(metadata, response, options);
        return getValidatedIdTokenClaims(answer)?.sub ?? "";
      } catch (error) {
        throw new SignInError("server_answer", `the issuer of the callers gave no good ID token: ${(error as Error).message}`);
      }
    },
  };
}
