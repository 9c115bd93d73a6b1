// Who may call what: one row for each method. A method without a row is refused, and does not compile.
// A row says which role it takes, and, for roles that are bound to groups, which groups the request is about.
import { create, type DescService, equals, type MessageShape } from "@bufbuild/protobuf";
import { Health } from "../../proto/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../proto/gen/grpc/reflection/v1/reflection_pb.ts";
import { AdminService } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { TrustService } from "../../proto/gen/vmcp/admin/v1/trust_pb.ts";
import { DiscoveryService } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { EnrolmentService } from "../../proto/gen/vmcp/enrolment/v1/enrolment_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { type VirtualServer, VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { parseName } from "../resource-names.ts";
import type { Changed } from "../store/store.ts";
import type { Role } from "../trust/bindings.ts";

/**
 * `anyone` is for what proves itself in the request. `authenticated`: any person, role or not. `proxy`: a proxy, which is who it says.
 * `change`: whoever may change anything; what exactly, `rightsFor` says of each change.
 */
export type Who = "anyone" | "authenticated" | "proxy" | "change" | Role;

export interface Row<Request> {
  readonly who: Who;
  /** Groups that the request is about; undefined for everything. */
  readonly group?: (request: Request) => string | undefined;
  /** With `change`: the role that changes what is no policy. */
  readonly by?: Role;
  /** With `proxy`: the name that the request claims; undefined when it claims none. */
  readonly name?: (request: Request) => string | undefined;
}

type Rows<S extends DescService> = { readonly [M in keyof S["method"]]: Row<MessageShape<S["method"][M]["input"]>> };

const admin = {
  applyResources: { who: "change", by: "editor" },
  // As an apply, so that a diff shows nobody what he could not change.
  diffResources: { who: "change", by: "editor" },
  analyzeConfig: { who: "viewer" },
  explainRoute: { who: "viewer" },
  fetchSnapshot: { who: "viewer" },
  createResource: { who: "change", by: "editor" },
  updateResource: { who: "change", by: "editor" },
  deleteResource: { who: "change", by: "editor" },
  rollbackResources: { who: "change", by: "operator" },
  revokeSessions: { who: "operator" },
  getResource: { who: "viewer", group: ({ name }) => groupOf(name) },
  listResources: { who: "viewer", group: ({ group }) => group || undefined },
  watchResources: { who: "viewer" },
  listProxies: { who: "viewer" },
  watchProxies: { who: "viewer" },
  drainProxy: { who: "operator" },
  tapCalls: { who: "operator", group: ({ filter }) => filter?.group || undefined },
  sumCalls: { who: "operator", group: ({ filter }) => filter?.group || undefined },
  getRollout: { who: "viewer" },
  listView: { who: "viewer" },
  listTools: { who: "viewer" },
  approveTools: { who: "security-admin" },
  listProviders: { who: "viewer" },
  listSessions: { who: "viewer" },
  listRevisions: { who: "viewer" },
  getRevision: { who: "viewer" },
  listAuditEvents: { who: "security-admin" },
  verifyAudit: { who: "security-admin" },
  getServerInfo: { who: "authenticated" },
} satisfies Rows<typeof AdminService>;

const trust = {
  createEnrolmentToken: { who: "security-admin" },
  listEnrolmentTokens: { who: "security-admin" },
  deleteEnrolmentToken: { who: "security-admin" },
  listCertificates: { who: "security-admin" },
  revokeCertificates: { who: "security-admin" },
  // Whoever makes a certificate of a name has the roles of that name.
  issueOperatorCertificate: { who: "admin" },
  // That `admin` is given and taken by admins only, is looked at where the binding is known.
  createRoleBinding: { who: "security-admin" },
  listRoleBindings: { who: "security-admin" },
  deleteRoleBinding: { who: "security-admin" },
  whoAmI: { who: "authenticated" },
} satisfies Rows<typeof TrustService>;

const discovery = {
  streamSnapshots: {
    who: "proxy",
    name: ({ message }) => (message.case === "hello" ? (message.value.node?.id ?? "") : undefined),
  },
} satisfies Rows<typeof DiscoveryService>;

