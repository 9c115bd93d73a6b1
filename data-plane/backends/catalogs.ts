// What one backend lists: to a client that can do nothing in particular, and, because servers list by what their client
// can do, to each kind of client there is right now. Clients that declare the same share one listing. Where only callers have a
// credential, there is a listing for each of them, made with their own.
//
// What plain clients see is shared by the fleet: one proxy watches a backend and the others rest, with the catalog that they are given.
// Of that and what was listed here, the one that came last counts.
//
// Longer than most files here: which listing counts is decided from all of them, by one state.
import { setTimeout as sleep } from "node:timers/promises";
import type { Message } from "../mcp/json-rpc.ts";
import type { Credential } from "../outgoing-auth/credential.ts";
import type { Session } from "../session/session.ts";
import { type Catalog, isSameCatalog, type ListProblem, listCatalog } from "./catalog.ts";
import { BackendError, reasonOf } from "./errors.ts";
import { createHealth, type HealthSettings, type HealthState, type Observation } from "./health.ts";
import type { ClientFacts, Leg } from "./leg.ts";
import type { SharedCatalog } from "./shared-catalog.ts";
import { withSignIn } from "./sign-in-tool.ts";
import { type CheckSettings, type RelistRequest, watchCatalog } from "./watch.ts";

/** How a backend is. */
export interface BackendState {
  readonly state: HealthState;
  /** When it is not healthy, why. */
  readonly error: string | undefined;
  /** When it came to be so, milliseconds since 1970. */
  readonly sinceMs: number;
}

export interface HealthOptions extends HealthSettings, CheckSettings {}

export interface Catalogs extends AsyncDisposable {
  /** As a plain client sees it; kept while the backend is away. */
  readonly base: Catalog | undefined;
  /** The same as it was listed here, for others to have it; undefined while others watch, or when only callers get in. */
  readonly listed: Catalog | undefined;
  /** It is checked here, and heard when its lists change. */
  readonly isWatched: boolean;
  /** What the fleet knows. */
  readonly shared: SharedCatalog | undefined;
  share(shared: SharedCatalog | undefined): void;
  /** Whether others watch it, and how it is as they see it. */
  rest(duty: Duty): void;
  readonly state: BackendState;
  /** Settles when the first attempt to list it has ended, either way. */
  readonly firstAttempt: Promise<void>;
  /** As a client sees it; the base until that is known. */
  of(client: Audience): Catalog | undefined;
  /** Lists for clients like this one while there is any; settles after the first attempt. */
  join(session: Session): Promise<void>;
  /** Lists the base again; settles when that is done, or after 5 s. */
  relist(): Promise<void>;
  /** A call says how the backend is, too. */
  see(observation: Observation): void;
  configure(settings: HealthOptions): void;
}

/** Whom a catalog is for. */
export type Audience = Pick<Session, "capabilities" | "caller">;

/** Who watches: we, or another proxy, which may have said how the backend is. */
export type Duty = "ours" | { readonly state: HealthState; readonly error: string | undefined } | "others";

export interface CatalogsOptions {
  /** What the fleet knows at the start. */
  readonly shared: SharedCatalog | undefined;
  readonly duty: Duty;
  readonly open: (client: ClientFacts, signal: AbortSignal) => Promise<Leg>;
  /** What the watcher says it is. */
  readonly gateway: ClientFacts;
  /** The backend can't tell clients apart, so there is only the base. */
  readonly isShared: boolean;
  readonly credential: Pick<Credential, "contextOf" | "gatewayShows" | "canSignIn">;
  readonly health: HealthOptions;
  readonly onMessage: (message: Message) => void;
  /** What is wrong with its lists changed; nothing is when all is well again. */
  readonly onProblems: (problems: readonly ListProblem[]) => void;
  /** It was asked and did not answer in time. */
  readonly onSilence: () => void;
  /** See WatchOptions. */
  readonly mayRefresh: () => boolean;
  /** The state or a catalog changed. */
  readonly onChange: (state: BackendState) => void;
}

interface Overlay {
  /** With what takes back that we hear of their end. */
  readonly users: Map<Session, () => void>;
  readonly stop: AbortController;
  readonly first: Promise<void>;
  /** Of callers with one credential, rather than for all that can do the same. */
  readonly isOfCaller: boolean;
  catalog: Catalog | undefined;
}

