// Strategy type → how it makes a credential.
import type { OutgoingAuthStrategy } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { NoCredentialError, type ShowCredential } from "./strategy.ts";

const strategies = new Map<string, (strategy: OutgoingAuthStrategy) => ShowCredential>([
  ["unauthenticated", () => async () => ({})],
]);

/**
 * The credential of a strategy; absent means unauthenticated, as in the original. A type without a row is not implemented:
 * its credential always fails, so that the backend is never contacted without what the operator asked for.
 */
export function credentialOf(strategy: OutgoingAuthStrategy | undefined): ShowCredential {
  if (!strategy) return async () => ({});
  const create = strategies.get(strategy.type);
  if (create) return create(strategy);
  return async () => {
    throw new NoCredentialError(`outgoing auth "${strategy.type}" is not part of this version, and it is not called without`);
  };
}
