// One backend at one or several places, which do the same: a session stays where it began, other calls go where least is going on, and
// what was provably not sent goes to the next place. A place that fails is tried last, and never left out: it may be all there is. Places
// come and go while calls are made.
import type { Message } from "../mcp/json-rpc.ts";
import type { Session } from "../session/session.ts";
import { sumOf } from "../telemetry/call-meter.ts";
import type { Backend, BackendOptions, CallOptions } from "./backend.ts";
import type { Catalog } from "./catalog.ts";
import { BackendError } from "./errors.ts";
import type { HealthState } from "./health.ts";

/** A place, and how soon it is chosen: those with a lower number first, others only when they fail. */
export interface Endpoint {
  readonly backend: Backend;
  readonly priority: number;
  /** Under which a session's state knows its session with this place. */
  readonly legKey: string;
}

export type EndpointList = readonly [Endpoint, ...Endpoint[]];

type OnMessage = BackendOptions["onMessage"];

export interface Endpoints {
  /** All of them as one; what they are is theirs, which of them is asked is decided here. */
  readonly backend: Backend;
  readonly places: EndpointList;
  /** What its places say, passed on as said by all of them: whoever hears it is to answer where the session is by then. */
  readonly hear: OnMessage;
  /** New calls go to these from now on. Calls in flight end where they are, so whoever leaves is not to be retired before that. */
  move(endpoints: EndpointList): void;
}

