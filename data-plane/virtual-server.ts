// One virtual server as this proxy runs it: its rules, its backends, and the view they add up to right now.
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { VirtualServer as VirtualServerSpec } from "../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { createView, type View } from "./aggregation/view.ts";
import type { Backend } from "./backends/backend.ts";
import type { ListKind } from "./backends/catalog.ts";
import type { Authenticate } from "./incoming-auth/registry.ts";

export interface VirtualServer {
  readonly name: string;
  readonly spec: VirtualServerSpec;
  readonly authenticate: Authenticate;
  /** By backend name. */
  readonly backends: ReadonlyMap<string, Backend>;
  /** What a plain client sees. */
  readonly view: View;
  /** What clients that declared these capabilities (JSON text) see. */
  viewOf(capabilities: string): View;
  /** Deadline of a call to a backend, milliseconds. */
  timeoutMs(backend: string): number;
  /** Merges the catalogs again at the next look; gives the views there were, by capabilities. */
  refresh(): ReadonlyMap<string, View>;
}

const noCapabilities = "{}";
const viewsMax = 32;

/** Nothing is merged before somebody looks. */
export function createVirtualServer(options: {
  name: string;
  spec: VirtualServerSpec;
  authenticate: Authenticate;
  backends: readonly Backend[];
}): VirtualServer {
  const { name, spec, authenticate } = options;
  if (!spec.aggregation) throw new Error("aggregation is missing");
  const rules = spec.aggregation;
  const backends = new Map(options.backends.map((backend) => [backend.name, backend]));
  const timeouts = new Map(
    Object.entries(spec.operational?.timeouts?.perWorkload ?? {}).map(([backend, value]) => [backend, durationMs(value)]),
  );
  const defaultTimeoutMs = spec.operational?.timeouts?.default ? durationMs(spec.operational.timeouts.default) : 30_000;
  let views = new Map<string, View>();

  function viewOf(capabilities: string): View {
    const existing = views.get(capabilities);
    if (existing) return existing;
    const sources = options.backends.map((backend) => ({ backend: backend.name, catalog: backend.catalogOf(capabilities) }));
    const isPlain = options.backends.every((backend, i) => backend.catalog === sources[i]?.catalog);
    const view = isPlain && capabilities !== noCapabilities ? viewOf(noCapabilities) : createView(rules, sources);
    if (views.size >= viewsMax) views.delete(views.keys().next().value as string);
    views.set(capabilities, view);
    return view;
  }
  viewOf(noCapabilities); // a rule that can't be followed shows here, not at the first request

  return {
    name,
    spec,
    authenticate,
    backends,
    get view() {
      return viewOf(noCapabilities);
    },
    viewOf,
    timeoutMs: (backend) => timeouts.get(backend) ?? defaultTimeoutMs,
    refresh() {
      const before = views;
      views = new Map();
      return before;
    },
  };
}

/** The kinds of lists in which two views differ. */
export function changedKinds(before: View, after: View): ListKind[] {
  return (Object.keys(after.lists) as ListKind[]).filter((kind) => after.lists[kind].digest !== before.lists[kind].digest);
}
