// The sessions of clients: bound to their callers, known to every replica through the record store, and in the hands of those
// replicas that serve them. Longer than most files here: what is in hand, what the store says and who may use it are one promise.
import { createHmac } from "node:crypto";
import type { Log } from "../../common/log.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import type { Identity } from "../incoming-auth/identity.ts";
import { encode } from "../mcp/encode.ts";
import type { Keys } from "../mcp/seal.ts";
import type { Binder } from "./binding.ts";
import { everything, factsOf, isAsked, type ListedSession, listedAs, type SessionFilter } from "./listing.ts";
import { createLocalSessions, type SessionFacts } from "./local-sessions.ts";
import { type Epoch, emptyState, type SessionRecord, type SessionState } from "./record.ts";
import { type RecordStore, type StoredRecord, type StoreEvent, StoreUnavailableError } from "./record-store.ts";
import type { Revocable } from "./revocations.ts";
import { type Session, SessionEndedError } from "./session.ts";
import { createSessionIds } from "./session-ids.ts";
import { createTurnstile } from "./turnstile.ts";

/** Who asks for a session, and where. */
export interface Claim {
  readonly virtualServer: string;
  readonly identity: Identity;
  /** With what; the session remembers it. */
  readonly caller?: Caller | undefined;
}

export interface Sessions extends AsyncDisposable {
  /** Opens a session; undefined when there is no room. Throws StoreUnavailableError or UnboundCallerError. */
  open(facts: Omit<SessionFacts, "era">): Promise<Session | undefined>;
  /**
   * The session of this id, if it is this caller's; undefined says nothing of why not. At once when it is in hand and was looked at
   * a moment ago. Throws StoreUnavailableError when nobody knows.
   */
  find(id: string, claim: Claim): Session | undefined | Promise<Session | undefined>;
  /** Ends it, for every replica. Throws StoreUnavailableError. */
  end(session: Session): Promise<void>;
  /** Its client has opened a stream here: other replicas end theirs. */
  tellStreaming(session: Session): void;
  /** Its client cancels a request that is not in flight here; `request` is the raw text of the request's id. */
  tellCancelled(session: Session, request: string): void;
  /** Ends those in hand that are revoked: call it when what is revoked has changed. */
  endRevoked(): void;
  /** Hears what other replicas tell; for the store. */
  hear(event: StoreEvent): void;
  /** What operators see. Throws StoreUnavailableError. */
  list(filter?: SessionFilter): Promise<readonly ListedSession[]>;
  /** Those in hand here. */
  all(): Iterable<Session>;
  readonly size: number;
}

export interface SessionsOptions {
  readonly store: RecordStore;
  readonly keys: Keys;
  readonly binder: Binder;
  /** A session unused for so long ends, milliseconds. */
  readonly idleMs: number;
  /** A session ends so long after it was opened, whatever it does, milliseconds. Default 8 h. */
  readonly absoluteMs?: number;
  /** One whose client never came back after opening it ends so soon, milliseconds. Default 30 s. */
  readonly pendingMs?: number;
  /** Sessions of one caller with a name; beyond it the one unused for longest ends. Default 32. */
  readonly perCallerMax?: number;
  /** Sessions in hand at a time. */
  readonly sessionsMax: number;
  /** How old what we know of a session may be where the store does not tell all, milliseconds. Default 2,000. */
  readonly cacheMs?: number;
  /** Whether a caller who shows somebody else's session ends it. Default true. */
  readonly endsOnMismatch?: boolean;
  /** What of the configuration that is live a new session remembers. */
  readonly epoch: () => Epoch;
  readonly isRevoked: (session: Revocable) => boolean;
  /** A session that another replica opened is about to be served here for the first time; waited for. Never rejects. */
  readonly onTaken?: (session: Session) => Promise<void> | undefined;
  readonly log: Log;
}

/** A session in hand. */
interface Entry {
  readonly session: Session;
  stored: StoredRecord;
  /** When the store was asked last; all times are of the monotonic clock, milliseconds. */
  checkedAtMs: number;
  touchedAtMs: number;
  readonly endsAtMs: number;
  /** Its client has not come back since it opened it, which was so long before. */
  pendingUntilMs: number | undefined;
  checking: Promise<boolean> | undefined;
  /** It waits for its turn to be let go of. */
  isLetGo: boolean;
  changing: Promise<void>;
}

