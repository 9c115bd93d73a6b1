// Keeps literal credentials out of snapshots, which proxies write to disk. References to the environment and to files stay.
import type { OutgoingAuth, OutgoingAuthStrategy } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";

type Path = readonly string[];

/** Blanks every literal credential in place; returns the paths of the fields that held one, from the virtual server's spec. */
export function stripSecrets(auth: OutgoingAuth): Path[] {
  const backends = Object.entries(auth.backends).sort(([a], [b]) => (a < b ? -1 : 1));
  return [
    ...(auth.default ? stripStrategy(auth.default, ["outgoingAuth", "default"]) : []),
    ...backends.flatMap(([backend, strategy]) => stripStrategy(strategy, ["outgoingAuth", "backends", backend])),
  ];
}

function stripStrategy(strategy: OutgoingAuthStrategy, path: Path): Path[] {
  const { headerInjection, tokenExchange, clientCredentials, upstreamOauth, xaa, obo } = strategy;
  return [
    ...blank(headerInjection, "headerValue", [...path, "headerInjection"]),
    ...blank(tokenExchange, "clientSecret", [...path, "tokenExchange"]),
    ...blank(clientCredentials, "clientSecret", [...path, "clientCredentials"]),
    ...blank(upstreamOauth, "clientSecret", [...path, "upstreamOauth"]),
    ...blank(xaa, "idpClientSecret", [...path, "xaa"]),
    ...blank(xaa, "targetClientSecret", [...path, "xaa"]),
    ...blank(obo, "clientSecret", [...path, "obo"]),
  ];
}

function blank<K extends string>(block: Partial<Record<K, string>> | undefined, key: K, path: Path): Path[] {
  if (!block?.[key]) return [];
  block[key] = "";
  return [[...path, key]];
}
