// The keys of one issuer: fresh while it answers, known for a day while it doesn't, and asked for rarely whatever tokens say.
import type { JWK } from "jose";
import { fits, publicKeyOf } from "./algorithms.ts";
import type { Clock } from "./clock.ts";
import { isObject } from "./compact-jws.ts";
import type { QuietLog } from "./quiet-log.ts";
import { importKey } from "./signature.ts";

/** Stays the same object for as long as the issuer publishes this very key. */
export interface IssuerKey {
  readonly kid: string | undefined;
  /** For one algorithm; undefined when it is no key after all. */
  importFor(algorithm: string): Promise<CryptoKey | undefined>;
  /** The issuer doesn't publish it any more, or nobody has been able to ask for a day. */
  readonly isGone: boolean;
}

/** "unknown": the issuer has none that fits. "unreachable": nobody can tell what it has. */
export type Found = IssuerKey | "unknown" | "unreachable";

export interface KeySet {
  /** Without a kid: the only key that fits. Never rejects; waits at most for one answer of the issuer. */
  find(wanted: { readonly kid: string | undefined; readonly algorithm: string }): Promise<Found>;
  /** Whether what was verified with this key may still count. False also when it is time to ask, and so to come by `find`. */
  isCurrent(key: IssuerKey): boolean;
}

export interface KeySetOptions {
  /** Asks the issuer; gives the body of its answer. Has a deadline. */
  readonly load: () => Promise<unknown>;
  readonly issuer: string;
  readonly clock: Clock;
  readonly log: QuietLog;
}

/** After so long we ask while going on with what we have; after the longer time we wait for the answer. */
const askAgainMs = 8 * 60_000;
const freshMs = 10 * 60_000;
const staleMs = 24 * 60 * 60_000;
/** Between two questions while there are keys: a new key is refused for no longer, and unknown kids cost 12 questions a minute. */
const gapMs = 5_000;
/** Without keys everybody is kept waiting: after a failed question the next one may come sooner. */
const retryMs = 1_000;
/** For so long after a failed question nobody waits for the next one: callers whose keys we know do not notice that it fails. */
const failureMs = 60_000;
const keysMax = 100;

export function createKeySet({ load, issuer, clock, log }: KeySetOptions): KeySet {
  let keys: readonly OwnKey[] = [];
  let loadedAtMs: number | undefined;
  let askedAtMs = -Infinity;
  /** End of the last question, when it failed. */
  let failedAtMs: number | undefined;
  let asking: Promise<void> | undefined;

  const mayAsk = (nowMs: number) =>
    loadedAtMs === undefined ? failedAtMs === undefined || nowMs - failedAtMs >= retryMs : nowMs - askedAtMs >= gapMs;

  const hasFailed = (nowMs: number) => failedAtMs !== undefined && nowMs - failedAtMs < failureMs;

  /** Resolves when the answer has come, or failed to. One at a time. */
  function ask(): Promise<void> {
    asking ??= askNow().finally(() => {
      asking = undefined;
    });
    return asking;
  }

  async function askNow(): Promise<void> {
    askedAtMs = clock.elapsedMs();
    try {
      keys = replace(keys, readKeys(await load()));
      loadedAtMs = clock.elapsedMs();
      if (failedAtMs !== undefined) log.say("info", { issuer }, "keys of the issuer are there again");
      failedAtMs = undefined;
    } catch (error) {
      failedAtMs = clock.elapsedMs();
      log.say("warn", { issuer, known: keys.length, reason: (error as Error).message }, "keys of the issuer can't be fetched");
    }
  }

  function forgetOld(nowMs: number): void {
    if (loadedAtMs === undefined || nowMs - loadedAtMs < staleMs) return;
    keys = replace(keys, []);
    loadedAtMs = undefined;
  }

  /** Asks when it is time to; waits only where we know nothing, or have no reason to think that it would be in vain. */
  async function keepFresh(): Promise<void> {
    const nowMs = clock.elapsedMs();
    forgetOld(nowMs);
    if (loadedAtMs !== undefined && nowMs - loadedAtMs < askAgainMs) return;
    const mustWait = loadedAtMs === undefined || (nowMs - loadedAtMs >= freshMs && !hasFailed(nowMs));
    if (!asking && !mayAsk(nowMs)) return;
    const asked = ask();
    if (mustWait) await asked;
  }

  return {
    async find(wanted) {
      await keepFresh();
      if (loadedAtMs === undefined) return "unreachable";
      const key = pick(keys, wanted);
      if (key) return key;
      if (!asking && !mayAsk(clock.elapsedMs())) return "unknown";
      await ask();
      return pick(keys, wanted) ?? "unknown";
    },
    isCurrent(key) {
      if (key.isGone || loadedAtMs === undefined) return false;
      const nowMs = clock.elapsedMs();
      const ageMs = nowMs - loadedAtMs;
      if (ageMs < askAgainMs) return true;
      if (!asking && mayAsk(nowMs)) void ask();
      return ageMs < freshMs || (ageMs < staleMs && hasFailed(nowMs));
    },
  };
}

interface OwnKey extends IssuerKey {
  readonly jwk: JWK;
  /** Everything of it that matters, as text. */
  readonly text: string;
  isGone: boolean;
}

/** Keys that are in both stay the objects they were, and others are gone. */
function replace(old: readonly OwnKey[], next: readonly OwnKey[]): readonly OwnKey[] {
  const known = new Map(old.map((key) => [key.text, key]));
  const kept = next.map((key) => known.get(key.text) ?? key);
  const all = new Set(kept);
  for (const key of old) if (!all.has(key)) key.isGone = true;
  return kept;
}

function pick(keys: readonly OwnKey[], { kid, algorithm }: { kid: string | undefined; algorithm: string }): OwnKey | undefined {
  const fitting = keys.filter((key) => (kid === undefined || key.kid === kid) && fits(key.jwk, algorithm));
  return fitting.length === 1 ? fitting[0] : undefined; // two of one name: nobody said which
}

/** RFC 7517 section 5: keys that are not understood are left out. Throws when it is no key set. */
function readKeys(document: unknown): readonly OwnKey[] {
  const list = isObject(document) ? document.keys : undefined;
  if (!Array.isArray(list)) throw new Error("the answer is no key set");
  if (list.length > keysMax) throw new Error(`the key set has ${list.length} keys; ${keysMax} are the most`);
  return list.map(readKey).filter((key) => key !== undefined);
}

function readKey(value: unknown): OwnKey | undefined {
  const parts = isObject(value) ? publicKeyOf(value) : undefined;
  if (!isObject(value) || !parts) return undefined;
  const { kid, use, alg, key_ops } = value;
  if (kid !== undefined && typeof kid !== "string") return undefined;
  const jwk = { ...parts, ...defined({ kid, use, alg, key_ops }) } as JWK;
  const imported = new Map<string, Promise<CryptoKey | undefined>>();
  return {
    kid,
    jwk,
    text: JSON.stringify(jwk),
    isGone: false,
    importFor(algorithm) {
      const key = imported.get(algorithm) ?? importKey(parts, algorithm);
      imported.set(algorithm, key);
      return key;
    },
  };
}

function defined(members: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
