// Incoming auth that believes what a test says.
import type { IncomingHttpHeaders } from "node:http";
import type { Authenticator } from "../../data-plane/incoming-auth/authenticator.ts";
import type { Caller } from "../../data-plane/incoming-auth/caller.ts";
import type { Identity } from "../../data-plane/incoming-auth/identity.ts";

/** A caller without a token. */
export const callerOf = (identity: Identity): Caller => ({ identity, token: undefined, scopes: new Set() });

/** Lets in whomever the headers name; nobody is 401. */
export const believing = (identityOf: (headers: IncomingHttpHeaders) => Identity | undefined): Authenticator => ({
  authenticate({ headers }) {
    const identity = identityOf(headers);
    if (identity) return { caller: callerOf(identity) };
    return { refusal: { status: 401, description: "authentication is required" } };
  },
  scopesFor: () => [],
  discovery: undefined,
});
