// Virtual servers with what belongs to them, however it is declared.
import type { Backend } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { IncomingAuth } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import type { OutgoingAuth, OutgoingAuthStrategy } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { VirtualServer } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import type { Problem } from "../resources/problems.ts";

type Path = Problem["path"];

export interface Server {
  /** `virtualServers/dev`. */
  readonly resource: string;
  /** `dev`. */
  readonly id: string;
  readonly spec: VirtualServer;
  readonly backends: readonly Member[];
  readonly incomingAuth: Placed<IncomingAuth> | undefined;
  readonly outgoingAuth: Placed<OutgoingAuth> | undefined;
}

export interface Member {
  /** As in rules of the virtual server. */
  readonly name: string;
  /** `groups/g/backends/b`, or `virtualServers/v/backends/b`. */
  readonly fullName: string;
  readonly spec: Backend;
}

/** With the resource that holds it: the virtual server's own, or its policy's. */
export interface Placed<T> {
  readonly resource: string;
  readonly value: T;
}

/** Sorted by name. */
export function indexServers(resources: readonly Resource[]): Server[] {
  const policies = new Map(
    resources.flatMap(({ name, spec }) => (spec.case === "authPolicy" ? [[name, spec.value] as const] : [])),
  );
  return resources
    .flatMap(({ name: resource, spec }) => {
      if (spec.case !== "virtualServer") return [];
      const id = resource.slice("virtualServers/".length);
      const policyName = `authPolicies/${spec.value.authPolicyRef}`;
      const policy = policies.get(policyName);
      const [holder, auth] = policy ? [policyName, policy] : [resource, spec.value];
      const placed = <T>(value: T | undefined) => value && { resource: holder, value };
      const backends = membersOf(resource, spec.value, resources);
      return [
        {
          resource,
          id,
          spec: spec.value,
          backends,
          incomingAuth: placed(auth.incomingAuth),
          outgoingAuth: placed(auth.outgoingAuth),
        },
      ];
    })
    .sort((a, b) => (a.resource < b.resource ? -1 : 1));
}

/** What a backend is shown, and where that is said. Undefined: nothing. */
export function strategyOf(
  { outgoingAuth }: Server,
  backend: string,
): { strategy: OutgoingAuthStrategy; resource: string; path: Path } | undefined {
  if (outgoingAuth === undefined) return undefined;
  const { resource, value } = outgoingAuth;
  const own = value.backends[backend];
  const strategy = own ?? value.default;
  if (strategy === undefined || strategy.type === "" || strategy.type === "unauthenticated") return undefined;
  return { strategy, resource, path: ["outgoingAuth", ...(own ? ["backends", backend] : ["default"])] };
}

/** Every address where it listens. */
export function addressesOf({ url, endpoints }: Backend): string[] {
  return [...(url === "" ? [] : [url]), ...endpoints.map((endpoint) => endpoint.url)];
}

function membersOf(resource: string, { backends, groupRef }: VirtualServer, resources: readonly Resource[]): Member[] {
  if (backends.length > 0)
    return backends.map((spec) => ({ name: spec.name, fullName: `${resource}/backends/${spec.name}`, spec }));
  const prefix = `groups/${groupRef}/backends/`;
  return resources.flatMap(({ name, spec }) =>
    spec.case === "backend" && name.startsWith(prefix)
      ? [{ name: name.slice(prefix.length), fullName: name, spec: spec.value }]
      : [],
  );
}

/** A backend of a group is a resource; one of a virtual server is a part of it. */
export function placeOf(server: string, fullName: string): { resource: string; path: Path } {
  return fullName.startsWith("groups/")
    ? { resource: fullName, path: ["url"] }
    : { resource: server, path: ["backends", fullName.split("/").at(-1) ?? ""] };
}

/** Without what a secret may be. */
export function shownAddress(address: string): string {
  const url = URL.parse(address);
  return url === null ? "an address" : `${url.protocol}//${url.host}${url.pathname}`;
}
