// What load balancers and people ask: is it alive, is it ready, what does it run.
import { getHeapStatistics } from "node:v8";
import { softwareVersion } from "../../common/version.ts";
import type { LimitReport } from "../overload/limit-report.ts";
import type { Runtime } from "../runtime.ts";

/** What is shown at `/status` and `/metrics`. */
export interface Pages {
  status(): object | Promise<object>;
  metrics(): string | Promise<string>;
}

/** Why a proxy takes no new work: it ends, or its operator wants it to. */
export type Leaving = "stopping" | "draining" | undefined;

/** `GET /readyz`: ready means that there is a snapshot to serve, and that the proxy takes new work. */
export function readiness(runtime: Runtime, leaving: Leaving): { status: number; body: object } {
  if (leaving) return { status: 503, body: { status: "not_ready", reason: leaving } };
  if (runtime.version === "") return { status: 503, body: { status: "not_ready", reason: "no snapshot yet" } };
  return { status: 200, body: { status: "ready", version: runtime.version } };
}

/** `GET /status`: the fields of the original, and every virtual server. */
export function status(runtime: Runtime) {
  const backends = runtime.backends.map(({ resource, backend }) => ({
    name: backend.name,
    resource,
    health: backend.state.state,
    since: new Date(backend.state.sinceMs).toISOString(),
    listed_with: backend.listedWith,
    tokens: backend.tokens,
    in_flight: backend.inFlight,
    endpoints: backend.endpoints?.map(({ state, inFlight, isLeftAlone }) => ({
      health: state.state,
      error: state.error,
      in_flight: inFlight,
      left_alone: isLeftAlone,
    })),
    error: backend.state.error,
    era: backend.catalog?.facts.era,
    mcp_revision: backend.catalog?.facts.protocolVersion,
    tools: backend.catalog?.tools.length,
  }));
  const servers = [...runtime.virtualServers.values()];
  return {
    version: softwareVersion,
    snapshot: runtime.version,
    memory: { resident_bytes: process.memoryUsage.rss(), heap_used_bytes: getHeapStatistics().used_heap_size },
    healthy: backends.some(({ health }) => health === "healthy" || health === "degraded"),
    group_ref: servers.length === 1 ? servers[0]?.spec.groupRef : undefined,
    virtual_servers: servers.map(({ name, view }) => ({ name, path: `/${name}/mcp`, tools: view.tools.size })),
    backends,
  };
}

/** What one process says of itself. */
export interface OwnStatus extends ReturnType<typeof status> {
  readonly pressure: number;
  readonly limits: readonly LimitReport[];
}

/** Where what is served comes from. */
export interface ConfigFacts {
  readonly source: "none" | "control plane" | "disk" | "bootstrap";
  /** When it went live here. */
  readonly sinceMs: number | undefined;
  /** When a control plane last said that this is what to run; undefined: now, or never. */
  readonly confirmedMs: number | undefined;
  /** The control plane that is followed right now. */
  readonly controlPlane: string | undefined;
  /** When the certificate ends that control planes know this proxy by; undefined: it has none. */
  readonly certificateEndsMs: number | undefined;
}

/** Of `GET /status`: from where, since when, and for how long no control plane has said that it is right. */
export function configStatus(facts: ConfigFacts | undefined, nowMs = Date.now()): object {
  const { source = "none", sinceMs, confirmedMs, controlPlane, certificateEndsMs } = facts ?? {};
  const time = (ms: number | undefined): string | undefined => (ms === undefined ? undefined : new Date(ms).toISOString());
  return {
    source,
    since: time(sinceMs),
    control_plane: controlPlane,
    age_seconds: confirmedMs === undefined ? 0 : Math.max(0, Math.round((nowMs - confirmedMs) / 1000)),
    certificate_ends: time(certificateEndsMs),
  };
}
