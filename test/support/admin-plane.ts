// For tests: a whole control plane, its admin API over real gRPC, and what may be declared.
import assert from "node:assert/strict";
import { create, type DescMessage, fromBinary, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { credentials, type ServiceError } from "@grpc/grpc-js";
import { pino } from "pino";
import { type ControlPlane, type ControlPlaneOptions, startControlPlane } from "../../control-plane/index.ts";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import { AdminService } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { type Client, createClient } from "../../proto/grpc.ts";

export interface AdminPlane extends AsyncDisposable {
  readonly plane: ControlPlane;
  readonly admin: Client<typeof AdminService>;
}

/** On a free port, with a store of its own in memory unless the options say otherwise. */
export async function startAdminPlane(options: Partial<ControlPlaneOptions> = {}): Promise<AdminPlane> {
  const log = pino({ level: "silent" });
  const plane = await startControlPlane({ listen: "127.0.0.1:0", store: ":memory:", log, ...options });
  const admin = createClient(AdminService, plane.address, credentials.createInsecure());
  return {
    plane,
    admin,
    async [Symbol.asyncDispose]() {
      admin.close();
      await plane[Symbol.asyncDispose]();
    },
  };
}

/** What an error carries: the violated fields and preconditions, and which resource it is about. */
export function detailsOf(error: ServiceError) {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  assert.ok(bytes instanceof Buffer);
  const { details } = fromBinary(StatusSchema, bytes);
  const [info] = details.flatMap((any) => anyUnpack(any, ErrorInfoSchema) ?? []);
  const [bad] = details.flatMap((any) => anyUnpack(any, BadRequestSchema) ?? []);
  const [failed] = details.flatMap((any) => anyUnpack(any, PreconditionFailureSchema) ?? []);
  const [about] = details.flatMap((any) => anyUnpack(any, ResourceInfoSchema) ?? []);
  const [retry] = details.flatMap((any) => anyUnpack(any, RetryInfoSchema) ?? []);
  return {
    reason: info?.reason,
    fields: bad?.fieldViolations.map(({ field }) => field) ?? [],
    preconditions: failed?.violations.map(({ type, subject }) => `${type} ${subject}`) ?? [],
    resource: about?.resourceName,
    retryAfterSeconds: retry?.retryDelay?.seconds,
  };
}

export function group(name: string, description = ""): Resource {
  return create(ResourceSchema, { name: `groups/${name}`, spec: { case: "group", value: { description } } });
}

type Fields<D extends DescMessage> = Exclude<MessageInitShape<D>, MessageShape<D>>;

export function backend(ofGroup: string, name: string, fields: Fields<typeof BackendSchema> = {}): Resource {
  const value = { name, url: "http://127.0.0.1:3001/mcp", transport: "streamable-http", ...fields };
  return create(ResourceSchema, { name: `groups/${ofGroup}/backends/${name}`, spec: { case: "backend", value } });
}

export function virtualServer(name: string, groupRef: string, fields: Fields<typeof VirtualServerSchema> = {}): Resource {
  const value = {
    name,
    groupRef,
    incomingAuth: { type: "anonymous" },
    outgoingAuth: { source: "inline", default: { type: "unauthenticated" } },
    aggregation: { conflictResolution: "prefix" },
    ...fields,
  };
  return create(ResourceSchema, { name: `virtualServers/${name}`, spec: { case: "virtualServer", value } });
}
