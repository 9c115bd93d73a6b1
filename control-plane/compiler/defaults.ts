// What an unset field means. Filled in here, so that proxies of different versions can't disagree about it.
import { clone, create } from "@bufbuild/protobuf";
import { type Duration, durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Aggregation,
  AggregationSchema,
  ConflictResolutionConfigSchema,
} from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { type Backend, BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import {
  CircuitBreakerSchema,
  FailureHandlingSchema,
  type Operational,
  OperationalSchema,
  TimeoutsSchema,
} from "../../proto/gen/vmcp/resource/v1/operational_pb.ts";
import { type OutgoingAuth, OutgoingAuthSchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";

const second = 1000;

/** A copy: named by the last segment, and what has a command is started while what has a URL speaks streamable HTTP. */
export function backendWithDefaults(fullName: string, backend: Backend): Backend {
  const filled = clone(BackendSchema, backend);
  filled.name ||= fullName.slice(fullName.lastIndexOf("/") + 1);
  filled.transport ||= backend.command === "" ? "streamable-http" : "stdio";
  return filled;
}

/** A copy; by default names are prefixed with `{workload}_`. */
export function aggregationWithDefaults(aggregation: Aggregation | undefined): Aggregation {
  const filled = aggregation ? clone(AggregationSchema, aggregation) : create(AggregationSchema);
  filled.conflictResolution ||= "prefix";
  filled.conflictResolutionConfig ??= create(ConflictResolutionConfigSchema);
  filled.conflictResolutionConfig.prefixFormat ||= "{workload}_";
  filled.defaultToolVisibility ||= "allow";
  filled.toolChanges ||= "report";
  return filled;
}

/** A copy; the numbers are the ones that vmcp/resource/v1/operational.proto states. */
export function operationalWithDefaults(operational: Operational | undefined): Operational {
  const filled = operational ? clone(OperationalSchema, operational) : create(OperationalSchema);
  filled.timeouts ??= create(TimeoutsSchema);
  filled.timeouts.default = durationOr(filled.timeouts.default, 30 * second);
  filled.failureHandling ??= create(FailureHandlingSchema);
  const failure = filled.failureHandling;
  failure.healthCheckInterval = durationOr(failure.healthCheckInterval, 30 * second);
  failure.healthCheckTimeout = durationOr(failure.healthCheckTimeout, 10 * second);
  failure.statusReportingInterval = durationOr(failure.statusReportingInterval, 30 * second);
  failure.unhealthyThreshold ||= 3;
  failure.partialFailureMode ||= "fail";
  failure.circuitBreaker ??= create(CircuitBreakerSchema);
  failure.circuitBreaker.enabled ??= true;
  failure.circuitBreaker.failureThreshold ||= 5;
  failure.circuitBreaker.timeout = durationOr(failure.circuitBreaker.timeout, 60 * second);
  return filled;
}

/** A copy; unset means that backends are shown nothing. */
export function outgoingAuthWithDefaults(auth: OutgoingAuth | undefined): OutgoingAuth {
  const filled = auth ? clone(OutgoingAuthSchema, auth) : create(OutgoingAuthSchema);
  filled.source ||= "inline";
  return filled;
}

// Zero is how the original writes "not set", so it means the default here as well.
function durationOr(duration: Duration | undefined, defaultMs: number): Duration {
  return duration === undefined || (duration.seconds === 0n && duration.nanos === 0) ? durationFromMs(defaultMs) : duration;
}
