// `GET /metrics`: how this proxy is, for Prometheus. The same facts as `/status`, as numbers.
import { getHeapStatistics } from "node:v8";
import { softwareVersion } from "../../common/version.ts";
import type { LimitReport } from "../overload/limit-report.ts";
import type { Runtime } from "../runtime.ts";
import { sumOf } from "../telemetry/call-meter.ts";
import { createExposition, type Exposition, type Family } from "../telemetry/exposition.ts";

export interface MetricsOptions {
  readonly runtime: Runtime;
  readonly limits: readonly LimitReport[];
  /** 0 to 4. */
  readonly pressure: number;
}

/** All of this process. */
export function metrics({ runtime, limits, pressure }: MetricsOptions): readonly Family[] {
  const exposition = createExposition();
  const info = { version: softwareVersion, snapshot: runtime.version };
  exposition.gauge("vmcp_info", "What runs here.", 1, info, "most");
  for (const { name, used, limit, refused } of limits) {
    exposition.gauge("vmcp_limit_used", "How much of a bound is used.", used, { limit: name });
    exposition.gauge("vmcp_limit", "The bound.", limit, { limit: name });
    if (refused !== undefined)
      exposition.counter("vmcp_limit_refused_total", "How often a bound was the reason of a refusal.", refused, { limit: name });
  }
  exposition.gauge("vmcp_pressure_level", "What is left undone for lack of resources: 0 nothing, to 4.", pressure, {}, "most");
  for (const { name, view } of runtime.virtualServers.values()) {
    const labels = { virtual_server: name };
    exposition.gauge("vmcp_virtual_server_tools", "Tools that a virtual server offers.", view.tools.size, labels, "most");
  }
  exposeBackends(exposition, runtime);
  exposition.gauge("process_resident_memory_bytes", "Resident memory.", process.memoryUsage.rss());
  exposition.gauge("nodejs_heap_size_used_bytes", "Heap in use.", getHeapStatistics().used_heap_size);
  const { user, system } = process.cpuUsage();
  exposition.counter("process_cpu_seconds_total", "User and system time.", (user + system) / 1e6);
  return exposition.families();
}

/** One resource may be several backends here, when virtual servers show it different credentials. */
function exposeBackends(exposition: Exposition, { backends }: Runtime): void {
  for (const [resource, same] of Map.groupBy(backends, (one) => one.resource)) {
    const labels = { backend: resource };
    const places = same.flatMap(({ backend }) => backend.endpoints ?? [backend]);
    const calls = sumOf(places.map((place) => place.calls));
    for (const [outcome, count] of calls.outcomes)
      exposition.counter("vmcp_backend_calls_total", "Calls of clients, by what became of them.", count, { ...labels, outcome });
    exposition.histogram("vmcp_backend_call_duration_seconds", "What calls took, from here to the answer.", calls, labels);
    const inFlight = places.reduce((sum, place) => sum + place.inFlight, 0);
    exposition.gauge("vmcp_backend_in_flight", "Calls in flight.", inFlight, labels);
    for (const [state, alike] of Map.groupBy(places, (place) => place.state.state))
      exposition.gauge("vmcp_backend_endpoints", "Endpoints, by how they are.", alike.length, { ...labels, state }, "most");
    const leftAlone = places.filter(({ isLeftAlone }) => isLeftAlone).length;
    exposition.gauge("vmcp_backend_endpoints_left_alone", "Endpoints whose breaker is open.", leftAlone, labels, "most");
  }
}
