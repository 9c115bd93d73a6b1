// The sessions that client sessions have with one backend: opened at first use, kept, followed, opened again when the
// backend forgot one, ended with the client session.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import type { StoredLeg } from "../session/record.ts";
import { type Ending, notifySession, type Session } from "../session/session.ts";
import { BackendError, reasonOf } from "./errors.ts";
import type { ClientFacts, Leg, Resumable } from "./leg.ts";
import { withDeadline } from "./limit.ts";

export interface SessionLegs extends AsyncDisposable {
  /** The session's leg when nothing has to be waited for: it is open, and knows all that it is to know. */
  ready(session: Session): Leg | undefined;
  /** The session's leg, opened once for all calls that wait for it; throws BackendError, "not_executed". */
  of(session: Session): Promise<Leg>;
  /** The session's leg when it has one, here or on another replica. */
  existing(session: Session): Promise<Leg | undefined>;
  /**
   * Hears what the backend says to this session outside of calls, while the client has a stream to hear it on. Settles when the
   * backend has taken the stream, or won't, or not within 500 ms; never rejects.
   */
  follow(session: Session): Promise<void>;
  /** Tells the session's leg, when it has one, of its log level; settles when the backend knows. Never rejects. */
  setLogLevel(session: Session): Promise<void>;
}

export interface SessionLegsOptions {
  readonly backend: string;
  /** Under which a session's state knows its leg. */
  readonly legKey: string;
  /** Names the server and the credential: a session that another replica opened is gone on with only there. */
  readonly place: string;
  readonly open: (client: ClientFacts, signal: AbortSignal, resumed?: Resumable) => Promise<Leg>;
  readonly onMessage: (session: Session, message: Message) => Promise<void> | undefined;
  readonly log: Log;
}

const placesKept = 8; // of one backend
const legsMax = 1_000;
const openMs = 10_000;
const tellMs = 5_000;
const listenMs = 500;
const reopenMs = 1_000;
const pauseMsMax = 30_000;
// How many subscriptions are made again at a time, and for how long at all.
const subscribingMax = 8;
const subscribingMs = 30_000;
const shortMs = 5_000;

