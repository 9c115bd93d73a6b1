// The sessions that client sessions have with one backend: opened at first use, kept, followed, opened again when the
// backend forgot one, ended with the client session.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import type { Session } from "../session/session.ts";
import { BackendError, reasonOf } from "./errors.ts";
import type { ClientFacts, Leg } from "./leg.ts";
import { withDeadline } from "./limit.ts";

export interface SessionLegs extends AsyncDisposable {
  /** The session's leg, opened once for all calls that wait for it; throws BackendError, "not_executed". */
  of(session: Session): Promise<Leg>;
  /** The session's leg when it has one. */
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
  readonly open: (client: ClientFacts, signal: AbortSignal) => Promise<Leg>;
  readonly onMessage: (session: Session, message: Message) => Promise<void> | undefined;
  readonly log: Log;
}

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
export function createSessionLegs({ backend, open, onMessage, log }: SessionLegsOptions): SessionLegs {
  const legs = new Map<Session, Promise<Leg>>();
  const known = new Map<Session, () => void>(); // whose end we hear of, and what takes that back
  const isOver = new AbortController();
  const followed = new WeakMap<Leg, Session["stream"]>();

  async function of(session: Session): Promise<Leg> {
    const existing = legs.get(session);
    if (existing && (await existing).closedBy === undefined) return existing;
    if (legs.get(session) !== existing) return of(session); // another call opened one meanwhile
    const opening = openLeg(session);
    legs.set(session, opening);
    if (!known.has(session) && !session.hasEnded)
      known.set(
        session,
        session.onEnd(() => void drop(session)),
      );
    opening.catch(() => legs.get(session) === opening && legs.delete(session));
    return opening;
  }

  async function openLeg(session: Session): Promise<Leg> {
    const leg = await withDeadline(openMs, (signal) => open(session, signal)).catch((error: unknown) => {
      // Whatever became of the handshake, the call that waits for it did not run.
      throw error instanceof BackendError ? new BackendError(error.code, "not_executed", error.message, error) : error;
    });
    if (session.logLevel !== undefined) await setLevel(leg, session.logLevel);
    void subscribeAgain(session, leg);
    // What the first call makes the backend say outside of it must find us listening.
    await followLeg(session, leg);
    return leg;
  }

  /** Subscribes to what the session is subscribed to; no call waits for that. */
  async function subscribeAgain(session: Session, leg: Leg): Promise<void> {
    const own = [...session.subscriptions.values()].filter((route) => route.backend === backend).values();
    const untilMs = performance.now() + subscribingMs;
    async function work(): Promise<void> {
      for (const { original } of own)
        if (performance.now() < untilMs && leg.closedBy === undefined)
          await tell(leg, "resources/subscribe", JSON.stringify({ uri: original }));
    }
    await Promise.all(Array.from({ length: subscribingMax }, work));
  }

  async function drop(session: Session): Promise<void> {
    const leg = legs.get(session);
    legs.delete(session);
    known.get(session)?.();
    known.delete(session);
    await leg?.then((opened) => opened.close()).catch(() => undefined);
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
    const opening = (isWaitedFor(session) ? of(session) : legs.get(session))?.catch(() => undefined); // calls hear why
    const following = opening?.then((leg) => leg && followLeg(session, leg));
    await Promise.race([following, sleep(listenMs, undefined, { ref: false })]);
  }

  /** Whether a client listens for something that only a session with the backend brings. */
  function isWaitedFor({ stream, subscriptions, hasEnded }: Session): boolean {
    return stream !== undefined && !hasEnded && subscriptions.values().some((route) => route.backend === backend);
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

  return {
    of,
    existing: async (session) => legs.get(session)?.catch(() => undefined),
    follow,
    async setLogLevel(session) {
      const { logLevel } = session;
      const leg = await legs.get(session)?.catch(() => undefined);
      if (leg && logLevel !== undefined) await setLevel(leg, logLevel);
    },
    async [Symbol.asyncDispose]() {
      isOver.abort();
      for (const forget of known.values()) forget();
      await Promise.all([...legs.keys()].map(drop));
    },
  };
}
