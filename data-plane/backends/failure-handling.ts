// What an operator says of failures → settings, with their defaults.
import { type Duration, durationMs } from "@bufbuild/protobuf/wkt";
import type { CircuitBreaker, FailureHandling } from "../../proto/gen/vmcp/resource/v1/operational_pb.ts";
import type { BreakerSettings } from "./breaker.ts";
import type { HealthOptions } from "./catalogs.ts";

/** How a backend is looked at, as an operator said. */
export function healthOf(handling: FailureHandling | undefined): HealthOptions {
  const ms = (duration: Duration | undefined, otherwise: number): number => (duration ? durationMs(duration) : otherwise);
  return {
    intervalMs: ms(handling?.healthCheckInterval, 30_000),
    timeoutMs: ms(handling?.healthCheckTimeout, 10_000),
    unhealthyThreshold: handling?.unhealthyThreshold || 3,
  };
}

/** When a backend is left alone, as an operator said. */
export function breakerOf(settings: CircuitBreaker | undefined): BreakerSettings {
  return {
    enabled: settings?.enabled ?? true,
    failureThreshold: settings?.failureThreshold || 5,
    openMs: settings?.timeout ? durationMs(settings.timeout) : 60_000,
  };
}
