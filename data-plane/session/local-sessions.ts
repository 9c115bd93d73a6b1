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
export interface Shared extends Pick<Session, "change" | "refresh"> {
  state(): SessionState;
}

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
  const entries = new Map<string, OwnSession>();
  const sweep = setInterval(reap, Math.min(10_000, Math.max(100, idleMs / 4)));
  sweep.unref();

  function reap(): void {
    const oldestMs = performance.now() - idleMs;
    for (const session of entries.values()) {
      if (session.usedAtMs > oldestMs || session.calls.size > 0 || session.stream) continue;
      if (onIdle) onIdle(session);
      else end(session);
    }
  }

  function end(session: Session, how: Ending = "over"): void {
    const own = entries.get(session.id);
    if (!own || own !== session) return;
    entries.delete(own.id);
    own.stream?.end();
    for (const call of own.calls.values()) call.abort(new Error("the session ended"));
    own.finish(how);
  }

  function use(session: OwnSession): Session {
    session.usedAtMs = performance.now();
    entries.delete(session.id);
    entries.set(session.id, session);
    return session;
  }

  function makeRoom(): boolean {
    if (entries.size < sessionsMax) return true;
    const idle = entries.values().find(isEvictable);
    if (idle) end(idle, ending);
    return idle !== undefined;
  }

  return {
    create(facts, id = randomUUID(), shared = onlyHere()) {
      if (!makeRoom()) return undefined;
      return use(new OwnSession(facts, id, shared));
    },
    find(id, virtualServer) {
      const session = entries.get(id);
      return session?.virtualServer === virtualServer ? use(session) : undefined;
    },
    end,
    all: () => entries.values(),
    get size() {
      return entries.size;
    },
    async [Symbol.asyncDispose]() {
      clearInterval(sweep);
      for (const session of [...entries.values()]) end(session, ending);
    },
  };
}

// A class: there are thousands, each asked by every call, and V8 looks up in a table what an object literal with getters has.
class OwnSession implements Session {
  readonly id: string;
  readonly key: string;
  readonly virtualServer: string;
  readonly identity: Session["identity"];
  caller: Session["caller"];
  readonly era: Session["era"];
  readonly protocolVersion: Session["protocolVersion"];
  readonly clientInfo: string;
  readonly capabilities: string;
  stream: Session["stream"] = undefined;
  readonly waiting: Session["waiting"] = new Map();
  readonly tasks: Session["tasks"] = new Map();
  readonly questions: Session["questions"] = new Map();
  usedAtMs = 0;
  readonly calls: Session["calls"] = new Map();
  readonly #shared: Shared;
  readonly #closers = new Set<(how: Ending) => void>();
  #ended: Ending | undefined;

  constructor(facts: SessionFacts, id: string, shared: Shared) {
    this.id = id;
    this.key = publicKeyOf(id);
    this.virtualServer = facts.virtualServer;
    this.identity = facts.identity;
    this.caller = facts.caller;
    this.era = facts.era;
    this.protocolVersion = facts.protocolVersion;
    this.clientInfo = facts.clientInfo;
    this.capabilities = facts.capabilities;
    this.#shared = shared;
  }

  get state(): SessionState {
    return this.#shared.state();
  }

  change(edit: (state: SessionState) => SessionState): Promise<void> {
    return this.#shared.change(edit);
  }

  refresh(): Promise<void> {
    return this.#shared.refresh();
  }

  get hasEnded(): boolean {
    return this.#ended !== undefined;
  }

  onEnd(close: (ending: Ending) => void): () => void {
    if (this.#ended !== undefined) close(this.#ended);
    else this.#closers.add(close);
    return () => void this.#closers.delete(close);
  }

  /** Tells those who wait for its end. */
  finish(how: Ending): void {
    this.#ended = how;
    for (const close of this.#closers) close(how);
  }
}

function isEvictable(session: Session): boolean {
  return session.calls.size === 0 && !session.stream && performance.now() - session.usedAtMs >= evictableAfterMs;
}

/** The state of a session that no other replica knows. */
function onlyHere(): Shared {
  let state: SessionState = emptyState;
  return {
    state: () => state,
    async change(edit) {
      state = edit(state);
    },
    refresh: async () => undefined,
  };
}
