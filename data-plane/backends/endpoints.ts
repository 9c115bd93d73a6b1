// One backend at several places, which do the same: a session stays where it began, other calls go where least is going on, and what
// was provably not sent goes to the next place. A place that fails is tried last, and never left out: it may be all there is.
import type { Message } from "../mcp/json-rpc.ts";
import type { Session } from "../session/session.ts";
import { sumOf } from "../telemetry/call-meter.ts";
import type { Backend, CallOptions } from "./backend.ts";
import { BackendError } from "./errors.ts";
import type { HealthState } from "./health.ts";

/** A place, and how soon it is chosen: those with a lower number first, others only when they fail. */
export interface Endpoint {
  readonly backend: Backend;
  readonly priority: number;
  /** Under which a session's state knows its session with this place. */
  readonly legKey: string;
}

/** The places as one backend; what they are is theirs, which of them is asked is decided here. */
export function createEndpoints(endpoints: readonly [Endpoint, ...Endpoint[]]): Backend {
  const all = endpoints.map(({ backend }) => backend);
  const homes = new WeakMap<Session, Endpoint>();
  let turn = 0;

  /** Best first. Of equals another one each time. */
  function ranked(): Endpoint[] {
    const from = turn++;
    const place = new Map(endpoints.map((endpoint, i) => [endpoint, (i + from) % endpoints.length]));
    return [...endpoints].sort(
      (a, b) =>
        trouble(a) - trouble(b) ||
        a.priority - b.priority ||
        a.backend.inFlight - b.backend.inFlight ||
        (place.get(a) ?? 0) - (place.get(b) ?? 0),
    );
  }

  /** The one that says what there is: the first in the operator's order that works, so that all proxies see the same. */
  function primary(): Backend {
    const listed = endpoints.toSorted((a, b) => a.priority - b.priority).filter(({ backend }) => backend.catalog !== undefined);
    return (listed.find((one) => trouble(one) === 0) ?? listed[0] ?? endpoints[0]).backend;
  }

  /** Where the session with the backend is, here or as another replica left it. */
  function homeOf(session: Session): Endpoint | undefined {
    return homes.get(session) ?? endpoints.find(({ legKey }) => session.state.legs.has(legKey));
  }

  /** Where a call goes first, and then, as long as it was not sent. */
  function routeOf(session: Session): Endpoint[] {
    const order = ranked();
    const home = isStateless() ? undefined : homeOf(session);
    if (!home) return order;
    // A place that is left alone would only say so; another begins a new session.
    if (home.backend.isLeftAlone && order.some(({ backend }) => !backend.isLeftAlone)) return order;
    return [home, ...order.filter((one) => one !== home)];
  }

  function isStateless(): boolean {
    return primary().catalog?.facts.era === "stateless";
  }

  async function call(session: Session, message: Message, options: CallOptions): Promise<Message> {
    let failure: unknown;
    const spared: Endpoint[] = [];
    for (const endpoint of routeOf(session)) {
      if (options.limit.signal.aborted) break;
      try {
        const answer = await endpoint.backend.call(session, message, options);
        homes.set(session, endpoint);
        return answer;
      } catch (error) {
        // The first place's reason is the one that tells what is wrong.
        failure ??= error;
        if ((error as BackendError).code === "shed") spared.push(endpoint);
        if (!isElsewhereWorth(error)) {
          homes.set(session, endpoint); // it may have a session there
          throw error;
        }
      }
    }
    if (options.limit.signal.aborted) throw failure ?? options.limit.signal.reason;
    // One that has just come back is spared by its breaker; where there is no other, that would only fail more calls.
    const well = spared.find((endpoint) => isWell(endpoint));
    if (!well) throw failure;
    homes.set(session, well);
    return well.backend.call(session, message, { ...options, isLastResort: true });
  }

  const at = (session: Session): Backend => (homeOf(session)?.backend ?? ranked()[0]?.backend) as Backend;

  return {
    name: all[0]?.name as string,
    isShared: false,
    get catalog() {
      return primary().catalog;
    },
    get state() {
      return endpoints
        .map(({ backend }) => backend.state)
        .toSorted((a, b) => rank(a.state) - rank(b.state))[0] as Backend["state"];
    },
    get inFlight() {
      return all.reduce((sum, { inFlight }) => sum + inFlight, 0);
    },
    get isLeftAlone() {
      return all.every(({ isLeftAlone }) => isLeftAlone);
    },
    get listedWith() {
      return primary().listedWith;
    },
    tokens: all[0]?.tokens,
    get calls() {
      return sumOf(all.map(({ calls }) => calls));
    },
    firstAttempt: Promise.race(all.map(({ firstAttempt }) => firstAttempt)),
    catalogOf: (client) => primary().catalogOf(client),
    contextOf: (caller) => primary().contextOf(caller),
    prove: (asker) => primary().prove(asker),
    join: async (session) => void (await Promise.all(all.map((backend) => backend.join(session)))),
    call,
    tell: (session, message) => at(session).tell(session, message),
    adopt: async (session) => void (await Promise.all(all.map((backend) => backend.adopt(session)))),
    follow: (session) => at(session).follow(session),
    followTask: (session, taskId, isWanted) => at(session).followTask(session, taskId, isWanted),
    setLogLevel: async (session) => void (await Promise.all(all.map((backend) => backend.setLogLevel(session)))),
    relist: () => primary().relist(),
    configure(settings, health) {
      for (const backend of all) backend.configure(settings, health);
    },
    retire: async (graceMs) => void (await Promise.all(all.map((backend) => backend.retire(graceMs)))),
    endpoints: all,
  };
}

/** Whether a call that failed may be made at another place: it was not sent, and not for a reason that all places share. */
function isElsewhereWorth(error: unknown): boolean {
  return (
    error instanceof BackendError && error.outcome === "not_executed" && (error.code === "unavailable" || error.code === "shed")
  );
}

function trouble({ backend }: Endpoint): number {
  if (backend.isLeftAlone) return 2;
  return backend.state.state === "unhealthy" || backend.state.state === "unauthenticated" ? 1 : 0;
}

function isWell({ backend: { state } }: Endpoint): boolean {
  return state.state === "healthy" || state.state === "degraded";
}

const order: readonly HealthState[] = ["healthy", "degraded", "unknown", "unauthenticated", "unhealthy"];

function rank(state: HealthState): number {
  return order.indexOf(state);
}
