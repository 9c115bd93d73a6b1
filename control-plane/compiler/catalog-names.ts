// How the catalog of a backend is called: by the backend, and by everything that decides what it lists to the gateway. Another credential
// may see other tools, so what was listed with one is never given for what another would see.
import { hash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Backend, BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type OutgoingAuthStrategy, OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { type VirtualServer, VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { canonicalBytes } from "../canonical.ts";

const separator = "/catalogs/";

/** Names the catalogs of one virtual server's backends, `{backend}/catalogs/{12 hex digits}`; all as the snapshot has them, and canonical. */
export function catalogNames(server: VirtualServer): (name: string, backend: Backend) => string {
  const passed = Buffer.from(server.passthroughHeaders.join(",").toLowerCase());
  const shown = new Map<OutgoingAuthStrategy | undefined, Uint8Array>();
  return (name, backend) => {
    const strategy = strategyOf(server, backend.name);
    const credential = shown.get(strategy) ?? credentialBytes(strategy, server);
    shown.set(strategy, credential);
    const placeless = toBinary(BackendSchema, { ...backend, url: "", endpoints: [] }); // it is the same wherever it is
    const sizes = Buffer.from(`${placeless.byteLength} ${passed.byteLength} `);
    const digest = hash("sha256", Buffer.concat([sizes, placeless, passed, credential]), "hex");
    return `${name}${separator}${digest.slice(0, 12)}`;
  };
}

/** Whose it is. */
export function backendOfCatalog(catalog: string): string {
  return catalog.slice(0, Math.max(0, catalog.lastIndexOf(separator)));
}

function strategyOf({ outgoingAuth }: VirtualServer, backend: string): OutgoingAuthStrategy | undefined {
  if (!outgoingAuth) return undefined;
  return Object.hasOwn(outgoingAuth.backends, backend) ? outgoingAuth.backends[backend] : outgoingAuth.default;
}

function credentialBytes(strategy: OutgoingAuthStrategy | undefined, { name, incomingAuth }: VirtualServer): Uint8Array {
  if (!strategy) return new Uint8Array();
  const bytes = canonicalBytes(OutgoingAuthStrategySchema, strategy);
  if (!isOfIssuer(strategy)) return bytes;
  const issuer = create(VirtualServerSchema, { name, ...(incomingAuth && { incomingAuth }) });
  return Buffer.concat([bytes, canonicalBytes(VirtualServerSchema, issuer)]);
}

/** The gateway's own token comes from where callers sign in, when nothing else is said. */
function isOfIssuer({ type }: OutgoingAuthStrategy): boolean {
  return type !== "unauthenticated" && type !== "header_injection" && type !== "pass_through";
}
