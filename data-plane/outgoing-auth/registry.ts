// Strategy type → how it makes a credential. A type without a row is not implemented: its backends are refused, never
// contacted without the credential the operator asked for.
import type { OutgoingAuthStrategy } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import type { ShowCredential } from "./strategy.ts";

const strategies: Readonly<Record<string, (strategy: OutgoingAuthStrategy) => ShowCredential>> = {
  unauthenticated: () => async () => ({}),
};

/** The credential of a strategy; undefined when the type is not implemented. Absent means unauthenticated, as in the original. */
export function credentialOf(strategy: OutgoingAuthStrategy | undefined): ShowCredential | undefined {
  if (!strategy) return async () => ({});
  return strategies[strategy.type]?.(strategy);
}
