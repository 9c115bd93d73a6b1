// Declared resources → the snapshot that proxies get. Pure: same resources, same bytes; no clock, no I/O.
import { clone, create, type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { resourceDigest, snapshotDigest } from "../../common/snapshot-digest.ts";
import {
  RevocationsSchema,
  type SnapshotResource,
  SnapshotResourceSchema,
  VirtualServerConfigSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type Backend, BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Revocation } from "../../proto/gen/vmcp/resource/v1/revocation_pb.ts";
import { type AuthPolicy, type VirtualServer, VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { canonical } from "../canonical.ts";
import { parseName } from "../resource-names.ts";
import type { Problem } from "../resources/problems.ts";
import { catalogNames } from "./catalog-names.ts";
import { aggregationWithDefaults, backendWithDefaults, operationalWithDefaults, outgoingAuthWithDefaults } from "./defaults.ts";
import { stripSecrets } from "./secrets.ts";

export interface Compiled {
  /** Sorted by name; only what a virtual server needs, and the revocations when there are any. */
  readonly resources: readonly SnapshotResource[];
  /** As the proxies recompute it. */
  readonly digest: Uint8Array;
  /** Of all bodies together, but for the catalogs. */
  readonly bytes: number;
  /** Names that catalogs have which the snapshot may hold. */
  readonly catalogs: ReadonlySet<string>;
  /** Those that are known and find no room in it. */
  readonly leftOut: readonly string[];
  /** What the operator should know; of severity `warning` only. */
  readonly warnings: readonly Problem[];
}

// What backends say of themselves leaves room for what operators declare.
const catalogBytesMax = 8 * 1024 * 1024;

/**
 * Expects resources that passed validation; a reference that leads nowhere compiles to nothing. References are resolved and
 * defaults filled in, so that a proxy needs nothing but the snapshot.
 */
export function compile(resources: readonly Resource[], known: ReadonlyMap<string, SnapshotResource> = new Map()): Compiled {
  const declared = index(resources);
  const compiled = new Map<string, SnapshotResource>();
  const warnings: Problem[] = [];
  const catalogs = new Set<string>();
  for (const [id, server] of declared.virtualServers) {
    const spec = resolved(server, declared);
    spec.name ||= id;
    const name = `virtualServers/${id}`;
    for (const path of stripSecrets(spec.outgoingAuth ?? outgoingAuthWithDefaults(undefined))) {
      warnings.push({ severity: "warning", resource: name, path, ...literalCredential });
    }
    const catalogOf = catalogNames(spec);
    const config = create(VirtualServerConfigSchema, { spec });
    for (const [backendName, declaredBackend] of backendsOf({ id, server, declared })) {
      const backend = canonical(BackendSchema, backendWithDefaults(backendName, declaredBackend));
      if (!compiled.has(backendName)) compiled.set(backendName, encoded(backendName, BackendSchema, backend));
      const catalog = catalogOf(backendName, backend);
      config.backends.push(backendName);
      config.catalogs.push(catalog);
      catalogs.add(catalog);
    }
    compiled.set(name, snapshotResource(name, VirtualServerConfigSchema, config));
  }
  if (declared.revocations.length > 0) compiled.set("revocations", compiledRevocations(declared.revocations));
  const bytes = bytesOf([...compiled.values()]);
  const { taken, leftOut } = fitting([...catalogs].sort().flatMap((name) => known.get(name) ?? []));
  const sorted = [...compiled.values(), ...taken].sort((a, b) => (a.name < b.name ? -1 : 1));
  return { resources: sorted, digest: snapshotDigest(sorted), bytes, catalogs, leftOut, warnings };
}

/** As many as there is room for, the same ones every time. */
function fitting(catalogs: readonly SnapshotResource[]): { readonly taken: SnapshotResource[]; readonly leftOut: string[] } {
  const taken: SnapshotResource[] = [];
  const leftOut: string[] = [];
  let bytes = 0;
  for (const one of catalogs) {
    const size = bytesOf([one]);
    if (bytes + size > catalogBytesMax) leftOut.push(one.name);
    else {
      taken.push(one);
      bytes += size;
    }
  }
  return { taken, leftOut };
}

function bytesOf(resources: readonly SnapshotResource[]): number {
  return resources.reduce((sum, { body }) => sum + (body?.value.byteLength ?? 0), 0);
}

const literalCredential = {
  message: "a literal credential is not sent to the proxies of a mesh; only `vmcp serve` uses it",
  hint: "name an environment variable or a file of the proxy instead",
};

interface Declared {
  readonly virtualServers: ReadonlyMap<string, VirtualServer>;
  readonly authPolicies: ReadonlyMap<string, AuthPolicy>;
  /** Group → its backends' full names and specs. */
  readonly groups: ReadonlyMap<string, readonly (readonly [string, Backend])[]>;
  readonly revocations: readonly DeclaredRevocation[];
}

interface DeclaredRevocation {
  readonly name: string;
  /** Revision of the commit that made it. */
  readonly epoch: bigint;
  readonly spec: Revocation;
}

function index(resources: readonly Resource[]): Declared {
  const virtualServers = new Map<string, VirtualServer>();
  const authPolicies = new Map<string, AuthPolicy>();
  const groups = new Map<string, [string, Backend][]>();
  const revocations: DeclaredRevocation[] = [];
  for (const { name, spec, revision } of resources) {
    const parsed = parseName(name);
    if (parsed === undefined) continue;
    if (spec.case === "virtualServer") virtualServers.set(parsed.id, spec.value);
    else if (spec.case === "authPolicy") authPolicies.set(parsed.id, spec.value);
    else if (spec.case === "revocation") revocations.push({ name, epoch: revision, spec: spec.value });
    else if (spec.case === "backend" && parsed.group !== undefined) {
      const members = groups.get(parsed.group) ?? [];
      groups.set(parsed.group, members);
      members.push([name, spec.value]);
    }
  }
  return { virtualServers, authPolicies, groups, revocations };
}

function compiledRevocations(revocations: readonly DeclaredRevocation[]): SnapshotResource {
  const sorted = [...revocations].sort((a, b) => Number(a.epoch - b.epoch) || (a.name < b.name ? -1 : 1));
  const entries = sorted.map(({ epoch, spec: { session, issuer, subject, all, virtualServer } }) => {
    return { epoch, session, issuer, subject, all, virtualServer };
  });
  return snapshotResource("revocations", RevocationsSchema, create(RevocationsSchema, { entries }));
}

/** Full names and specs, sorted by the last segment: the order in which clients see them. */
function backendsOf(options: { id: string; server: VirtualServer; declared: Declared }): (readonly [string, Backend])[] {
  const { id, server, declared } = options;
  const own = server.backends.map((backend) => [`virtualServers/${id}/backends/${backend.name}`, backend] as const);
  const members = own.length > 0 ? own : (declared.groups.get(server.groupRef) ?? []);
  return [...members].sort(([a], [b]) => (lastSegment(a) < lastSegment(b) ? -1 : 1));
}

function resolved(server: VirtualServer, declared: Declared): VirtualServer {
  const spec = clone(VirtualServerSchema, server);
  const policy = declared.authPolicies.get(server.authPolicyRef);
  if (policy) {
    spec.incomingAuth = policy.incomingAuth;
    spec.outgoingAuth = policy.outgoingAuth;
  }
  spec.backends = [];
  spec.aggregation = aggregationWithDefaults(spec.aggregation);
  spec.operational = operationalWithDefaults(spec.operational);
  spec.outgoingAuth = outgoingAuthWithDefaults(spec.outgoingAuth);
  return spec;
}

function snapshotResource<D extends DescMessage>(name: string, schema: D, message: MessageShape<D>): SnapshotResource {
  return encoded(name, schema, canonical(schema, message));
}

function encoded<D extends DescMessage>(name: string, schema: D, message: MessageShape<D>): SnapshotResource {
  const value = toBinary(schema, message);
  const body = { typeUrl: `type.googleapis.com/${schema.typeName}`, value };
  return create(SnapshotResourceSchema, { name, digest: resourceDigest(value), body });
}

function lastSegment(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}
