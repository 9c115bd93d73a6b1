// The tokens of one backend's users: shown without a detour when they are at hand, refreshed once however many ask, here or on other
// replicas. A refresh token that rotates ends all that came of it when it is used twice (RFC 9700 4.14.2), so it is only used under
// the store's lock, and what came of it is not lost while the store is away.
import { setTimeout as sleep } from "node:timers/promises";
import { type HeaderList, NoCredentialError } from "./credential.ts";
import { TokenRequestError } from "./token-endpoint.ts";
import type { UserToken, UserTokens } from "./user-tokens.ts";

export interface UserTokenSource {
  /** At hand, if it may be shown now. `user` names whose, within this source. */
  find(user: string, keyOf: () => string): HeaderList | undefined;
  /** Undefined: the user has to sign in. `key` is the token's place in the store. Rejects with NoCredentialError. */
  get(user: string, key: string): Promise<HeaderList | undefined>;
  /** The backend refused this token; true when there is another. Rejects with NoCredentialError. */
  refused(user: string, key: string, shown: HeaderList): Promise<boolean>;
  /** The user has just signed in. */
  put(user: string, key: string, token: UserToken): Promise<void>;
}

export interface UserTokenSourceOptions {
  readonly store: UserTokens;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
  /** Whether a token that was kept may still be shown, as far as is known now. */
  readonly isOurs: (token: UserToken) => boolean;
  /** Asks for the next token; undefined when the last one can't be refreshed any more. Rejects with NoCredentialError. */
  readonly renew: (token: UserToken & { readonly refresh: string }) => Promise<UserToken | undefined>;
}

interface Held {
  readonly token: UserToken;
  readonly headers: HeaderList;
  /** It is shown until then. */
  readonly untilMs: number;
  /** Then, or later, the next is asked for meanwhile. */
  refreshMs: number;
}

const heldMax = 20_000;
/** Clocks differ, and a request is under way for a while. */
const skewMs = 30_000;
const refreshShare = 0.8;
const refreshAgainMs = 30_000;
/** A token this young was refused for what it is, not for its age. */
const youngMs = 5_000;
/** How long we wait for what another replica gets, and how often we look. */
const othersMs = 20_000;
const pollMs = { first: 25, max: 250 };
const savePausesMs = [100, 400, 1_000, 3_000, 10_000];

export function createUserTokenSource({ store, nowMs, isOurs, renew }: UserTokenSourceOptions): UserTokenSource {
  // In the order of use.
  const held = new Map<string, Held>();
  const flights = new Map<string, Promise<UserToken | undefined>>();
  /** What the store does not have yet. */
  const unsaved = new Map<string, UserToken>();

  function hold(user: string, token: UserToken): HeaderList {
    const { access, refresh, obtainedMs, endsMs } = token;
    const lifeMs = endsMs - obtainedMs;
    const one = {
      token,
      headers: ["authorization", `Bearer ${access}`],
      untilMs: endsMs - Math.min(skewMs, lifeMs / 10),
      refreshMs: refresh === undefined ? Number.POSITIVE_INFINITY : obtainedMs + lifeMs * refreshShare,
    };
    held.delete(user);
    held.set(user, one);
    if (held.size > heldMax) held.delete(held.keys().next().value as string);
    return one.headers;
  }

  const isGood = ({ obtainedMs, endsMs }: UserToken): boolean => nowMs() < endsMs - Math.min(skewMs, (endsMs - obtainedMs) / 10);

  async function read(key: string): Promise<UserToken | undefined> {
    return unsaved.get(key) ?? (await store.read(key));
  }

  /** What comes after `old`; undefined: nothing does. One at a time. */
  function next(key: string, old: UserToken): Promise<UserToken | undefined> {
    const flight = flights.get(key) ?? renewed(key, old).finally(() => flights.delete(key));
    flights.set(key, flight);
    return flight;
  }

  async function renewed(key: string, old: UserToken): Promise<UserToken | undefined> {
    const lastMs = nowMs() + othersMs;
    for (let pauseMs = pollMs.first; ; pauseMs = Math.min(pollMs.max, pauseMs * 2)) {
      const unlock = await store.lock(key);
      if (unlock) {
        try {
          return await renewedLocked(key, old);
        } finally {
          await unlock();
        }
      }
      await sleep(pauseMs);
      const current = await read(key);
      if (current?.access !== old.access) return current;
      if (nowMs() >= lastMs) throw new NoCredentialError("a sign-in is being renewed elsewhere", { fault: "temporary" });
    }
  }

  async function renewedLocked(key: string, old: UserToken): Promise<UserToken | undefined> {
    const current = await read(key);
    if (current?.access !== old.access) return current; // somebody was quicker
    const { refresh } = current;
    const token = refresh === undefined ? undefined : await renew({ ...current, refresh }).catch(isOver);
    if (token) await save(key, token);
    else await store.remove(key, current);
    return token;
  }

  /** The token is the only one there is now, whatever the store says. */
  async function save(key: string, token: UserToken): Promise<void> {
    try {
      await store.write(key, token);
    } catch {
      unsaved.set(key, token);
      void saveLater(key, token);
    }
  }

  async function saveLater(key: string, token: UserToken): Promise<void> {
    for (const pauseMs of savePausesMs) {
      await sleep(pauseMs, undefined, { ref: false });
      if (unsaved.get(key) !== token) return;
      const isSaved = await store.write(key, token).then(
        () => true,
        () => false,
      );
      if (isSaved) break;
    }
    if (unsaved.get(key) === token) unsaved.delete(key);
  }

  async function refreshSoon(user: string, one: Held, key: string): Promise<void> {
    one.refreshMs = nowMs() + refreshAgainMs;
    try {
      const token = await next(key, one.token);
      if (held.get(user) !== one) return;
      if (token) hold(user, token);
      else held.delete(user);
    } catch {
      // The old one is shown until it ends; then somebody waits for the next, and hears why there is none.
    }
  }

  return {
    find(user, keyOf) {
      const one = held.get(user);
      if (!one) return undefined;
      const now = nowMs();
      if (now >= one.untilMs) return undefined;
      if (now >= one.refreshMs) void refreshSoon(user, one, keyOf());
      held.delete(user);
      held.set(user, one);
      return one.headers;
    },
    async get(user, key) {
      held.delete(user);
      const token = await read(key);
      if (token && !isOurs(token)) return undefined;
      const good = !token || isGood(token) ? token : await next(key, token);
      return good && hold(user, good);
    },
    async refused(user, key, shown) {
      const one = held.get(user);
      if (one?.headers[1] === shown[1]) held.delete(user);
      const token = await read(key);
      if (!token || !isOurs(token)) return false;
      if (`Bearer ${token.access}` !== shown[1] && isGood(token)) {
        hold(user, token);
        return true;
      }
      const isWorthIt = token.refresh !== undefined && nowMs() - token.obtainedMs >= youngMs;
      const other = isWorthIt ? await next(key, token) : undefined;
      if (other) hold(user, other);
      else if (!isWorthIt) await store.remove(key, token);
      return other !== undefined;
    },
    async put(user, key, token) {
      await store.write(key, token);
      unsaved.delete(key);
      hold(user, token);
    },
  };
}

// RFC 6749 5.2, OpenID Connect Core 1.0 3.1.2.6: only the user can help.
const over = new Set(["invalid_grant", "access_denied", "interaction_required", "login_required", "consent_required"]);

function isOver(error: unknown): undefined {
  if (error instanceof TokenRequestError && over.has(error.code ?? "")) return undefined;
  throw error;
}
