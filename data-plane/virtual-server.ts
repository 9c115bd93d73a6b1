// One virtual server as this proxy runs it: its rules, its backends, and the view they add up to right now.
import { setTimeout as sleep } from "node:timers/promises";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { softwareVersion } from "../common/version.ts";
import type { VirtualServer as VirtualServerSpec } from "../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { createDeparted, type Departed } from "./aggregation/departed.ts";
import { createView, needsWrapping, type View } from "./aggregation/view.ts";
import type { Backend } from "./backends/backend.ts";
import type { CatalogItem, ListKind } from "./backends/catalog.ts";
import { isUnapproved } from "./backends/shared-catalog.ts";
import type { Authenticator } from "./incoming-auth/authenticator.ts";
import type { Session } from "./session/session.ts";

export interface VirtualServer {
  readonly name: string;
  /** What clients are told they talk to, as JSON text. */
  readonly serverInfo: string;
  readonly spec: VirtualServerSpec;
  readonly auth: Authenticator;
  /** By backend name. */
  readonly backends: ReadonlyMap<string, Backend>;
  /** What a plain client sees. */
  readonly view: View;
  /** What clients of an era that declared these capabilities (JSON text) see. */
  viewOf(client: Kind): View;
  /**
   * Backends that list more for a client like this get a moment to do so, the first time one comes, and when it comes as somebody
   * whom they show other things. Undefined when there is nothing to wait for. Never rejects.
   */
  join(session: Session): Promise<void> | undefined;
  /** Who hears a client's answers to a backend: also one that has left and still has calls. */
  listenerOf(backend: string): Backend | undefined;
  /** What was there a moment ago. */
  readonly departed: Departed;
  /** Views that are known now. */
  views(): Iterable<View>;
  /** Notes which backends of the one before are no longer here, and what they had. */
  follow(before: VirtualServer): void;
  /** Deadline of a call to a backend, milliseconds. */
  timeoutMs(backend: string): number;
  /** Merges the catalogs again at the next look; gives the view that clients of a kind had, if any had looked. */
  refresh(): (client: Kind) => View | undefined;
}

/** What makes clients see different things. */
export type Kind = Pick<Session, "era" | "capabilities" | "caller">;

const plain: Kind = { era: "stateless", capabilities: "{}", caller: undefined };
const viewsMax = 512;
const joinMs = 2_000;

/** Nothing is merged before somebody looks. */
export function createVirtualServer(options: {
  name: string;
  spec: VirtualServerSpec;
  auth: Authenticator;
  backends: readonly Backend[];
  /** Of the one before, if there was one. */
  departed?: Departed | undefined;
}): VirtualServer {
  const { name, spec, auth, departed = createDeparted() } = options;
  if (!spec.aggregation) throw new Error("aggregation is missing");
  const rules = spec.aggregation;
  const backends = new Map(options.backends.map((backend) => [backend.name, backend]));
  const timeouts = new Map(
    Object.entries(spec.operational?.timeouts?.perWorkload ?? {}).map(([backend, value]) => [backend, durationMs(value)]),
  );
  const defaultTimeoutMs = spec.operational?.timeouts?.default ? durationMs(spec.operational.timeouts.default) : 30_000;
  const hidesUnhealthy = spec.operational?.failureHandling?.partialFailureMode === "best_effort";
  const quarantines = rules.toolChanges === "quarantine";
  let views = new Map<string, View>();
  const joined = new WeakMap<Session, string>(); // in which context

  /** Which backends show a client what they show nobody else; empty for most. */
  function contextOf({ caller }: Kind): string {
    let contexts = "";
    if (caller)
      for (const backend of options.backends) {
        const context = backend.contextOf(caller);
        if (context !== undefined) contexts += `${backend.name} ${context} `;
      }
    return contexts;
  }

  function keyOf(client: Kind): string {
    return `${client.era} ${contextOf(client)}${client.capabilities}`;
  }

  function viewOf(client: Kind): View {
    const key = keyOf(client);
    const existing = views.get(key);
    if (existing) return existing;
    const view = makeView(client);
    if (views.size >= viewsMax) views.delete(views.keys().next().value as string);
    views.set(key, view);
    return view;
  }

  /** By default what an unhealthy backend has stays listed, and calls say what is wrong with it. */
  function isHidden({ state }: Backend): boolean {
    return hidesUnhealthy && state.state === "unhealthy";
  }

  /** A new view, or one that another kind of client has already, when they see the same. */
  function makeView(client: Kind): View {
    const { era, capabilities } = client;
    const sources = options.backends.map((backend) => ({
      backend: backend.name,
      catalog: backend.catalogOf(client),
      isHidden: isHidden(backend),
      ...(quarantines ? { isQuarantined: (tool: CatalogItem) => isUnapproved(tool, backend.shared) } : {}),
    }));
    const isPlain = options.backends.every((backend, i) => backend.catalog === sources[i]?.catalog);
    if (isPlain && (capabilities !== plain.capabilities || contextOf(client) !== "")) return viewOf({ ...plain, era });
    if (era === "session" && !sources.some(({ catalog }) => catalog && needsWrapping(catalog)))
      return viewOf({ ...client, era: "stateless" });
    return createView(rules, sources, { era, isEverybody: isPlain });
  }
  viewOf(plain); // a rule that can't be followed shows here, not at the first request

  return {
    name,
    serverInfo: JSON.stringify({ name, version: softwareVersion }),
    spec,
    auth,
    backends,
    get view() {
      return viewOf(plain);
    },
    viewOf,
    departed,
    listenerOf: (backend) => backends.get(backend) ?? departed.draining(backend),
    views: () => new Set([viewOf(plain), ...views.values()]),
    follow(before) {
      const left = [...before.backends.values()].filter((backend) => !backends.has(backend.name));
      if (left.length > 0) departed.note(left, before.views());
    },
    join(session) {
      const context = contextOf(session);
      if (joined.get(session) === context) return undefined;
      joined.set(session, context);
      const joining = Promise.all(options.backends.map((backend) => backend.join(session)));
      return Promise.race([joining.then(() => undefined), sleep(joinMs, undefined, { ref: false })]);
    },
    timeoutMs: (backend) => timeouts.get(backend) ?? defaultTimeoutMs,
    refresh() {
      const before = views;
      views = new Map();
      return (client) => before.get(keyOf(client));
    },
  };
}

/** The kinds of lists in which two views differ. */
export function changedKinds(before: View, after: View): ListKind[] {
  return (Object.keys(after.lists) as ListKind[]).filter((kind) => after.lists[kind].digest !== before.lists[kind].digest);
}
