// The two ends of an authorization request: the URL that a browser is sent to, and what it comes back with
// (RFC 6749 4.1, RFC 7636, RFC 9207).
import { createHash } from "node:crypto";
import { AuthorizationResponseError, validateAuthResponse } from "oauth4webapi";
import { type SignInServer, shown } from "./authorization-server.ts";
import { SignInError } from "./sign-in-error.ts";
import type { SignInState } from "./sign-in-seals.ts";

/** What both ends must agree on. */
export type Sent = Pick<SignInState, "clientId" | "redirectUri" | "verifier">;

/** `more`: further parameters; empty ones are left out. */
export function authorizationUrl(
  server: SignInServer,
  { clientId, redirectUri, verifier, state }: Sent & { readonly state: string },
  more: Readonly<Record<string, string>>,
): string {
  const url = new URL(server.authorization_endpoint);
  const parameters = {
    response_type: "code",
    client_id: clientId,
    redirect_uri: redirectUri,
    state,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    ...more,
  };
  for (const [name, value] of Object.entries(parameters)) if (value !== "") url.searchParams.set(name, value);
  return url.href;
}

/** The parameters with a code in them. Throws SignInError when there is none, or it is not from this server. */
export function readAuthorization(server: SignInServer, clientId: string, parameters: URLSearchParams): URLSearchParams {
  try {
    const read = validateAuthResponse(server, { client_id: clientId }, parameters, parameters.get("state") ?? "");
    if (!read.get("code")) throw new SignInError("server_answer", "the authorization response has no code");
    return read;
  } catch (error) {
    if (error instanceof SignInError) throw error;
    if (!(error instanceof AuthorizationResponseError))
      throw new SignInError("server_answer", `the authorization response is not good: ${(error as Error).message}`);
    throw new SignInError(
      error.error === "access_denied" ? "denied" : "server_answer",
      `the authorization server answered ${shown(error.error)}`,
    );
  }
}
