// How the catalog of a backend is called: by the backend, and by everything that decides what it lists to the gateway. Another credential
// may see other tools, so what was listed with one is never given for what another would see.
import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type Backend, BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type OutgoingAuthStrategy, OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { type VirtualServer, VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { canonicalBytes } from "../canonical.ts";

const separator = "/catalogs/";

/** `{backend}/catalogs/{12 hex digits}`; `backend` and `server` as the snapshot has them. */
export function catalogName(name: string, backend: Backend, server: VirtualServer): string {
  const strategy = strategyOf(server, backend.name);
  const parts = [
    canonicalBytes(BackendSchema, { ...backend, url: "", endpoints: [] }), // it is the same wherever it is
    Buffer.from(server.passthroughHeaders.join(",").toLowerCase()),
    strategy ? canonicalBytes(OutgoingAuthStrategySchema, strategy) : new Uint8Array(),
    strategy && isOfIssuer(strategy) ? issuerBytes(server) : new Uint8Array(),
  ];
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${part.byteLength} `).update(part);
  return `${name}${separator}${hash.digest("hex").slice(0, 12)}`;
}

/** Whose it is. */
export function backendOfCatalog(catalog: string): string {
  return catalog.slice(0, Math.max(0, catalog.lastIndexOf(separator)));
}

function strategyOf({ outgoingAuth }: VirtualServer, backend: string): OutgoingAuthStrategy | undefined {
  if (!outgoingAuth) return undefined;
  return Object.hasOwn(outgoingAuth.backends, backend) ? outgoingAuth.backends[backend] : outgoingAuth.default;
}

/** The gateway's own token comes from where callers sign in, when nothing else is said. */
function isOfIssuer({ type }: OutgoingAuthStrategy): boolean {
  return type !== "unauthenticated" && type !== "header_injection" && type !== "pass_through";
}

function issuerBytes({ name, incomingAuth }: VirtualServer): Uint8Array {
  return canonicalBytes(VirtualServerSchema, create(VirtualServerSchema, { name, ...(incomingAuth && { incomingAuth }) }));
}
