// Tokens that were obtained, for as long as they may be shown: in memory, and with Redis shared with other replicas. One token is
// obtained once, however many wait for it, here or there.
//
// Longer than most files here: what is held, what is being obtained and what was refused are one state per key.
import type { HeaderList } from "./credential.ts";
import type { Token } from "./token-answer.ts";
import { TokenRequestError } from "./token-endpoint.ts";
import type { TokenCounters } from "./token-metrics.ts";

/** A token that is or was held. */
export interface Held {
  readonly token: string;
  readonly headers: HeaderList;
  readonly obtainedMs: number;
  /** It may be shown until then. */
  readonly untilMs: number;
  /** Refused or forgotten, and not shown any more by whoever still has it. */
  isGone: boolean;
  /** Since the cache last looked for something to forget. */
  isUsed: boolean;
  /** Then, or later, another is obtained meanwhile. */
  refreshMs: number;
}

/** How one key's token is had. */
export interface Way {
  /** Names everything that the token depends on, and shows nothing of it. */
  readonly key: string;
  /** The token may not outlive what it was made of: milliseconds since 1970. */
  readonly endsMs: number;
  /** Rejects with TokenRequestError. */
  obtain(): Promise<Token>;
  readonly counters: TokenCounters;
}

export interface TokenCache extends AsyncDisposable {
  /** The token in memory, if it may be shown now. */
  find(key: string): Held | undefined;
  /** The token, obtained if need be. Throws or rejects with TokenRequestError. */
  get(way: Way): Promise<Held>;
  /** Begins to obtain the next token in the background when the time has come; call it whenever a token is shown. */
  refresh(held: Held, way: Way): void;
  /**
   * A backend refused the token, so nobody shows it again. False when there is no use in another: it had just been obtained, and
   * for a few seconds none is.
   */
  refused(way: Way, token: string): Promise<boolean>;
}

/** What replicas share. Never rejects: without it everybody is alone. */
export interface SharedTokens extends AsyncDisposable {
  read(key: string): Promise<SharedRead>;
  /** Kept until `untilMs`. */
  write(key: string, value: SharedToken): Promise<void>;
  /** Forgets the value if it is still this token. */
  remove(key: string, token: string): Promise<void>;
  /** The right to obtain, for 10 s at most; "taken" by another, "unavailable" when nobody can tell. */
  lock(key: string): Promise<(() => Promise<void>) | "taken" | "unavailable">;
}

export interface SharedToken {
  readonly token: string;
  readonly obtainedMs: number;
  readonly untilMs: number;
}

export type SharedRead = SharedToken | "none" | "unavailable";

export interface TokenCacheOptions {
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
  /** Settles with undefined when there is none after all. */
  readonly shared?: Promise<SharedTokens | undefined>;
  /** Tokens in memory. Default 20,000. */
  readonly heldMax?: number;
  /** How long to wait for what another replica obtains, milliseconds. Default 3,000. */
  readonly othersMs?: number;
}

/** Clocks differ, and a request is under way for a while: a token is not shown in its last moments. */
const skewMs = 30_000;
/** Another is obtained when this share of its time is over. */
const refreshShare = 0.8;
const refreshAgainMs = 5_000;
/** How long a refusal is believed. */
const refusalMs = 5_000;
const refusedWords = "the backend does not accept the token that was made for it";
/** A token this young was refused for what it is, not for its age. */
const youngMs = 1_000;
const sweepMs = 10_000;
const spareMax = 32;
const pollMs = { first: 25, max: 200 };

