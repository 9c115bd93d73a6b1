// Incoming auth type → authenticator. A type without a row is not implemented: a snapshot that asks for it is refused,
// so that an endpoint is never served more openly than its operator declared.
import type { IncomingHttpHeaders } from "node:http";
import type { IncomingAuth } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import type { Identity } from "./identity.ts";

/** Headers of one request → who calls; undefined when the caller could not prove anything. */
export type Authenticate = (headers: IncomingHttpHeaders) => Identity | undefined;

const anonymous: Identity = { issuer: "vmcp-anonymous", subject: "anonymous", isAnonymous: true };

const authenticators = new Map<string, (config: IncomingAuth) => Authenticate>([["anonymous", () => () => anonymous]]);

/** The authenticator a virtual server declares; undefined when this proxy can't enforce the declaration. */
export function authenticatorOf(config: IncomingAuth | undefined): Authenticate | undefined {
  if (!config || (config.authz !== undefined && config.authz.type !== "none" && config.authz.type !== "")) return undefined;
  return authenticators.get(config.type)?.(config);
}
