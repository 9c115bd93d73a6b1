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
  /** What clients see; replaced whole by `refresh`. */
  readonly view: View;
  /** Deadline of a call to a backend, milliseconds. */
  timeoutMs(backend: string): number;
  /** Merges the catalogs again; gives the kinds of lists that differ from `before`. */
  refresh(before?: View): ListKind[];
}

/** `resourceNames` name the same backends as `backends`, for reports. */
export function createVirtualServer(options: {
  name: string;
  spec: VirtualServerSpec;
  authenticate: Authenticate;
  backends: readonly Backend[];
}): VirtualServer {
  const { name, spec, authenticate } = options;
  const { aggregation } = spec;
  if (!aggregation) throw new Error("aggregation is missing");
  const backends = new Map(options.backends.map((backend) => [backend.name, backend]));
  const timeouts = new Map(
    Object.entries(spec.operational?.timeouts?.perWorkload ?? {}).map(([backend, value]) => [backend, durationMs(value)]),
  );
  const defaultTimeoutMs = spec.operational?.timeouts?.default ? durationMs(spec.operational.timeouts.default) : 30_000;
  const sources = () => options.backends.map((backend) => ({ backend: backend.name, catalog: backend.catalog }));
  let view = createView(aggregation, sources());

  return {
    name,
    spec,
    authenticate,
    backends,
    get view() {
      return view;
    },
    timeoutMs: (backend) => timeouts.get(backend) ?? defaultTimeoutMs,
    refresh(before = view) {
      view = createView(aggregation, sources());
      return (Object.keys(view.lists) as ListKind[]).filter((kind) => view.lists[kind].digest !== before.lists[kind].digest);
    },
  };
}
