// The sessions of this process: bounded in number, ended when idle.
import { createHandedOut } from "./handed-out.ts";
import type { Session } from "./session.ts";
import type { SessionIds } from "./session-ids.ts";

/** What a session is opened with. */
export type SessionFacts = Pick<
  Session,
  "virtualServer" | "identity" | "era" | "protocolVersion" | "clientInfo" | "capabilities"
>;

export interface SessionStore extends AsyncDisposable {
  /** Opens a session; undefined when all places are taken by sessions that are in use. */
  create(facts: SessionFacts): Session | undefined;
  /** The live session of this id on this virtual server, marked as used. */
  find(id: string, virtualServer: string): Session | undefined;
  /** Address of the replica that has the session of this id, when it is not this one. */
  ownerOf(id: string, virtualServer: string): string | undefined;
  end(session: Session): void;
  all(): Iterable<Session>;
  readonly size: number;
}

interface Entry {
  readonly session: Session;
  readonly closers: Set<() => void>;
}

export interface SessionStoreOptions {
  /** A session unused for so long is ended. */
  readonly idleMs: number;
  /** Beyond it the one idle for longest makes room, if any is idle. */
  readonly sessionsMax: number;
  readonly ids: SessionIds;
}

// Whoever opens sessions without end shall not end those that others work with.
const evictableAfterMs = 60_000;

/** Empty at first. */
export function createSessionStore({ idleMs, sessionsMax, ids }: SessionStoreOptions): SessionStore {
  // In order of use, oldest first: a Map keeps insertion order, and every use inserts anew.
  const entries = new Map<string, Entry>();
  const sweep = setInterval(reap, Math.min(10_000, Math.max(100, idleMs / 4)));
  sweep.unref();

  function reap(): void {
    const oldestMs = performance.now() - idleMs;
    for (const { session } of entries.values()) {
      if (session.usedAtMs <= oldestMs && session.calls.size === 0 && !session.stream) end(session);
    }
  }

  function end(session: Session): void {
    const entry = entries.get(session.id);
    if (!entries.delete(session.id)) return;
    session.stream?.end();
    for (const call of session.calls.values()) call.abort(new Error("the session ended"));
    for (const close of entry?.closers ?? []) close();
  }

  function use(entry: Entry): Session {
    const { session } = entry;
    session.usedAtMs = performance.now();
    entries.delete(session.id);
    entries.set(session.id, entry);
    return session;
  }

  return {
    create(facts) {
      if (entries.size >= sessionsMax) {
        const idle = entries.values().find(({ session }) => isEvictable(session));
        if (!idle) return undefined;
        end(idle.session);
      }
      const closers = new Set<() => void>();
      const session: Session = {
        ...facts,
        id: ids.mint(facts.virtualServer),
        logLevel: undefined,
        stream: undefined,
        waiting: new Map(),
        subscriptions: new Map(),
        tasks: new Map(),
        handedOut: createHandedOut(),
        questions: new Map(),
        usedAtMs: 0,
        calls: new Map(),
        get hasEnded() {
          return !entries.has(session.id);
        },
        onEnd(close) {
          if (session.hasEnded) close();
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
    ownerOf: ids.ownerOf,
    end,
    all: () => entries.values().map(({ session }) => session),
    get size() {
      return entries.size;
    },
    async [Symbol.asyncDispose]() {
      clearInterval(sweep);
      for (const { session } of [...entries.values()]) end(session);
    },
  };
}

function isEvictable({ calls, stream, usedAtMs }: Session): boolean {
  return calls.size === 0 && stream === undefined && performance.now() - usedAtMs >= evictableAfterMs;
}