const overlaysMax = 8;
const callerOverlaysMax = 256;
const idleMs = 60_000;
const relistMs = 5_000;
const noCapabilities = "{}";

/** Starts to watch at once, unless others do. */
export function watchCatalogs({
  shared: initiallyShared,
  duty: initialDuty,
  open,
  gateway,
  isShared,
  credential,
  health: initialHealth,
  onMessage,
  onProblems,
  onSilence,
  mayRefresh,
  onChange,
}: CatalogsOptions): Catalogs {
  const stop = new AbortController();
  const overlays = new Map<string, Overlay>();
  const first = Promise.withResolvers<void>();
  const relist: RelistRequest = { wanted: () => undefined, done: undefined };
  let shared = initiallyShared;
  /** What was listed here. */
  let own: Catalog | undefined;
  /** Of the two, the one that came last. */
  let newest = shared?.catalog;
  let duty = initialDuty;
  let watch: { readonly stop: AbortController; readonly ended: Promise<void> } | undefined;
  let checks = initialHealth;
  const health = createHealth(initialHealth);

  /** What the gateway may not list is not taken from others either: who knows what they were shown for it. */
  const base = () => (credential.gatewayShows === "nobody" ? own : newest);

  const watchUntil = (signal: AbortSignal) =>
    watchCatalog({
      open: (opening) => open(gateway, opening),
      signal,
      relist,
      mayRefresh,
      onMessage,
      onProblems,
      checks: () => checks,
      onAnswered: (tookMs) => see({ kind: "success", tookMs }),
      onCatalog(listed) {
        const isFirst = own === undefined;
        own = listed;
        // The same bytes stay the same catalog, so that views can be shared.
        const isOther = !newest || !isSameCatalog(newest, listed);
        if (isOther) newest = listed;
        first.resolve();
        if (isFirst || isOther) onChange(stateNow());
      },
      onFailure(error) {
        if (error instanceof BackendError && error.code === "timeout") onSilence();
        // Where only callers get in it was not asked, so nothing is known of it but by them.
        if (credential.gatewayShows !== "nobody") see(observationOf(error));
        first.resolve();
      },
    });

  /** Watches or rests, as it is our turn. */
  function keepWatch(): void {
    // Without a catalog there is nothing to rest on, and a program of our own is nobody else's to look at.
    const isOurs = duty === "ours" || isShared || base() === undefined || !shared;
    if (isOurs && !watch) {
      const round = new AbortController();
      watch = { stop: round, ended: watchUntil(AbortSignal.any([stop.signal, round.signal])) };
    }
    if (isOurs) return;
    first.resolve();
    watch?.stop.abort(new Error("another proxy watches it"));
    watch = undefined;
    own = undefined;
  }

  function take(next: Catalog | undefined): void {
    if (!next || (newest && isSameCatalog(newest, next))) return;
    newest = next;
    onChange(stateNow());
  }
  if (typeof duty === "object") health.adopt(duty.state, duty.error);
  keepWatch();

  function stateNow(): BackendState {
    const { state, reason, sinceMs } = health;
    const isWaiting = state === "unknown" && credential.gatewayShows === "nobody";
    return { state, error: isWaiting ? "only callers get in, and none has come yet" : reason, sinceMs };
  }

  function see(observation: Observation): void {
    const { reason } = health;
    if (health.see(observation) || health.reason !== reason) onChange(stateNow());
  }

  function keyOf({ capabilities, caller }: Audience): { readonly key: string; readonly isOfCaller: boolean } {
    const context = credential.contextOf(caller);
    return { key: context === undefined ? capabilities : `${context} ${capabilities}`, isOfCaller: context !== undefined };
  }

  function openOverlay(key: string, isOfCaller: boolean, session: Session): Overlay {
    const attempted = Promise.withResolvers<void>();
    const users: Overlay["users"] = new Map();
    const overlay: Overlay = { users, stop: new AbortController(), first: attempted.promise, isOfCaller, catalog: undefined };
    // Whose token is newest nobody knows; that of whoever came last is likely to live longest.
    const as: ClientFacts = {
      ...gateway,
      capabilities: session.capabilities,
      get caller() {
        return isOfCaller ? [...users.keys()].at(-1)?.caller : undefined;
      },
    };
    overlays.set(key, overlay);
    enter(overlay, session); // whose credential the first attempt is made with
    void watchCatalog({
      open: (signal) => open(as, signal),
      signal: AbortSignal.any([stop.signal, overlay.stop.signal]),
      mayRefresh,
      onMessage: () => undefined,
      onCatalog(listed) {
        const isNews = !overlay.catalog || !isSameCatalog(overlay.catalog, listed);
        // The same bytes as the base are the same catalog, so that views can be shared too.
        const plain = base();
        overlay.catalog = plain && isSameCatalog(plain, listed) ? plain : listed;
        attempted.resolve();
        if (isNews) onChange(stateNow());
      },
      checks: () => checks,
      ...(isOfCaller ? { onAnswered: (tookMs: number) => see({ kind: "success", tookMs }) } : {}),
      // The base watcher tells of it, unless it is this caller's own affair.
      onFailure: () => attempted.resolve(),
    });
    return overlay;
  }

  /** The overlay of a kind of client, opened when there is none and room for one. */
  function overlayFor(session: Session): Overlay | undefined {
    const { key, isOfCaller } = keyOf(session);
    const existing = overlays.get(key);
    if (existing || (!isOfCaller && session.capabilities === noCapabilities)) return existing;
    const alike = overlays.values().filter((one) => one.isOfCaller === isOfCaller);
    const isFull = [...alike].length >= (isOfCaller ? callerOverlaysMax : overlaysMax);
    return isFull ? undefined : openOverlay(key, isOfCaller, session);
  }

  function enter(overlay: Overlay, session: Session): void {
    if (!overlay.users.has(session))
      overlay.users.set(
        session,
        session.onEnd(() => leave(session, overlay)),
      );
  }

  function leave(session: Session, overlay: Overlay): void {
    overlay.users.delete(session);
    setTimeout(() => {
      const [key] = overlays.entries().find(([, one]) => one === overlay) ?? [];
      if (overlay.users.size > 0 || key === undefined) return;
      overlays.delete(key);
      overlay.stop.abort();
    }, idleMs).unref();
  }

  /** Where others watch: what they see comes later than who asks can wait. */
  async function listOnce(): Promise<void> {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(relistMs)]);
    try {
      const leg = await open(gateway, signal);
      try {
        take((await listCatalog(leg, signal, base())).catalog);
      } finally {
        await leg.close();
      }
    } catch (error) {
      if (credential.gatewayShows !== "nobody") see(observationOf(error));
    }
  }

  return {
    get base() {
      return base();
    },
    get listed() {
      return watch && credential.gatewayShows !== "nobody" ? own : undefined;
    },
    get isWatched() {
      return watch !== undefined;
    },
    get shared() {
      return shared;
    },
    share(next) {
      if (next === shared) return;
      shared = next;
      take(next?.catalog);
      keepWatch();
    },
    rest(next) {
      duty = next;
      if (duty !== "ours" && shared) take(shared.catalog);
      keepWatch();
      if (!watch && typeof next === "object" && health.adopt(next.state, next.error)) onChange(stateNow());
    },
    get state() {
      return stateNow();
    },
    see,
    configure(settings) {
      checks = settings;
      health.configure(settings);
    },
    firstAttempt: first.promise,
    // Another caller's listing is nobody's else: without one of their own they see what the gateway itself sees.
    of(client) {
      const catalog = overlays.get(keyOf(client).key)?.catalog ?? base();
      return credential.canSignIn ? withSignIn(catalog) : catalog;
    },
    async join(session) {
      const overlay = isShared ? undefined : overlayFor(session);
      if (!overlay) return; // so many kinds of clients are served from the base
      enter(overlay, session);
      await overlay.first;
    },
    async relist() {
      if (!watch) return await listOnce();
      relist.done ??= Promise.withResolvers();
      relist.wanted();
      await Promise.race([relist.done.promise, sleep(relistMs, undefined, { ref: false })]);
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new Error("the backend was removed"));
      for (const { users } of overlays.values()) for (const forget of users.values()) forget();
      await watch?.ended;
    },
  };
}

/** What a failed check says of the backend. */
function observationOf(error: unknown): Observation {
  const reason = reasonOf(error);
  const isShut = error instanceof BackendError && (error.code === "unauthorized" || error.code === "no_credential");
  return isShut ? { kind: "unauthenticated", reason } : { kind: "failure", reason };
}
