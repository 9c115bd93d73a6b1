// What one backend lists: to a client that can do nothing in particular, and, because servers list by what their client
// can do, to each kind of client there is right now. Clients that declare the same share one listing. Where only callers have a
// credential, there is a listing for each of them, made with their own.
import { setTimeout as sleep } from "node:timers/promises";
import type { Message } from "../mcp/json-rpc.ts";
import type { Credential } from "../outgoing-auth/credential.ts";
import type { Session } from "../session/session.ts";
import { type Catalog, isSameCatalog, type ListProblem } from "./catalog.ts";
import { BackendError, reasonOf } from "./errors.ts";
import type { ClientFacts, Leg } from "./leg.ts";
import { withSignIn } from "./sign-in-tool.ts";
import { type RelistRequest, watchCatalog } from "./watch.ts";

/** How a backend is. */
export interface BackendState {
  /** "waiting": it lets nobody in but callers, and none of them has listed it yet. */
  readonly state: "connecting" | "ready" | "unavailable" | "waiting";
  /** When not ready, why. */
  readonly error: string | undefined;
}

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
  readonly onMessage: (message: Message) => void;
  /** What is wrong with its lists changed; nothing is when all is well again. */
  readonly onProblems: (problems: readonly ListProblem[]) => void;
  /** It was asked and did not answer in time. */
  readonly onSilence: () => void;
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
const ready: BackendState = { state: "ready", error: undefined };

/** Starts to watch at once. */
export function watchCatalogs({
  open,
  gateway,
  isShared,
  credential,
  onMessage,
  onProblems,
  onSilence,
  onChange,
}: CatalogsOptions): Catalogs {
  const stop = new AbortController();
  const overlays = new Map<string, Overlay>();
  const first = Promise.withResolvers<void>();
  const relist: RelistRequest = { wanted: () => undefined, done: undefined };
  let base: Catalog | undefined;
  let state: BackendState = { state: "connecting", error: undefined };

  const watching = watchCatalog({
    open: (signal) => open(gateway, signal),
    signal: stop.signal,
    relist,
    onMessage,
    onProblems,
    onCatalog(listed) {
      const isNews = !base || !isSameCatalog(base, listed) || state.state !== "ready";
      base = listed;
      state = ready;
      first.resolve();
      if (isNews) onChange(state);
    },
    onFailure(error) {
      if (error instanceof BackendError && error.code === "timeout") onSilence();
      if (credential.gatewayShows === "nobody") become(learned() ? ready : { state: "waiting", error: reasonOf(error) });
      else become({ state: "unavailable", error: reasonOf(error) });
      first.resolve();
    },
  });

  function become(next: BackendState): void {
    const isNews = state.state !== next.state || state.error !== next.error;
    state = next;
    if (isNews) onChange(state);
  }

  /** Whether some caller's own session has listed it. */
  function learned(): boolean {
    return overlays.values().some(({ isOfCaller, catalog }) => isOfCaller && catalog !== undefined);
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
      onMessage: () => undefined,
      onCatalog(listed) {
        const isNews = !overlay.catalog || !isSameCatalog(overlay.catalog, listed);
        // The same bytes as the base are the same catalog, so that views can be shared too.
        overlay.catalog = base && isSameCatalog(base, listed) ? base : listed;
        attempted.resolve();
        if (isOfCaller && credential.gatewayShows === "nobody") state = ready;
        if (isNews) onChange(state);
      },
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
      return state;
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
