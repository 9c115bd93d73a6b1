// The sessions that this process has in hand: bounded in number, let go of when idle.
import { randomUUID } from "node:crypto";
import { emptyState, type SessionState } from "./record.ts";
import type { Ending, Session } from "./session.ts";
import { publicKeyOf } from "./session-ids.ts";

/** What a session is opened with. */
export type SessionFacts = Pick<
  Session,
  "virtualServer" | "identity" | "era" | "protocolVersion" | "clientInfo" | "capabilities"
> &
  Partial<Pick<Session, "caller">>;

/** What other replicas know of a session, and how they are told. */
export type Shared = Pick<Session, "state" | "change" | "refresh">;

export interface LocalSessions extends AsyncDisposable {
  /**
   * Takes a session in hand; undefined when all places are taken by sessions that are in use. By default it has a new id, and no other
   * replica knows it.
   */
  create(facts: SessionFacts, id?: string, shared?: Shared): Session | undefined;
  /** The session of this id on this virtual server, marked as used. */
  find(id: string, virtualServer: string): Session | undefined;
  /** Ends it here; `ending` is by default "over". */
  end(session: Session, ending?: Ending): void;
  all(): Iterable<Session>;
  readonly size: number;
}

interface Entry {
  readonly session: Session;
  readonly closers: Set<(ending: Ending) => void>;
}

export interface LocalSessionsOptions {
  /** A session unused for so long is let go of. */
  readonly idleMs: number;
  /** Beyond it the one idle for longest makes room, if any is idle. */
  readonly sessionsMax: number;
  /** Lets go of an idle session. By default it ends. */
  readonly onIdle?: (session: Session) => void;
  /** How sessions end that have to make room, and all of them with the process. Default "over". */
  readonly ending?: Ending;
}

// Whoever opens sessions without end shall not end those that others work with.
const evictableAfterMs = 60_000;

/** Empty at first. */
export function createLocalSessions({ idleMs, sessionsMax, ending = "over", onIdle }: LocalSessionsOptions): LocalSessions {
  // In order of use, oldest first: a Map keeps insertion order, and every use inserts anew.
  const entries = new Map<string, Entry>();
  const sweep = setInterval(reap, Math.min(10_000, Math.max(100, idleMs / 4)));
  sweep.unref();

  function reap(): void {
    const oldestMs = performance.now() - idleMs;
    for (const { session } of entries.values()) {
      if (session.usedAtMs > oldestMs || session.calls.size > 0 || session.stream) continue;
      if (onIdle) onIdle(session);
      else end(session);
    }
  }

  function end(session: Session, how: Ending = "over"): void {
    const entry = entries.get(session.id);
    if (entry?.session !== session) return;
    entries.delete(session.id);
    session.stream?.end();
    for (const call of session.calls.values()) call.abort(new Error("the session ended"));
    for (const close of entry.closers) close(how);
  }

  function use(entry: Entry): Session {
    const { session } = entry;
    session.usedAtMs = performance.now();
    entries.delete(session.id);
    entries.set(session.id, entry);
    return session;
  }

  function makeRoom(): boolean {
    if (entries.size < sessionsMax) return true;
    const idle = entries.values().find(({ session }) => isEvictable(session));
    if (idle) end(idle.session, ending);
    return idle !== undefined;
  }

  return {
    create(facts, id = randomUUID(), shared = onlyHere()) {
      if (!makeRoom()) return undefined;
      const closers = new Set<(how: Ending) => void>();
      let ended: Ending | undefined;
      closers.add((how) => {
        ended = how;
      });
      const session: Session = {
        caller: undefined,
        ...facts,
        id,
        key: publicKeyOf(id),
        get state() {
          return shared.state;
        },
        change: shared.change,
        refresh: shared.refresh,
        stream: undefined,
        waiting: new Map(),
        tasks: new Map(),
        questions: new Map(),
        usedAtMs: 0,
        calls: new Map(),
        get hasEnded() {
          return ended !== undefined;
        },
        onEnd(close) {
          if (ended !== undefined) close(ended);
          else closers.add(close);
          return () => void closers.delete(close);
        },
      };
      return use({ session, closers });
    },
    find(id, virtualServer) {
      const entry = entries.get(id);
      return entry?.session.virtualServer === virtualServer ? use(entry) : undefined;
    },
    end,
    all: () => entries.values().map(({ session }) => session),
    get size() {
      return entries.size;
    },
    async [Symbol.asyncDispose]() {
      clearInterval(sweep);
      for (const { session } of [...entries.values()]) end(session, ending);
    },
  };
}

function isEvictable(session: Session): boolean {
  return session.calls.size === 0 && !session.stream && performance.now() - session.usedAtMs >= evictableAfterMs;
}

/** The state of a session that no other replica knows. */
function onlyHere(): Shared {
  let state: SessionState = emptyState;
  return {
    get state() {
      return state;
    },
    async change(edit) {
      state = edit(state);
    },
    refresh: async () => undefined,
  };
}
