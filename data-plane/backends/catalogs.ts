// What one backend lists: to a client that can do nothing in particular, and, because servers list by what their client
// can do, to each kind of client there is right now. Clients that declare the same share one listing. Where only callers have a
// credential, there is a listing for each of them, made with their own.
import { setTimeout as sleep } from "node:timers/promises";
import type { Message } from "../mcp/json-rpc.ts";
import type { Credential } from "../outgoing-auth/credential.ts";
import type { Session } from "../session/session.ts";
import { type Catalog, isSameCatalog, type ListProblem } from "./catalog.ts";
import { BackendError, reasonOf } from "./errors.ts";
import { createHealth, type HealthSettings, type HealthState, type Observation } from "./health.ts";
import type { ClientFacts, Leg } from "./leg.ts";
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

export interface CatalogsOptions {
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

/** Starts to watch at once. */
export function watchCatalogs({
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
  let base: Catalog | undefined;
  let checks = initialHealth;
  const health = createHealth(initialHealth);

  const watching = watchCatalog({
    open: (signal) => open(gateway, signal),
    signal: stop.signal,
    relist,
    mayRefresh,
    onMessage,
    onProblems,
    checks: () => checks,
    onAnswered: (tookMs) => see({ kind: "success", tookMs }),
    onCatalog(listed) {
      const isNews = !base || !isSameCatalog(base, listed);
      base = listed;
      first.resolve();
      if (isNews) onChange(stateNow());
    },
    onFailure(error) {
      if (error instanceof BackendError && error.code === "timeout") onSilence();
      // Where only callers get in it was not asked, so nothing is known of it but by them.
      if (credential.gatewayShows !== "nobody") see(observationOf(error));
      first.resolve();
    },
  });

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
        overlay.catalog = base && isSameCatalog(base, listed) ? base : listed;
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

  return {
    get base() {
      return base;
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
      const catalog = overlays.get(keyOf(client).key)?.catalog ?? base;
      return credential.canSignIn ? withSignIn(catalog) : catalog;
    },
    async join(session) {
      const overlay = isShared ? undefined : overlayFor(session);
      if (!overlay) return; // so many kinds of clients are served from the base
      enter(overlay, session);
      await overlay.first;
    },
    async relist() {
      relist.done ??= Promise.withResolvers();
      relist.wanted();
      await Promise.race([relist.done.promise, sleep(relistMs, undefined, { ref: false })]);
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new Error("the backend was removed"));
      for (const { users } of overlays.values()) for (const forget of users.values()) forget();
      await watching;
    },
  };
}

/** What a failed check says of the backend. */
function observationOf(error: unknown): Observation {
  const reason = reasonOf(error);
  const isShut = error instanceof BackendError && (error.code === "unauthorized" || error.code === "no_credential");
  return isShut ? { kind: "unauthenticated", reason } : { kind: "failure", reason };
}
