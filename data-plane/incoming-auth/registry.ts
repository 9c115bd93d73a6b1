// Incoming auth type → authenticator. A type without a row is not implemented: a snapshot that asks for it is refused,
// so that an endpoint is never served more openly than its operator declared.
import type { Log } from "../../common/log.ts";
import type { IncomingAuth } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { anonymous } from "./anonymous.ts";
import type { Authenticator } from "./authenticator.ts";
import { createLocal } from "./local.ts";
import { createOidc } from "./oidc.ts";

/** Makes authenticators. One configuration has one, so that what it has learned outlives snapshots. */
export interface Authenticators {
  /** Throws an Error fit for the operator when this proxy can't enforce what is declared. */
  of(config: IncomingAuth | undefined): Authenticator;
}

export interface AuthenticatorOptions {
  readonly log: Log;
  /** Other machines reach this proxy. Default false. */
  readonly isExposed?: boolean;
}

type Create = (config: IncomingAuth, options: AuthenticatorOptions) => Authenticator;

const types = new Map<string, Create>([
  ["anonymous", openToAll],
  ["local", () => createLocal()],
  ["oidc", ({ oidc }, options) => createOidc(oidc, options)],
]);

function openToAll(_config: IncomingAuth, { log, isExposed = false }: AuthenticatorOptions): Authenticator {
  if (isExposed) log.warn("incoming auth is anonymous, and other machines reach this proxy: everybody there may call everything");
  return anonymous;
}

const keptMax = 256;

export function createAuthenticators(options: AuthenticatorOptions): Authenticators {
  const kept = new Map<string, Authenticator>();
  return {
    of(config) {
      const create = types.get(config?.type ?? "");
      if (!config || !create) throw refusal(`incoming auth "${config?.type ?? ""}"`);
      if (config.authz !== undefined && config.authz.type !== "none" && config.authz.type !== "")
        throw refusal(`authz "${config.authz.type}"`);
      const key = JSON.stringify(config, (_name, value) => (typeof value === "bigint" ? String(value) : value));
      const existing = kept.get(key);
      const authenticator = existing ?? create(config, options);
      kept.delete(key);
      kept.set(key, authenticator);
      if (kept.size > keptMax) kept.delete(kept.keys().next().value as string);
      return authenticator;
    },
  };
}

function refusal(what: string): Error {
  return new Error(`${what} is not supported by this proxy, and it does not serve the endpoint without`);
}
