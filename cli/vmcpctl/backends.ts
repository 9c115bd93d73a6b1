// Backends as declared, and as the proxies see them.
import type { Proxy as ProxyRow } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { BackendStatus } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Backend } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { isHeard } from "./proxy-states.ts";

export interface BackendRow {
  /** `groups/{g}/backends/{b}` or `virtualServers/{v}/backends/{b}`. */
  readonly name: string;
  readonly transport: string;
  /** URL, or the command line of a stdio server. */
  readonly address: string;
  /** All proxies agree: their word. Else each word with its count, as `healthy 2, unhealthy 1`; empty when none reports it. */
  readonly state: string;
  readonly tools: number;
  readonly resources: number;
  readonly prompts: number;
  readonly protocolVersion: string;
  /** `session` or `stateless`; merged like the state. */
  readonly era: string;
  readonly proxies: readonly {
    readonly proxy: string;
    readonly state: string;
    readonly listedWith: string;
    /** It watches the backend for all of them. */
    readonly watched: boolean;
    readonly error: string;
  }[];
}

/** Declared ones and those that virtual servers bring, sorted by name. */
export function backendRows(resources: readonly Resource[], proxies: readonly ProxyRow[]): BackendRow[] {
  const declared = resources.flatMap(({ name, spec }): [string, Backend][] => {
    if (spec.case === "backend") return [[name, spec.value]];
    if (spec.case === "virtualServer") return spec.value.backends.map((backend) => [`${name}/backends/${backend.name}`, backend]);
    return [];
  });
  const connected = proxies.filter(isHeard);
  return declared.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, backend]) => rowOf({ name, backend, connected }));
}

function rowOf(options: { name: string; backend: Backend; connected: readonly ProxyRow[] }): BackendRow {
  const { name, backend, connected } = options;
  const seen = connected.flatMap(({ node, backends }): [string, BackendStatus][] => {
    const status = backends.find((one) => one.name === name);
    return status === undefined ? [] : [[node?.id ?? "", status]];
  });
  const best = seen.find(([, { state }]) => isUsable(state)) ?? seen[0];
  return {
    name,
    transport: backend.transport || (backend.command === "" ? "streamable-http" : "stdio"),
    address: addressOf(backend),
    state: merged(seen.map(([, { state }]) => state)),
    tools: best?.[1].tools ?? 0,
    resources: best?.[1].resources ?? 0,
    prompts: best?.[1].prompts ?? 0,
    protocolVersion: best?.[1].protocolVersion ?? "",
    era: merged(seen.map(([, { era }]) => era).filter((era) => era !== "")),
    proxies: seen.map(([proxy, { state, listedWith, watched, error }]) => ({ proxy, state, listedWith, watched, error })),
  };
}

function addressOf({ url, endpoints, command, args }: Backend): string {
  if (endpoints.length > 0) return endpoints.map((endpoint) => endpoint.url).join(" ");
  return url || [command, ...args].join(" ");
}

/** Whether a backend in this state is worth asking. */
export function isUsable(state: string): boolean {
  return state === "healthy" || state === "degraded";
}

function merged(states: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const state of states) counts.set(state, (counts.get(state) ?? 0) + 1);
  if (counts.size <= 1) return states[0] ?? "";
  return [...counts].map(([state, count]) => `${state} ${count}`).join(", ");
}
