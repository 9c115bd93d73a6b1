// Everything that a control plane serves. What may be called by whom stands in access.ts.
import type { Server } from "@grpc/grpc-js";
import { Health } from "../../proto/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../proto/gen/grpc/reflection/v1/reflection_pb.ts";
import { AdminService } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { TrustService } from "../../proto/gen/vmcp/admin/v1/trust_pb.ts";
import { DiscoveryService } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { EnrolmentService } from "../../proto/gen/vmcp/enrolment/v1/enrolment_pb.ts";
import { addService } from "../../proto/grpc.ts";
import { discoveryHandlers } from "../push/server.ts";
import type { Trust } from "../trust/trust.ts";
import { healthHandlers } from "./health.ts";
import { reflectionHandlers } from "./reflection.ts";
import { type AdminOptions, adminHandlers } from "./server.ts";
import { enrolmentHandlers, trustHandlers } from "./trust.ts";

/** In the order of their importance. */
export const services = [AdminService, TrustService, DiscoveryService, EnrolmentService, Health, ServerReflection] as const;

export interface ServicesOptions extends AdminOptions {
  readonly trust: Trust;
}

export function addServices(server: Server, options: ServicesOptions): void {
  const { fleet, log } = options;
  addService(server, AdminService, adminHandlers(options));
  addService(server, TrustService, trustHandlers(options));
  addService(server, DiscoveryService, discoveryHandlers(fleet, log));
  addService(server, EnrolmentService, enrolmentHandlers(options));
  addService(server, Health, healthHandlers(options));
  addService(server, ServerReflection, reflectionHandlers(services));
}
