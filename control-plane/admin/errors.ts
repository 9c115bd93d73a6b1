// What goes wrong in the admin API as gRPC status; the only place here that knows the wire format of errors.
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import { fieldOf, problemLine } from "../compiler/problem-text.ts";
import { parseName } from "../resource-names.ts";
import type { Problem } from "../resources/problems.ts";
import { StoreError } from "../store/store.ts";
import { TrustError, type TrustErrorCode } from "../trust/errors.ts";

/** Why a request was refused. One gRPC code each. */
export type AdminErrorReason =
  | "INVALID_REQUEST"
  | "INVALID_RESOURCES"
  | "REQUEST_ID_REUSED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "ETAG_MISMATCH"
  | "REVISION_MISMATCH"
  | "TOOL_CHANGED"
  | "IN_USE"
  | "READ_ONLY"
  | "SNAPSHOT_TOO_LARGE"
  | "TOO_MANY_REVOCATIONS"
  | "CHANGES_FORGOTTEN"
  | "BUSY"
  | "STORE_UNAVAILABLE"
  | "UNAUTHENTICATED"
  | "PERMISSION_DENIED"
  | "TOO_MANY"
  | "NO_AUTHORITY"
  | "INTERNAL";

const codes = {
  INVALID_REQUEST: status.INVALID_ARGUMENT,
  INVALID_RESOURCES: status.INVALID_ARGUMENT,
  REQUEST_ID_REUSED: status.INVALID_ARGUMENT,
  NOT_FOUND: status.NOT_FOUND,
  ALREADY_EXISTS: status.ALREADY_EXISTS,
  ETAG_MISMATCH: status.ABORTED,
  REVISION_MISMATCH: status.ABORTED,
  TOOL_CHANGED: status.ABORTED,
  IN_USE: status.FAILED_PRECONDITION,
  READ_ONLY: status.FAILED_PRECONDITION,
  SNAPSHOT_TOO_LARGE: status.FAILED_PRECONDITION,
  TOO_MANY_REVOCATIONS: status.RESOURCE_EXHAUSTED,
  CHANGES_FORGOTTEN: status.OUT_OF_RANGE,
  BUSY: status.RESOURCE_EXHAUSTED,
  STORE_UNAVAILABLE: status.UNAVAILABLE,
  UNAUTHENTICATED: status.UNAUTHENTICATED,
  PERMISSION_DENIED: status.PERMISSION_DENIED,
  TOO_MANY: status.RESOURCE_EXHAUSTED,
  NO_AUTHORITY: status.FAILED_PRECONDITION,
  INTERNAL: status.INTERNAL,
} as const satisfies Record<AdminErrorReason, status>;

export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** `metadata` repeats, for machines, the values that the message names. */
export class AdminError extends Error {
  override readonly name = "AdminError";
  readonly reason: AdminErrorReason;
  readonly violations: readonly FieldViolation[];
  readonly metadata: Readonly<Record<string, string>>;

  constructor(reason: AdminErrorReason, message: string, details: AdminErrorDetails = {}) {
    super(message);
    this.reason = reason;
    this.violations = details.violations ?? [];
    this.metadata = details.metadata ?? {};
  }
}

export interface AdminErrorDetails {
  readonly violations?: readonly FieldViolation[];
  readonly metadata?: Readonly<Record<string, string>>;
}

// Metadata is one HTTP/2 header block, which peers limit to 8 KB or so; the rest of a long list is counted in the message.
const violationsMax = 20;
const descriptionCharactersMax = 200;

/** All problems at once, as violations of the fields that they name. */
export function problemsError(reason: "INVALID_RESOURCES" | "IN_USE", problems: readonly Problem[]): AdminError {
  const [first] = problems;
  const more = problems.length > 1 ? `, and ${problems.length - 1} more` : "";
  const message = first === undefined ? "the resources are not valid" : `${problemLine(first)}${more}`;
  const violations = problems.map((problem) => ({
    field: fieldOf(problem),
    description: problem.hint === undefined ? problem.message : `${problem.message} (${problem.hint})`,
  }));
  return new AdminError(reason, message, { violations });
}