const watchMs = 1_000;
/** How many sessions with something open are looked after at a time; pub/sub says the same sooner. */
const watchedMax = 500;
// A store is told of uses not more often than this part of the time after which a session is idle.
const touchedEvery = 0.1;
// Thousands may be idle in the same moment.
const lettingGoMax = 32;
const endedMax = 20_000;
const changesMax = 8;
const listedAtOnce = 100;
const listedMax = 20_000;

/** None open at first. */
export function createSessions(options: SessionsOptions): Sessions {
  const { store, keys, binder, idleMs, sessionsMax, log, epoch, isRevoked } = options;
  const { absoluteMs = 8 * 60 * 60_000, pendingMs = 30_000, perCallerMax = 32, endsOnMismatch = true } = options;
  const cacheMs = store.tellsAll ? Number.POSITIVE_INFINITY : (options.cacheMs ?? 2_000);
  const ids = createSessionIds(keys);
  const local = createLocalSessions({
    idleMs,
    sessionsMax,
    ending: store.isShared ? "elsewhere" : "over",
    onIdle: (session) => void letGo(session),
  });
  const entries = new Map<string, Entry>(); // by key
  const byId = new Map<string, Entry>();
  const loading = new Map<string, Promise<StoredRecord | undefined>>();
  // A store may remember what was ended: one that failed over to a copy that had not heard of it.
  const ended = new Set<string>();
  const inLine = createTurnstile(lettingGoMax);
  const watch = setInterval(lookAfter, watchMs).unref();

  function take(id: string, key: string, facts: Omit<SessionFacts, "era">, stored: StoredRecord): Entry | undefined {
    const now = performance.now();
    const session = local.create({ ...facts, era: "session" }, id, sharedBy(key));
    if (!session) return undefined;
    const entry: Entry = {
      session,
      stored,
      checkedAtMs: now,
      touchedAtMs: Number.NEGATIVE_INFINITY,
      endsAtMs: now + stored.leftMs,
      pendingUntilMs: undefined,
      checking: undefined,
      isLetGo: false,
      changing: Promise.resolve(),
    };
    entries.set(key, entry);
    byId.set(id, entry);
    session.onEnd((ending) => {
      entries.delete(key);
      byId.delete(id);
      // What made room ends for everybody when nobody else has it.
      if (ending === "over" && !store.isShared) void store.remove(key).catch(() => undefined);
    });
    return entry;
  }

  function sharedBy(key: string) {
    let last: SessionState = emptyState;
    return {
      state(): SessionState {
        last = entries.get(key)?.stored.record.state ?? last;
        return last;
      },
      async change(edit: (state: SessionState) => SessionState): Promise<void> {
        const entry = entries.get(key);
        if (!entry) throw new SessionEndedError("the session has ended");
        const changing = entry.changing.then(() => change(entry, edit));
        entry.changing = changing.catch(() => undefined);
        return changing;
      },
      async refresh(): Promise<void> {
        const entry = entries.get(key);
        if (entry && store.isShared) await check(entry);
      },
    };
  }

  async function change(entry: Entry, edit: (state: SessionState) => SessionState): Promise<void> {
    for (let attempt = 0; attempt < changesMax; attempt++) {
      const { stored, session } = entry;
      const state = edit(stored.record.state);
      if (state === stored.record.state) return;
      const record = { ...stored.record, state };
      const outcome = await store.write(session.key, stored, record);
      if (outcome === "written") {
        if (entry.stored.version <= stored.version) entry.stored = { ...stored, record, version: stored.version + 1 };
        return;
      }
      if (!(await check(entry))) throw new SessionEndedError("the session has ended");
    }
    throw new StoreUnavailableError("the session is being changed by too many at once");
  }

  /** Asks the store what became of a session in hand; false when it is no more. */
  function check(entry: Entry): Promise<boolean> {
    entry.checking ??= askStore(entry).finally(() => {
      entry.checking = undefined;
    });
    return entry.checking;
  }

  async function askStore(entry: Entry): Promise<boolean> {
    const askedAtMs = performance.now();
    const { session } = entry;
    const stored = await store.read(session.key);
    if (!stored || isOver(session.key, stored.record)) {
      finish(session);
      return false;
    }
    entry.checkedAtMs = askedAtMs;
    if (stored.version >= entry.stored.version) entry.stored = stored;
    return true;
  }

  /** Whether a record says nothing any more, because we know better. */
  function isOver(key: string, record: SessionRecord): boolean {
    if (!ended.has(key) && !isRevoked({ ...record, key })) return false;
    void store.remove(key).catch(() => undefined);
    return true;
  }

  /** It is over, and stays so here. */
  function finish(session: Session): void {
    remember(session.key);
    local.end(session);
  }

  function remember(key: string): void {
    ended.add(key);
    if (ended.size > endedMax) ended.delete(ended.values().next().value as string);
  }

  async function endKey(key: string): Promise<void> {
    await store.remove(key);
    remember(key);
    const entry = entries.get(key);
    if (entry) local.end(entry.session);
  }

  /** A session in hand, for its caller. */
  function admit(entry: Entry, { identity, virtualServer, caller }: Claim): Session | undefined {
    const { session, stored } = entry;
    if (performance.now() >= entry.endsAtMs) {
      void endKey(session.key).catch(() => undefined);
      return undefined;
    }
    if (!isOwner(session.key, stored.record, { sessionId: session.id, identity, virtualServer })) return undefined;
    entry.pendingUntilMs = undefined;
    session.caller = caller;
    keepAlive(entry);
    return local.find(session.id, virtualServer);
  }

  function isOwner(key: string, { binding, issuer, subject }: SessionRecord, bound: Claim & { sessionId: string }): boolean {
    const verdict = binder.check(binding, bound);
    if (verdict === "match") return true;
    if (verdict === "mismatch") {
      const owner = ownerName({ issuer, subject });
      const event = "session.binding_mismatch";
      log.warn(
        { event, session: key.slice(0, 10), owner, caller: ownerName(bound.identity) },
        "a session was shown by another caller",
      );
    }
    if (verdict === "unknown_key" || endsOnMismatch) endAtOnce(key);
    return false;
  }

  /** Here whatever happens, and for the others as soon as they can be told. */
  function endAtOnce(key: string): void {
    remember(key);
    const entry = entries.get(key);
    if (entry) local.end(entry.session);
    store
      .remove(key)
      .catch(() => log.warn({ session: key.slice(0, 10) }, "a session ended here only: the store is not available"));
  }

  /** What a caller is called in logs and in the store. */
  function ownerName({ issuer, subject, client = "" }: Pick<Identity, "issuer" | "subject" | "client">): string {
    const name = createHmac("sha256", keys.active.derive("identity-index")).update(encode(issuer, subject, client));
    return name.digest("base64url").slice(0, 22);
  }

  /** Puts the end of an idle session off; now and then is enough. */
  function keepAlive(entry: Entry): void {
    const now = performance.now();
    if (now - entry.touchedAtMs < idleMs * touchedEvery) return;
    entry.touchedAtMs = now;
    const { session } = entry;
    store
      .touch(session.key, idleMs * (1 + touchedEvery)) // never sooner than so long after the last use
      .then((isThere) => {
        if (!isThere) finish(session);
        else if (!session.identity.isAnonymous) return count(session);
        return undefined;
      })
      .catch(() => {
        entry.touchedAtMs = Number.NEGATIVE_INFINITY; // the next use tries again
      });
  }

  /** Counts a session to its caller's, and ends those beyond the bound. */
  async function count({ identity, key }: Session): Promise<void> {
    const beyond = await store.enlist(ownerName(identity), key, perCallerMax);
    for (const one of beyond) await endKey(one);
  }

  /** Nobody used it here for long. */
  async function letGo(session: Session): Promise<void> {
    if (!store.isShared) return finish(session);
    const entry = entries.get(session.key);
    if (!entry || entry.isLetGo) return;
    entry.isLetGo = true;
    const isThere = await inLine(() => check(entry)).catch(() => false);
    entry.isLetGo = false;
    // Others use it. Where nobody does, it is kept until it is over: whoever used it last says goodbye to its backends.
    if (isThere && entry.stored.idleLeftMs > 2 * touchedEvery * idleMs) local.end(session, "elsewhere");
  }

  /** Sessions that are used without requests: they stay alive, and are looked at as requests would. */
  function lookAfter(): void {
    const now = performance.now();
    let looked = 0;
    for (const entry of entries.values()) {
      const { session, pendingUntilMs } = entry;
      if (pendingUntilMs !== undefined && now >= pendingUntilMs) void letGo(session);
      if (!session.stream && session.calls.size === 0) continue;
      if (now >= entry.endsAtMs) {
        void endKey(session.key).catch(() => local.end(session));
        continue;
      }
      keepAlive(entry);
      if (now - entry.checkedAtMs < cacheMs || looked >= watchedMax) continue;
      looked++;
      void check(entry).catch(() => undefined); // its requests are refused meanwhile
    }
  }

  async function findInStore(id: string, claim: Claim): Promise<Session | undefined> {
    const key = ids.keyOf(id);
    if (key === undefined || ended.has(key)) return undefined;
    const entry = entries.get(key);
    if (entry)
      return (await check(entry)) && entry.session.virtualServer === claim.virtualServer ? admit(entry, claim) : undefined;
    const stored = await load(key);
    if (!stored || stored.record.virtualServer !== claim.virtualServer || isOver(key, stored.record)) return undefined;
    const { record } = stored;
    if (!isOwner(key, record, { ...claim, sessionId: id })) return undefined;
    const before = entries.get(key);
    const taken = before ?? take(id, key, { ...record, identity: claim.identity, caller: claim.caller }, stored);
    if (!before && taken) await options.onTaken?.(taken.session);
    if (!taken) throw new StoreUnavailableError("too many sessions are in use here");
    return admit(taken, claim);
  }

  /** Reads a record once for all that wait for it. */
  function load(key: string): Promise<StoredRecord | undefined> {
    const reading = loading.get(key) ?? store.read(key).finally(() => loading.delete(key));
    loading.set(key, reading);
    return reading;
  }

  return {
    async open({ virtualServer, identity, caller, protocolVersion, clientInfo, capabilities }) {
      const id = ids.mint();
      const key = ids.keyOf(id) as string;
      const facts = { virtualServer, identity, caller, protocolVersion, clientInfo, capabilities };
      const { issuer, subject } = identity;
      const binding = binder.bind({ sessionId: id, virtualServer, identity });
      const record = {
        ...{ virtualServer, issuer, subject, binding, epoch: epoch() },
        protocolVersion,
        clientInfo,
        capabilities,
      };
      const times = { pendingMs: Math.min(pendingMs, idleMs), absoluteMs };
      const entry = take(id, key, facts, await store.create(key, { ...record, state: emptyState }, times));
      if (!entry) {
        await store.remove(key);
        return undefined;
      }
      entry.pendingUntilMs = performance.now() + times.pendingMs;
      if (!identity.isAnonymous) await count(entry.session);
      return entry.session;
    },
    find(id, claim) {
      const entry = byId.get(id);
      if (!entry) return findInStore(id, claim);
      if (entry.session.virtualServer !== claim.virtualServer) return undefined;
      const ageMs = performance.now() - entry.checkedAtMs;
      if (ageMs >= cacheMs) return findInStore(id, claim);
      if (ageMs >= cacheMs / 2) void check(entry).catch(() => undefined); // so that a busy session never waits for it
      return admit(entry, claim);
    },
    end: ({ key }) => endKey(key),
    tellStreaming: ({ key }) => store.publish({ type: "streaming", key }),
    tellCancelled: ({ key }, request) => store.publish({ type: "cancelled", key, request }),
    endRevoked() {
      for (const { session, stored } of entries.values())
        if (isRevoked({ ...stored.record, key: session.key })) {
          finish(session);
          void store.remove(session.key).catch(() => undefined);
        }
    },
    hear(event) {
      const entry = entries.get(event.key);
      if (!entry) return;
      const { session } = entry;
      if (event.type === "streaming") session.stream?.end();
      else if (event.type === "cancelled") session.calls.get(event.request)?.abort(new Error("cancelled by the client"));
      else {
        entry.checkedAtMs = Number.NEGATIVE_INFINITY;
        // What nobody asks for may have something open all the same.
        if (event.type === "ended" || session.stream || session.calls.size > 0)
          check(entry).catch(() => event.type === "ended" && local.end(session));
      }
    },
    async list(filter = everything) {
      const listed: ListedSession[] = [];
      const found = (await store.keys(listedMax)).filter((key) => key.startsWith(filter.keyPrefix) && !ended.has(key));
      for (let i = 0; i < found.length; i += listedAtOnce) {
        const part = found.slice(i, i + listedAtOnce);
        const records = await Promise.all(part.map((key) => store.read(key)));
        for (const [at, stored] of records.entries()) {
          const key = part[at] as string;
          if (!stored) continue;
          const one = { lastUseTimeMs: stored.createdMs, ...listedAs(entries.get(key)?.session), ...factsOf(key, stored) };
          if (isAsked(one, filter)) listed.push(one);
        }
      }
      return listed;
    },
    all: local.all,
    get size() {
      return local.size;
    },
    async [Symbol.asyncDispose]() {
      clearInterval(watch);
      await local[Symbol.asyncDispose]();
      await store[Symbol.asyncDispose]();
    },
  };
}
