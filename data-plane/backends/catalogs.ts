// What one backend lists: to a client that can do nothing in particular, and, because servers list by what their client
// can do, to each kind of client there is right now. Clients that declare the same share one listing.
import { setTimeout as sleep } from "node:timers/promises";
import type { Message } from "../mcp/json-rpc.ts";
import type { Session } from "../session/session.ts";
import { type Catalog, isSameCatalog, type ListProblem } from "./catalog.ts";
import { BackendError, reasonOf } from "./errors.ts";
import type { ClientFacts, Leg } from "./leg.ts";
import { type RelistRequest, watchCatalog } from "./watch.ts";

/** How a backend is. */
export interface BackendState {
  readonly state: "connecting" | "ready" | "unavailable";
  /** When not ready, why. */
  readonly error: string | undefined;
}

export interface Catalogs extends AsyncDisposable {
  /** As a plain client sees it; kept while the backend is away. */
  readonly base: Catalog | undefined;
  readonly state: BackendState;
  /** Settles when the first attempt to list it has ended, either way. */
  readonly firstAttempt: Promise<void>;
  /** As clients that declared these capabilities see it; the base until that is known. */
  of(capabilities: string): Catalog | undefined;
  /** Lists for clients like this one while there is any; settles after the first attempt. */
  join(session: Session): Promise<void>;
  /** Lists the base again; settles when that is done, or after 5 s. */
  relist(): Promise<void>;
}

export interface CatalogsOptions {
  readonly open: (client: ClientFacts, signal: AbortSignal) => Promise<Leg>;
  /** What the watcher says it is. */
  readonly gateway: ClientFacts;
  /** The backend can't tell clients apart, so there is only the base. */
  readonly isShared: boolean;
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
  catalog: Catalog | undefined;
}

const overlaysMax = 8;
const idleMs = 60_000;
const relistMs = 5_000;
const noCapabilities = "{}";

/** Starts to watch at once. */
export function watchCatalogs({
  open,
  gateway,
  isShared,
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
      state = { state: "ready", error: undefined };
      first.resolve();
      if (isNews) onChange(state);
    },
    onFailure(error) {
      if (error instanceof BackendError && error.code === "timeout") onSilence();
      const reason = reasonOf(error);
      const isNews = state.state !== "unavailable" || state.error !== reason;
      state = { state: "unavailable", error: reason };
      first.resolve();
      if (isNews) onChange(state);
    },
  });

  function openOverlay(capabilities: string): Overlay {
    const attempted = Promise.withResolvers<void>();
    const overlay: Overlay = { users: new Map(), stop: new AbortController(), first: attempted.promise, catalog: undefined };
    void watchCatalog({
      open: (signal) => open({ ...gateway, capabilities }, signal),
      signal: AbortSignal.any([stop.signal, overlay.stop.signal]),
      onMessage: () => undefined,
      onCatalog(listed) {
        const isNews = !overlay.catalog || !isSameCatalog(overlay.catalog, listed);
        // The same bytes as the base are the same catalog, so that views can be shared too.
        overlay.catalog = base && isSameCatalog(base, listed) ? base : listed;
        attempted.resolve();
        if (isNews) onChange(state);
      },
      onFailure: () => attempted.resolve(), // the base watcher tells of it
    });
    overlays.set(capabilities, overlay);
    return overlay;
  }

  function leave(session: Session, capabilities: string, overlay: Overlay): void {
    overlay.users.delete(session);
    setTimeout(() => {
      if (overlay.users.size > 0 || overlays.get(capabilities) !== overlay) return;
      overlays.delete(capabilities);
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
    of: (capabilities) => overlays.get(capabilities)?.catalog ?? base,
    async join(session) {
      const { capabilities } = session;
      if (isShared || capabilities === noCapabilities) return;
      const overlay = overlays.get(capabilities) ?? (overlays.size < overlaysMax ? openOverlay(capabilities) : undefined);
      if (!overlay) return; // so many kinds of clients are served from the base
      if (!overlay.users.has(session)) {
        const forget = session.onEnd(() => leave(session, capabilities, overlay));
        overlay.users.set(session, forget);
      }
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