export function createTokenCache({ nowMs, shared, heldMax = 20_000, othersMs = 3_000 }: TokenCacheOptions): TokenCache {
  // In the order in which they were obtained or spared. What was refused stays until it would have ended, so that it is known when
  // Redis still has it; what was good for one request only stays for a moment, because the backend may refuse it.
  const held = new Map<string, Held>();
  const flights = new Map<string, Promise<Held>>();
  const refusals = new Map<string, { readonly error: TokenRequestError; readonly untilMs: number }>();
  const sweeper = setInterval(sweep, sweepMs).unref();

  function sweep(): void {
    const now = nowMs();
    for (const [key, { untilMs }] of held) if (untilMs + sweepMs < now) forget(key);
    for (const [key, { untilMs }] of refusals) if (untilMs <= now) refusals.delete(key);
  }

  function forget(key: string): void {
    const one = held.get(key);
    if (one) one.isGone = true;
    held.delete(key);
  }

  function find(key: string): Held | undefined {
    const one = held.get(key);
    if (!one || one.isGone || nowMs() >= one.untilMs) return undefined;
    one.isUsed = true;
    return one;
  }

  function keep(key: string, { token, obtainedMs, untilMs }: SharedToken): Held {
    forget(key);
    const refreshMs = obtainedMs + (untilMs - obtainedMs) * refreshShare;
    const flags = { isGone: false, isUsed: false, refreshMs };
    const one = { token, headers: ["authorization", `Bearer ${token}`], obtainedMs, untilMs, ...flags };
    held.set(key, one);
    if (held.size > heldMax) forgetOne();
    return one;
  }

  // What was used since it was looked at last is spared once, so that a use need not move it.
  function forgetOne(): void {
    let spared = 0;
    for (const [key, one] of held) {
      if (!one.isUsed || spared++ === spareMax) return forget(key);
      one.isUsed = false;
      held.delete(key);
      held.set(key, one);
    }
  }

  function refuse(key: string, error: TokenRequestError): void {
    refusals.delete(key);
    refusals.set(key, { error, untilMs: nowMs() + refusalMs });
    if (refusals.size > heldMax) refusals.delete(refusals.keys().next().value as string);
  }

  async function obtain(way: Way): Promise<SharedToken> {
    const { text, endsMs } = await way.obtain();
    way.counters.obtained++;
    const obtainedMs = nowMs();
    return { token: text, obtainedMs, untilMs: Math.min(endsMs - skewMs, way.endsMs) };
  }

  /** One flight: what others have, else what we obtain. `old` is what is to be replaced. */
  async function fly(way: Way, old: Held | undefined): Promise<Held> {
    const tier = await shared;
    if (!tier) return keep(way.key, await obtain(way));
    // Neither what is to be replaced, nor what was refused, nor what is older than either.
    const isGood = (found: SharedRead): found is SharedToken => {
      if (typeof found !== "object" || nowMs() >= found.untilMs) return false;
      const last = old ?? held.get(way.key);
      return !last || (found.token !== last.token && found.obtainedMs >= last.obtainedMs);
    };
    const adopt = (found: SharedToken): Held => {
      way.counters.redisHits++;
      return keep(way.key, { ...found, untilMs: Math.min(found.untilMs, way.endsMs) });
    };
    const first = await tier.read(way.key);
    if (isGood(first)) return adopt(first);
    if (first === "unavailable") return keep(way.key, await obtain(way));
    const deadlineMs = performance.now() + othersMs;
    for (let pause = pollMs.first; ; pause = Math.min(pause * 2, pollMs.max)) {
      const unlock = await tier.lock(way.key);
      if (unlock === "unavailable" || (unlock === "taken" && performance.now() > deadlineMs))
        return keep(way.key, await obtain(way));
      // Whoever had the lock before us may have left the token.
      const found = await tier.read(way.key);
      if (isGood(found)) {
        if (unlock !== "taken") void unlock();
        return adopt(found);
      }
      if (unlock !== "taken") return obtainFor(tier, way, unlock);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  async function obtainFor(tier: SharedTokens, way: Way, unlock: () => Promise<void>): Promise<Held> {
    try {
      const value = await obtain(way);
      // Nobody here waits for it to be written, but others for the lock.
      const isLasting = nowMs() < value.untilMs;
      void (isLasting ? tier.write(way.key, value) : Promise.resolve()).then(unlock);
      return keep(way.key, value);
    } catch (error) {
      void unlock();
      throw error;
    }
  }

  function launch(way: Way, old?: Held): Promise<Held> {
    const flight = fly(way, old)
      .catch((error: unknown) => {
        const known =
          error instanceof TokenRequestError
            ? error
            : new TokenRequestError("a token could not be had", { failure: "internal", cause: error });
        const { failed } = way.counters;
        failed[known.failure] = (failed[known.failure] ?? 0) + 1;
        if (known.isLasting && !old) refuse(way.key, known); // the old one may be good for a while
        throw known;
      })
      .finally(() => flights.delete(way.key));
    flights.set(way.key, flight);
    return flight;
  }

  return {
    find,
    async get(way) {
      const one = find(way.key);
      if (one) return one;
      const refusal = refusals.get(way.key);
      if (refusal && nowMs() < refusal.untilMs) {
        way.counters.negativeHits++;
        throw refusal.error;
      }
      const flight = flights.get(way.key);
      if (flight !== undefined) return flight;
      way.counters.misses++;
      return launch(way);
    },
    refresh(one, way) {
      if (nowMs() < one.refreshMs || flights.has(way.key) || one.untilMs >= way.endsMs) return;
      one.refreshMs = nowMs() + refreshAgainMs;
      way.counters.refreshes++;
      launch(way, one).catch(() => undefined); // counted and logged already
    },
    async refused(way, token) {
      way.counters.backendRefusals++;
      const one = held.get(way.key);
      if (!one || one.isGone || one.token !== token) {
        const refusal = refusals.get(way.key);
        return !refusal || refusal.untilMs <= nowMs();
      }
      one.isGone = true;
      const isYoung = nowMs() - one.obtainedMs < youngMs;
      if (isYoung) refuse(way.key, new TokenRequestError(refusedWords, { failure: "refused_caller" }));
      await (await shared)?.remove(way.key, token);
      return !isYoung;
    },
    async [Symbol.asyncDispose]() {
      clearInterval(sweeper);
      for (const key of [...held.keys()]) forget(key);
      refusals.clear();
      await (await shared)?.[Symbol.asyncDispose]();
    },
  };
}
