// TrustService and EnrolmentService: tokens, certificates, roles.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Metadata } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import {
  type CertificateSchema,
  type EnrolmentTokenSchema,
  type RoleBinding,
  type RoleBindingSchema,
  Role as RoleNumber,
  type TrustService,
} from "../../proto/gen/vmcp/admin/v1/trust_pb.ts";
import type { EnrolmentService } from "../../proto/gen/vmcp/enrolment/v1/enrolment_pb.ts";
import type { Handlers } from "../../proto/grpc.ts";
import type { Attempt } from "../store/store.ts";
import type { Binding, Role } from "../trust/bindings.ts";
import type { CertificateRow } from "../trust/certificates.ts";
import type { Token } from "../trust/tokens.ts";
import type { Trust } from "../trust/trust.ts";
import { type Caller, callerOf, nameOf } from "./caller.ts";
import { AdminError, toServiceError } from "./errors.ts";
import { invalid } from "./requests.ts";

export interface TrustHandlersOptions {
  readonly trust: Trust;
  readonly log: Log;
}

/** The handlers to register. */
export function trustHandlers({ trust, log }: TrustHandlersOptions): Handlers<typeof TrustService> {
  const { tokens, certificates, bindings } = trust;

  /** Nobody gives or takes a role above his own. */
  function checkRole({ role }: Pick<Binding, "role">, { isAdmin }: Caller): void {
    if (role === "admin" && !isAdmin) throw new AdminError("PERMISSION_DENIED", "only an admin gives or takes the role admin");
  }

  const answering = answeringWith(log);
  return {
    createEnrolmentToken: answering(async ({ scope, namePrefix, uses, ttl }, caller) => {
      const terms = { scope, namePrefix, uses, ttlMs: ttl && durationMs(ttl) };
      const { text, token } = await tokens.create(terms, attempt(caller, "CreateEnrolmentToken", "token create"));
      return { token: text, details: toToken(token) };
    }),
    listEnrolmentTokens: answering(async () => ({ tokens: (await tokens.list()).map(toToken) })),
    deleteEnrolmentToken: answering(async ({ id }, caller) => {
      await tokens.remove(id, attempt(caller, "DeleteEnrolmentToken", "token delete"));
      return {};
    }),
    listCertificates: answering(async () => ({ certificates: (await certificates.list()).map(toCertificate) })),
    revokeCertificates: answering(async ({ name, reason }, caller) => {
      const revoked = await certificates.revoke(name, attempt(caller, "RevokeCertificates", reason || `revoke ${name}`));
      log.warn({ name, certificates: revoked.length, by: caller.actor }, "certificates revoked");
      return { certificates: revoked.map(toCertificate) };
    }),
    issueOperatorCertificate: answering(async ({ name, certificateRequest, ttl }, caller) => {
      const by = attempt(caller, "IssueOperatorCertificate", `certificate of ${name.slice(0, 100)}`);
      const issued = await certificates.issueOperator(name, certificateRequest, ttl && durationMs(ttl), by);
      return { ...issued, authority: trust.authority?.bundle ?? "" };
    }),
    createRoleBinding: answering(async ({ binding: given }, caller) => {
      const binding = fromBinding(given);
      checkRole(binding, caller);
      await bindings.create(binding, attempt(caller, "CreateRoleBinding", `${binding.subject} becomes ${binding.role}`));
      return { binding: toBinding(binding) };
    }),
    listRoleBindings: answering(async () => ({ bindings: (await bindings.list()).map(toBinding) })),
    deleteRoleBinding: answering(async ({ name }, caller) => {
      const present = await bindings.get(name);
      if (present) checkRole(present, caller);
      const reason = present ? `${present.subject} is no ${present.role} any more` : "";
      await bindings.remove(name, attempt(caller, "DeleteRoleBinding", reason));
      return {};
    }),
    whoAmI: answering(async (_, { peer, bindings: held }) => {
      if (peer === undefined) throw new AdminError("UNAUTHENTICATED", "nobody is known");
      return {
        identity: nameOf(peer),
        provenBy: peer.kind === "bearer" ? "bearer token" : peer.kind,
        bindings: held.map(toBinding),
        ...(peer.kind !== "local" && { expireTime: timestampFromMs(peer.expiresMs) }),
      };
    }),
  };
}

/** For whoever has a token, or a certificate to renew. */
export function enrolmentHandlers({ trust, log }: TrustHandlersOptions): Handlers<typeof EnrolmentService> {
  return {
    enrol: answeringWith(log)(async ({ name, certificateRequest, token, endedCertificate, proof }, caller) => {
      const { peer } = caller;
      const shown = peer?.kind === "certificate" && peer.identity.kind === "proxy" ? peer : undefined;
      const by = attempt(
        shown ? caller : { ...caller, actor: `claimed:${name.slice(0, 100)}` },
        "Enrol",
        shown ? "renewal" : "token",
      );
      const wanted = { name, request: certificateRequest, token, endedCertificate, proof };
      const certificate = await trust.certificates.enrol(wanted, shown, by);
      log.info({ proxy: name, how: by.reason }, "proxy enrolled");
      return { certificate, authority: trust.authority?.bundle ?? "" };
    }),
  };
}

function answeringWith(log: Log) {
  return <Request, Response>(work: (request: Request, caller: Caller) => Promise<Response>) =>
    async (request: Request, { metadata }: { readonly metadata: Metadata }): Promise<Response> => {
      try {
        return await work(request, callerOf(metadata));
      } catch (error) {
        throw toServiceError(error, log);
      }
    };
}

function attempt({ actor, requestId }: Pick<Caller, "actor" | "requestId">, method: string, reason: string): Attempt {
  return { actor, requestId, method, reason };
}

const roleNumbers = {
  viewer: RoleNumber.VIEWER,
  operator: RoleNumber.OPERATOR,
  editor: RoleNumber.EDITOR,
  "security-admin": RoleNumber.SECURITY_ADMIN,
  admin: RoleNumber.ADMIN,
} as const satisfies Record<Role, RoleNumber>;

function fromBinding(given: RoleBinding | undefined): Binding {
  const role = (Object.keys(roleNumbers) as Role[]).find((one) => roleNumbers[one] === given?.role);
  if (given === undefined || role === undefined) throw invalid([{ field: "binding.role", description: "is not set" }]);
  return { name: given.name, subject: given.subject, group: given.group, role };
}

function toBinding({ role, ...binding }: Binding): MessageInitShape<typeof RoleBindingSchema> {
  return { ...binding, role: roleNumbers[role] };
}

function toToken({ createdMs, expiresMs, ...token }: Token): MessageInitShape<typeof EnrolmentTokenSchema> {
  return { ...token, createTime: timestampFromMs(createdMs), expireTime: timestampFromMs(expiresMs) };
}

function toCertificate(row: CertificateRow): MessageInitShape<typeof CertificateSchema> {
  const { serial, identity, name, issuedMs, expiresMs, revokedMs } = row;
  return {
    ...{ serial, identity, name },
    issueTime: timestampFromMs(issuedMs),
    expireTime: timestampFromMs(expiresMs),
    ...(revokedMs !== undefined && { revokeTime: timestampFromMs(revokedMs) }),
  };
}