const enrolment = { enrol: { who: "anyone" } } satisfies Rows<typeof EnrolmentService>;
const health = { check: { who: "authenticated" }, watch: { who: "authenticated" } } satisfies Rows<typeof Health>;
const reflection = { serverReflectionInfo: { who: "admin" } } satisfies Rows<typeof ServerReflection>;

const table: ReadonlyMap<string, Row<never>> = new Map([
  ...rowsOf(AdminService, admin),
  ...rowsOf(TrustService, trust),
  ...rowsOf(DiscoveryService, discovery),
  ...rowsOf(EnrolmentService, enrolment),
  ...rowsOf(Health, health),
  ...rowsOf(ServerReflection, reflection),
]);

/** By full method, as `/vmcp.admin.v1.AdminService/GetResource`. Undefined: nobody may. */
export function rowOf(path: string): Row<unknown> | undefined {
  return table.get(path) as Row<unknown> | undefined;
}

function rowsOf<S extends DescService>(service: S, rows: Readonly<Record<string, Row<never>>>): [string, Row<never>][] {
  return service.methods.flatMap(({ localName, name }) => {
    const row = rows[localName];
    return row === undefined ? [] : [[`/${service.typeName}/${name}`, row] as [string, Row<never>]];
  });
}

/** What each role includes besides itself. */
const includes: Readonly<Record<Role, readonly Role[]>> = {
  viewer: [],
  operator: ["viewer"],
  editor: ["viewer"],
  "security-admin": ["viewer"],
  admin: ["viewer", "operator", "editor", "security-admin"],
};

/** A role, in one group or, with undefined, everywhere. */
export interface Right {
  readonly role: Role;
  readonly group: string | undefined;
}

/** Whether one of these bindings gives it. */
export function gives(bindings: readonly { readonly role: Role; readonly group: string }[], { role, group }: Right): boolean {
  return bindings.some(
    (one) => (one.role === role || includes[one.role].includes(role)) && (one.group === "" || one.group === group),
  );
}

/** Any of these, anywhere, is enough to try a change. */
export const changingRoles: readonly Role[] = ["editor", "operator", "security-admin"];

/** All that a change takes. `by` is the role for what is no policy and no revocation. What alters nothing is only seen. */
export function rightsFor({ name, before, after }: Changed, by: Role): Right[] {
  if (before !== undefined && before === after)
    return [{ role: "viewer", group: virtualServerOf(before)?.groupRef || groupOf(name) }];
  switch (parseName(name)?.kind) {
    case "groups":
    case "backends":
      return [{ role: by, group: groupOf(name) }];
    case "revocations":
      return [{ role: "operator", group: undefined }];
    case "virtualServers": {
      const [was, becomes] = [virtualServerOf(before), virtualServerOf(after)];
      const groups = [was, becomes].flatMap((one) => (one ? [one.groupRef || undefined] : []));
      const asEditor = [...new Set(groups)].map((group) => ({ role: by, group }));
      // Whoever makes one decides who may call it, and who takes it away lets nobody in.
      const keepsPolicy = becomes === undefined || (was !== undefined && hasSamePolicy(was, becomes));
      return keepsPolicy ? asEditor : [...asEditor, { role: "security-admin", group: undefined }];
    }
    default:
      return [{ role: "security-admin", group: undefined }];
  }
}

function virtualServerOf(resource: Resource | undefined): VirtualServer | undefined {
  return resource?.spec.case === "virtualServer" ? resource.spec.value : undefined;
}

/** Whether the same callers may do the same, backends are shown the same, and it is written down the same. */
function hasSamePolicy(one: VirtualServer, other: VirtualServer): boolean {
  return equals(VirtualServerSchema, policyOf(one), policyOf(other));
}

function policyOf({ incomingAuth, outgoingAuth, authPolicyRef, passthroughHeaders, audit }: VirtualServer): VirtualServer {
  return create(VirtualServerSchema, {
    ...{ authPolicyRef, passthroughHeaders },
    ...(incomingAuth && { incomingAuth }),
    ...(outgoingAuth && { outgoingAuth }),
    ...(audit && { audit }),
  });
}

function groupOf(name: string): string | undefined {
  const parsed = parseName(name);
  return parsed?.kind === "groups" ? parsed.id : parsed?.group;
}