/** Anything thrown as what grpc-js sends. What is not meant for callers is logged instead. */
export function toServiceError(error: unknown, log: Log): Partial<ServiceError> & { code: status; details: string } {
  const known = adopt(error);
  if (known === undefined) {
    log.error({ err: error }, "an admin request failed");
    return wire(new AdminError("INTERNAL", "the control plane failed; its log says why"));
  }
  if (known.reason === "STORE_UNAVAILABLE") log.error({ err: error }, "the store failed");
  return wire(known);
}

const trustReasons = {
  invalid: "INVALID_REQUEST",
  unproven: "UNAUTHENTICATED",
  denied: "PERMISSION_DENIED",
  not_found: "NOT_FOUND",
  exists: "ALREADY_EXISTS",
  full: "TOO_MANY",
  no_authority: "NO_AUTHORITY",
} as const satisfies Record<TrustErrorCode, AdminErrorReason>;

function adopt(error: unknown): AdminError | undefined {
  if (error instanceof AdminError) return error;
  if (error instanceof TrustError) return new AdminError(trustReasons[error.code], error.message);
  if (!(error instanceof StoreError)) return undefined;
  const metadata = error.resource === undefined ? {} : { resource: error.resource };
  if (error.code === "conflict" || error.code === "repeated") return new AdminError("ETAG_MISMATCH", error.message, { metadata });
  if (error.code === "compacted") return new AdminError("CHANGES_FORGOTTEN", `${error.message}; list again`);
  if (error.code === "uncertain") {
    const message =
      "the store was lost while it committed, so it is not known whether the change was made; look before you repeat it";
    return new AdminError("STORE_UNAVAILABLE", message);
  }
  const message = "the store can't be used at the moment, so nothing is read or changed; proxies keep what they have";
  return new AdminError("STORE_UNAVAILABLE", message);
}

function wire(error: AdminError): Partial<ServiceError> & { code: status; details: string } {
  const code = codes[error.reason];
  const details = [packed(ErrorInfoSchema, { reason: error.reason, domain: "vmcp.dev", metadata: { ...error.metadata } })];
  if (error.violations.length > 0) {
    const fieldViolations = error.violations.slice(0, violationsMax).map(({ field, description }) => ({
      field: field.slice(0, descriptionCharactersMax),
      description: description.slice(0, descriptionCharactersMax),
      reason: error.reason,
    }));
    details.push(packed(BadRequestSchema, { fieldViolations }));
  }
  details.push(...furtherDetails(error, code));
  const metadata = new Metadata();
  const message = error.message.slice(0, 1000);
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message, details }))));
  return { code, details: message, metadata };
}

// Somebody else's turn takes milliseconds; a database that comes back takes seconds.
const retryAfterSeconds: Partial<Record<AdminErrorReason, number>> = { BUSY: 1, STORE_UNAVAILABLE: 2 };

/** What clients that know nothing of our reasons understand (AIP-193). */
function furtherDetails({ reason, message, metadata }: AdminError, code: status) {
  const { resource = "" } = metadata;
  const description = message.slice(0, descriptionCharactersMax);
  const details = [];
  if (code === status.ABORTED || code === status.FAILED_PRECONDITION)
    details.push(packed(PreconditionFailureSchema, { violations: [{ type: reason, subject: resource, description }] }));
  if (resource !== "") {
    const resourceType = `vmcp.dev/${parseName(resource)?.kind ?? "resources"}`;
    details.push(packed(ResourceInfoSchema, { resourceType, resourceName: resource, description }));
  }
  const seconds = retryAfterSeconds[reason];
  if (seconds !== undefined) details.push(packed(RetryInfoSchema, { retryDelay: { seconds: BigInt(seconds) } }));
  return details;
}

function packed<D extends DescMessage>(schema: D, init: MessageInitShape<D>) {
  return anyPack(schema, create(schema, init));
}