/** `start` is called at once, with what the places are to tell. Nothing of it is kept: it may know more than is to live as long. */
export function createEndpoints(start: (hear: OnMessage) => EndpointList, onMessage: OnMessage): Endpoints {
  const hear: OnMessage = (session, _place, message) => onMessage(session, backend, message);
  let endpoints = start(hear);
  /** What was listed before the last move: it counts until the new places have been listed. */
  let kept: Catalog | undefined;
  const homes = new WeakMap<Session, Backend>();
  let turn = 0;

  const all = (): Backend[] => endpoints.map(({ backend }) => backend);

  /** Best first. Of equals another one each time. */
  function ranked(): readonly Endpoint[] {
    if (endpoints.length === 1) return endpoints;
    const from = turn++;
    const place = new Map(endpoints.map((endpoint, i) => [endpoint, (i + from) % endpoints.length]));
    return endpoints.toSorted(
      (a, b) =>
        trouble(a) - trouble(b) ||
        a.priority - b.priority ||
        a.backend.inFlight - b.backend.inFlight ||
        (place.get(a) ?? 0) - (place.get(b) ?? 0),
    );
  }

  /** The one that says what there is: the first in the operator's order that works, so that all proxies see the same. */
  function primary(): Backend {
    if (endpoints.length === 1) return endpoints[0].backend;
    const listed = endpoints.toSorted((a, b) => a.priority - b.priority).filter(({ backend }) => backend.catalog !== undefined);
    return (listed.find((one) => trouble(one) === 0) ?? listed[0] ?? endpoints[0]).backend;
  }

  /** Where the session with the backend is, here or as another replica left it. */
  function homeOf(session: Session): Endpoint | undefined {
    const home = homes.get(session);
    const here = home && endpoints.find(({ backend }) => backend === home);
    if (here) return here;
    const newestFirst = [...session.state.legs.keys()].toReversed();
    return newestFirst.map((key) => endpoints.find(({ legKey }) => legKey === key)).find((one) => one !== undefined);
  }

  /** Where a call goes first, and then, as long as it was not sent. */
  function routeOf(session: Session): readonly Endpoint[] {
    const order = ranked();
    if (order.length === 1) return order;
    const home = isStateless() ? undefined : homeOf(session);
    if (!home) return order;
    // A place that is left alone would only say so; another begins a new session.
    if (home.backend.isLeftAlone && order.some(({ backend }) => !backend.isLeftAlone)) return order;
    return [home, ...order.filter((one) => one !== home)];
  }

  function isStateless(): boolean {
    return primary().catalog?.facts.era === "stateless";
  }

  /** Calls go here from now on; also those that come meanwhile, and if this one fails it may have a session there. */
  function settleAt(session: Session, place: Backend): void {
    if (homes.get(session) !== place) homes.set(session, place);
  }

  async function call(session: Session, message: Message, options: CallOptions): Promise<Message> {
    const home = homes.get(session);
    const tried: Backend[] = [];
    const spared: Backend[] = [];
    let failure: unknown;
    while (!options.limit.signal.aborted) {
      // Looked up each time: places may have come and gone during an attempt.
      const place = routeOf(session).find(({ backend }) => !tried.includes(backend))?.backend;
      if (!place) break;
      settleAt(session, place);
      try {
        return await place.call(session, message, options);
      } catch (error) {
        if (!isElsewhereWorth(error)) throw error;
        // The first place's reason is the one that tells what is wrong.
        failure ??= error;
        if (error.code === "shed") spared.push(place);
        tried.push(place);
      }
    }
    if (home) settleAt(session, home);
    if (options.limit.signal.aborted) throw failure ?? options.limit.signal.reason;
    // One that has just come back is spared by its breaker; where there is no other, that would only fail more calls.
    const well = tried.length > 1 ? spared.find(isWell) : undefined;
    if (!well) throw failure;
    settleAt(session, well);
    return well.call(session, message, { ...options, isLastResort: true });
  }

  const at = (session: Session): Backend => (homeOf(session) ?? ranked()[0] ?? endpoints[0]).backend;

  /** Where a session's answers are waited for: at a place that left, too, while it has calls. */
  function listenerOf(session: Session): Backend {
    const home = homes.get(session);
    return home && home.inFlight > 0 ? home : at(session);
  }

  const backend: Backend = {
    name: endpoints[0].backend.name,
    isShared: endpoints[0].backend.isShared,
    get catalog() {
      return primary().catalog ?? kept;
    },
    get state() {
      return all()
        .map(({ state }) => state)
        .toSorted((a, b) => rank(a.state) - rank(b.state))[0] as Backend["state"];
    },
    get inFlight() {
      return all().reduce((sum, { inFlight }) => sum + inFlight, 0);
    },
    get isLeftAlone() {
      return endpoints.every((one) => one.backend.isLeftAlone);
    },
    get listedWith() {
      return primary().listedWith;
    },
    get listed() {
      const inOrder = endpoints.toSorted((a, b) => a.priority - b.priority);
      const well = inOrder.find((one) => trouble(one) === 0 && one.backend.listed !== undefined);
      return (well ?? inOrder.find((one) => one.backend.listed !== undefined))?.backend.listed;
    },
    get isWatched() {
      return all().some(({ isWatched }) => isWatched);
    },
    get shared() {
      return primary().shared;
    },
    share(shared) {
      for (const one of all()) one.share(shared);
    },
    rest(duty) {
      // How all of them are together says nothing of one.
      const each = endpoints.length > 1 && duty !== "ours" ? "others" : duty;
      for (const one of all()) one.rest(each);
    },
    get tokens() {
      return endpoints[0].backend.tokens;
    },
    get calls() {
      return sumOf(all().map(({ calls }) => calls));
    },
    get firstAttempt() {
      return Promise.race(all().map(({ firstAttempt }) => firstAttempt));
    },
    get endpoints() {
      return endpoints.length > 1 ? all() : undefined;
    },
    catalogOf: (client) => primary().catalogOf(client) ?? kept,
    contextOf: (caller) => primary().contextOf(caller),
    prove: (asker) => primary().prove(asker),
    join: async (session) => void (await Promise.all(all().map((one) => one.join(session)))),
    call,
    tell: (session, message) => listenerOf(session).tell(session, message),
    adopt: async (session) => void (await Promise.all(all().map((one) => one.adopt(session)))),
    follow: (session) => at(session).follow(session),
    followTask: (session, taskId, isWanted) => at(session).followTask(session, taskId, isWanted),
    setLogLevel: async (session) => void (await Promise.all(all().map((one) => one.setLogLevel(session)))),
    relist: () => primary().relist(),
    configure(settings, health) {
      for (const one of all()) one.configure(settings, health);
    },
    retire: async (graceMs) => void (await Promise.all(all().map((one) => one.retire(graceMs)))),
  };

  return {
    backend,
    get places() {
      return endpoints;
    },
    hear,
    move(next) {
      kept = backend.catalog;
      endpoints = next;
    },
  };
}

/** Whether a call that failed may be made at another place: it was not sent, and not for a reason that all places share. */
function isElsewhereWorth(error: unknown): error is BackendError {
  return error instanceof BackendError && error.outcome === "not_executed" && elsewhereWorth.has(error.code);
}
const elsewhereWorth: ReadonlySet<BackendError["code"]> = new Set(["unavailable", "shed", "gone"]);

function trouble({ backend }: Endpoint): number {
  if (backend.isLeftAlone) return 2;
  return backend.state.state === "unhealthy" || backend.state.state === "unauthenticated" ? 1 : 0;
}

function isWell({ state }: Backend): boolean {
  return state.state === "healthy" || state.state === "degraded";
}

const order: readonly HealthState[] = ["healthy", "degraded", "unknown", "unauthenticated", "unhealthy"];

function rank(state: HealthState): number {
  return order.indexOf(state);
}