/** None open at first. */
export function createSessionLegs({ backend, legKey, place, open: openNow, onMessage, log }: SessionLegsOptions): SessionLegs {
  const legs = new Map<Session, Promise<Leg>>();
  const open = new Map<Session, Leg>(); // those of them that have been opened
  const known = new Map<Session, () => void>(); // whose end we hear of, and what takes that back
  const isOver = new AbortController();
  const followed = new WeakMap<Leg, Session["stream"]>();
  const levels = new WeakMap<Leg, string | undefined>(); // what legs were told that only this replica has

  async function of(session: Session): Promise<Leg> {
    const existing = legs.get(session);
    const leg = existing && (await existing);
    if (leg?.closedBy === undefined && leg) return levelled(session, leg);
    if (legs.get(session) !== existing) return of(session); // another call opened one meanwhile
    const opening = openLeg(session, leg);
    legs.set(session, opening);
    open.delete(session);
    if (!known.has(session) && !session.hasEnded)
      known.set(
        session,
        session.onEnd((ending) => void drop(session, ending)),
      );
    opening.then(
      (opened) => legs.get(session) === opening && open.set(session, opened),
      () => legs.get(session) === opening && legs.delete(session),
    );
    return opening;
  }

  function ready(session: Session): Leg | undefined {
    const leg = open.get(session);
    return leg && leg.closedBy === undefined && !isBehind(session, leg) ? leg : undefined;
  }

  /** Opens the session's leg, or goes on with the one that another replica opened. `lost` is the one that there was here. */
  async function openLeg(session: Session, lost: Leg | undefined): Promise<Leg> {
    const stored = storedLeg(session);
    const isOthers = stored !== undefined && stored.sessionId !== lost?.resumable?.sessionId;
    const leg = isOthers ? await opened(session, stored) : await openNew(session, stored);
    if (lost) tellLost(session, leg);
    // What the first call makes the backend say outside of it must find us listening.
    await followLeg(session, leg);
    return leg;
  }

  /** `before` is what replicas know of a leg that is lost. */
  async function openNew(session: Session, before: StoredLeg | undefined): Promise<Leg> {
    const leg = await opened(session);
    const theirs = leg.resumable && (await share(session, before, leg, leg.resumable));
    if (theirs) return theirs;
    const { logLevel } = session.state;
    levels.set(leg, logLevel);
    if (logLevel !== undefined) await setLevel(leg, logLevel);
    void subscribeAgain(session, leg);
    return leg;
  }

  function opened(session: Session, resumed?: StoredLeg): Promise<Leg> {
    return withDeadline(openMs, (signal) => openNow(session, signal, resumed)).catch((error: unknown) => {
      // Whatever became of the handshake, the call that waits for it did not run.
      if (!(error instanceof BackendError)) throw error;
      const { code, message, credentialRenewed } = error;
      throw new BackendError(code, "not_executed", message, error, { credentialRenewed });
    });
  }

  function storedLeg({ state }: Session): StoredLeg | undefined {
    const stored = state.legs.get(legKey);
    return stored?.place === place ? stored : undefined;
  }

  /**
   * Lets other replicas know of a new leg. When one of them was sooner, ours is closed and theirs is given: a backend keeps one
   * session for each of ours.
   */
  async function share(
    session: Session,
    before: StoredLeg | undefined,
    leg: Leg,
    resumable: Resumable,
  ): Promise<Leg | undefined> {
    try {
      await session.change((state) => {
        const present = state.legs.get(legKey);
        const isTaken = present?.place === place && present.sessionId !== before?.sessionId;
        return isTaken ? state : { ...state, legs: withLeg(state.legs, { place, ...resumable }) };
      });
    } catch (error) {
      await leg.close();
      throw new BackendError("shed", "not_executed", reasonOf(error), error);
    }
    const shared = storedLeg(session);
    if (!shared || shared.sessionId === resumable.sessionId) return undefined;
    void leg.close();
    return opened(session, shared);
  }

  /** With it as the newest. Backends and their places come and go, so a session remembers only so many. */
  function withLeg(before: Session["state"]["legs"], leg: StoredLeg): Session["state"]["legs"] {
    const others = [...before.keys()].filter((key) => key !== legKey && key.startsWith(`${backend} `));
    const forgotten = new Set([legKey, ...others.slice(0, Math.max(0, others.length + 1 - placesKept))]);
    const kept = [...before].filter(([key]) => !forgotten.has(key)).slice(1 - legsMax);
    return new Map([...kept, [legKey, leg]]);
  }

  /** A backend that forgot the session may list other things to the next. */
  function tellLost(session: Session, { facts: { capabilities } }: Leg): void {
    for (const kind of ["tools", "prompts", "resources"]) {
      const method = `notifications/${kind}/list_changed`;
      if (capabilities[kind] !== undefined) notifySession(session, method, request(method, undefined));
    }
  }

  /** Tells a leg that only we have of a level that was set on another replica. */
  async function levelled(session: Session, leg: Leg): Promise<Leg> {
    const { logLevel } = session.state;
    if (logLevel !== undefined && isBehind(session, leg)) {
      levels.set(leg, logLevel);
      await setLevel(leg, logLevel);
    }
    return leg;
  }

  function isBehind({ state: { logLevel } }: Session, leg: Leg): boolean {
    return logLevel !== undefined && leg.resumable === undefined && levels.get(leg) !== logLevel;
  }

  /** Subscribes to what the session is subscribed to; no call waits for that. */
  async function subscribeAgain(session: Session, leg: Leg): Promise<void> {
    const own = [...session.state.subscriptions.values()].filter((route) => route.backend === backend).values();
    const untilMs = performance.now() + subscribingMs;
    async function work(): Promise<void> {
      for (const { original } of own)
        if (performance.now() < untilMs && leg.closedBy === undefined)
          await tell(leg, "resources/subscribe", JSON.stringify({ uri: original }));
    }
    await Promise.all(Array.from({ length: subscribingMax }, work));
  }

  async function drop(session: Session, ending: Ending): Promise<void> {
    const leg = legs.get(session);
    legs.delete(session);
    open.delete(session);
    known.get(session)?.();
    known.delete(session);
    await leg
      ?.then((opened) => (ending === "elsewhere" && opened.leave ? opened.leave() : opened.close()))
      .catch(() => undefined);
  }

  async function setLevel(leg: Leg, level: string): Promise<void> {
    if (leg.facts.capabilities.logging !== undefined) await tell(leg, "logging/setLevel", `{"level":${level}}`);
  }

  /** A request of our own, whose answer says nothing. */
  async function tell(leg: Leg, method: string, params: string): Promise<void> {
    const message = readMessage(request(method, params, `"vmcp-${method}"`));
    await withDeadline(tellMs, (signal) => leg.request(message, { signal })).catch((error) =>
      log.debug({ backend, method, reason: reasonOf(error) }, "a backend did not take a setting"),
    );
  }

  async function follow(session: Session): Promise<void> {
    const isWanted = isWaitedFor(session) || (session.stream !== undefined && storedLeg(session) !== undefined);
    const opening = (isWanted ? of(session) : legs.get(session))?.catch(() => undefined); // calls hear why
    const following = opening?.then((leg) => leg && followLeg(session, leg));
    await Promise.race([following, sleep(listenMs, undefined, { ref: false })]);
  }

  /** Whether a client listens for something that only a session with the backend brings. */
  function isWaitedFor({ stream, state, hasEnded }: Session): boolean {
    return stream !== undefined && !hasEnded && state.subscriptions.values().some((route) => route.backend === backend);
  }

  async function followLeg(session: Session, leg: Leg): Promise<void> {
    const { stream } = session;
    if (!stream || leg.isShared || followed.get(leg) === stream) return;
    followed.set(leg, stream);
    const taken = new Promise<void>((resolve) => {
      void listenAgain(session, leg, stream.closed, resolve)
        .finally(() => {
          if (followed.get(leg) === stream) followed.delete(leg); // it may be followed again
          resolve();
        })
        .then(() => comeBack(session, leg, stream.closed));
    });
    await Promise.race([taken, sleep(listenMs, undefined, { ref: false })]);
  }

  async function listenAgain(session: Session, leg: Leg, signal: AbortSignal, onOpen: () => void): Promise<void> {
    for (let shortStreams = 0; shortStreams < 3 && !signal.aborted && leg.closedBy === undefined; ) {
      const openedMs = performance.now();
      const isOffered = await leg.listen((message) => onMessage(session, message), { signal, onOpen }).catch(() => true);
      if (!isOffered) return;
      shortStreams = performance.now() - openedMs < shortMs ? shortStreams + 1 : 0;
      await sleep(reopenMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** The stream is over. If that is because the backend forgot the session, and somebody waits for it, another is opened. */
  async function comeBack(session: Session, leg: Leg, closed: AbortSignal): Promise<void> {
    const ended = AbortSignal.any([closed, isOver.signal]);
    for (let pauseMs = reopenMs; !ended.aborted && isWaitedFor(session); pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
      // Asking anything shows whether it knows the session.
      const isThere = leg.closedBy === undefined && (await answersPing(leg));
      if (isThere) return; // it does, and just offers no stream
      if (leg.closedBy !== undefined && (await of(session).catch(() => undefined))) return;
      await sleep(pauseMs, undefined, { signal: ended }).catch(() => undefined);
    }
  }

  function answersPing(leg: Leg): Promise<boolean> {
    const message = readMessage(request("ping", undefined, '"vmcp-ping"'));
    return withDeadline(tellMs, (signal) => leg.request(message, { signal })).then(
      () => leg.closedBy === undefined,
      () => false,
    );
  }

  /** Here, or on another replica. */
  async function existing(session: Session): Promise<Leg | undefined> {
    const leg = legs.get(session) ?? (storedLeg(session) && !session.hasEnded ? of(session) : undefined);
    return leg?.catch(() => undefined);
  }

  return {
    ready,
    of,
    existing,
    follow,
    async setLogLevel(session) {
      const { logLevel } = session.state;
      const leg = await existing(session);
      if (!leg || logLevel === undefined) return;
      levels.set(leg, logLevel);
      await setLevel(leg, logLevel);
    },
    async [Symbol.asyncDispose]() {
      isOver.abort();
      for (const forget of known.values()) forget();
      await Promise.all([...legs.keys()].map((session) => drop(session, "over")));
    },
  };
}
