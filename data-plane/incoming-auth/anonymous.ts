// Everybody is let in, and everybody is one. What a client shows of itself is not looked at.
import type { Authenticator } from "./authenticator.ts";
import type { Caller } from "./caller.ts";

const caller: Caller = {
  identity: { issuer: "vmcp-anonymous", subject: "anonymous", isAnonymous: true },
  token: undefined,
  scopes: new Set(),
};

export const anonymous: Authenticator = {
  authenticate: () => ({ caller }),
  scopesFor: () => [],
  discovery: undefined,
};
