// One virtual server as this proxy runs it: its rules, its backends, and the view they add up to right now.
import { setTimeout as sleep } from "node:timers/promises";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { softwareVersion } from "../common/version.ts";
import type { VirtualServer as VirtualServerSpec } from "../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { createView, needsWrapping, type View } from "./aggregation/view.ts";
import type { Backend } from "./backends/backend.ts";
import type { ListKind } from "./backends/catalog.ts";
import type { Authenticate } from "./incoming-auth/registry.ts";
import type { Session } from "./session/session.ts";

export interface VirtualServer {
  readonly name: string;
  /** What clients are told they talk to, as JSON text. */
  readonly serverInfo: string;
  readonly spec: VirtualServerSpec;
  readonly authenticate: Authenticate;
  /** By backend name. */
  readonly backends: ReadonlyMap<string, Backend>;
  /** What a plain client sees. */
  readonly view: View;
  /** What clients of an era that declared these capabilities (JSON text) see. */
  viewOf(client: Kind): View;
  /** Backends that list more for a client like this get a moment to do so, the first time one comes. Never rejects. */
  join(session: Session): Promise<void>;
  /** Deadline of a call to a backend, milliseconds. */
  timeoutMs(backend: string): number;
  /** Merges the catalogs again at the next look; gives the view that clients of a kind had, if any had looked. */
  refresh(): (client: Kind) => View | undefined;
}

/** What makes clients see different things. */
export type Kind = Pick<Session, "era" | "capabilities">;

const plain: Kind = { era: "stateless", capabilities: "{}" };
const viewsMax = 64;
const joinMs = 2_000;

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

  function viewOf(client: Kind): View {
    const key = keyOf(client);
    const existing = views.get(key);
    if (existing) return existing;
    const view = makeView(client);
    if (views.size >= viewsMax) views.delete(views.keys().next().value as string);
    views.set(key, view);
    return view;
  }

  /** A new view, or one that another kind of client has already, when they see the same. */
  function makeView({ era, capabilities }: Kind): View {
    const sources = options.backends.map((backend) => ({ backend: backend.name, catalog: backend.catalogOf(capabilities) }));
    const isPlain = options.backends.every((backend, i) => backend.catalog === sources[i]?.catalog);
    if (isPlain && capabilities !== plain.capabilities) return viewOf({ era, capabilities: plain.capabilities });
    if (era === "session" && !sources.some(({ catalog }) => catalog && needsWrapping(catalog)))
      return viewOf({ era: "stateless", capabilities });
    return createView(rules, sources, { era, isEverybody: isPlain });
  }
  viewOf(plain); // a rule that can't be followed shows here, not at the first request

  return {
    name,
    serverInfo: JSON.stringify({ name, version: softwareVersion }),
    spec,
    authenticate,
    backends,
    get view() {
      return viewOf(plain);
    },
    viewOf,
    async join(session) {
      const joined = Promise.all(options.backends.map((backend) => backend.join(session)));
      await Promise.race([joined, sleep(joinMs, undefined, { ref: false })]);
    },
    timeoutMs: (backend) => timeouts.get(backend) ?? defaultTimeoutMs,
    refresh() {
      const before = views;
      views = new Map();
      return (client) => before.get(keyOf(client));
    },
  };
}

function keyOf({ era, capabilities }: Kind): string {
  return `${era} ${capabilities}`;
}

/** The kinds of lists in which two views differ. */
export function changedKinds(before: View, after: View): ListKind[] {
  return (Object.keys(after.lists) as ListKind[]).filter((kind) => after.lists[kind].digest !== before.lists[kind].digest);
}
