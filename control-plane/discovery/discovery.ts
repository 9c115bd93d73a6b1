// Runs the providers and says what they find together. It would rather show what was true a moment ago than nothing.
// Longer than most: who is chosen, what settles and what operators are told are one state.
import type { Log } from "../../common/log.ts";
import { type ChangeFeed, createChangeFeed } from "../change-feed.ts";
import { type Clock, systemClock } from "../clock.ts";
import { type Belief, confirmMsDefault, createBelief } from "./belief.ts";
import { type Checked, checkSighting, type Seen } from "./checked.ts";
import type { Memory } from "./memory.ts";
import { type Found, merge, nothingFound } from "./merge.ts";
import type { Provider } from "./provider.ts";
import { startWatcher, type Watcher } from "./watcher.ts";

// Workloads start and stop in bursts; one snapshot shows them all.
const quietMs = 100;
const delayMaxMs = 1_000;
/** Who waits for the first answers waits no longer for one that hangs. */
const firstAnswersMs = 5_000;
/** A provider that fails for so long is stood in for. */
const standInAfterMs = 5_000;
const problemsMax = 20;

export interface Discovery extends AsyncDisposable {
  /**
   * Starts providers, in the order of their precedence and behind those that run; one that runs already is not started again.
   * Resolves when each has answered or failed once, at most 5 s later: what is found by then is `current`.
   */
  use(started: readonly Started[]): Promise<void>;
  /** Whether any provider runs. */
  readonly isOn: boolean;
  /** The same object until something changes. */
  current(): Found;
  readonly changes: Pick<ChangeFeed, "next">;
  /** In the order of their precedence. */
  status(): ProviderStatus[];
}

export interface Started {
  readonly provider: Provider;
  /** Name of a provider that sees the same: this one counts only while that one sees nothing. */
  readonly standsInFor?: string | undefined;
}

export interface ProviderStatus {
  readonly name: string;
  readonly state: "ok" | "stale" | "failing";
  /** What it sees counts; false for one that stands in for another that works. */
  readonly isUsed: boolean;
  /** By the system's clock. */
  readonly successTimeMs: number | undefined;
  readonly error: string;
  readonly workloads: number;
  readonly groups: number;
  readonly problems: readonly string[];
}

export interface DiscoveryOptions {
  readonly log: Log;
  /** Default: monotonic, with the system's timers. */
  readonly clock?: Clock;
  /** For what operators read. Default: the system's clock. */
  readonly wallMs?: () => number;
  readonly random?: () => number;
  /** Default 5 s. */
  readonly confirmMs?: number;
  /** What was seen before this start. Default: nothing. */
  readonly memory?: Memory | undefined;
}

/** One provider, and what it said last. */
interface Member {
  readonly name: string;
  readonly watcher: Watcher;
  seen: Checked | undefined;
  /** Counts sightings, so that none is taken twice. */
  sightings: number;
  successTimeMs: number | undefined;
  failingSinceMs: number | undefined;
  error: string;
}

/** Providers that see the same, best first. */
interface Slot {
  readonly id: number;
  readonly members: Member[];
  readonly belief: Belief;
  used: Member | undefined;
  /** Of `used`, what was taken last. */
  taken: number;
  shown: ReadonlyMap<string, Seen>;
}

const monotonicClock: Clock = { ...systemClock, nowMs: () => performance.now() };

/** Runs nothing until it is told what to use. */
export function createDiscovery(options: DiscoveryOptions): Discovery {
  const { log, clock = monotonicClock, wallMs = Date.now, random = Math.random, confirmMs = confirmMsDefault, memory } = options;
  const slots: Slot[] = [];
  const feed = createChangeFeed();
  const timers = new Map<string, () => void>();
  const waiting = new Set<() => void>();
  let found: Found = nothingFound;
  /** What `found` was made from, and what it will be made from next: whole, to be compared. */
  let published = "[]";
  let newest = published;
  let isHeld = 0; // nothing is published before the first answers are in
  let changedSinceMs: number | undefined;
  let isStopped = false;

  function start({ provider, standsInFor }: Started): void {
    const existing = slots.find(({ members }) => members[0]?.name === standsInFor);
    const slot = existing ?? newSlot();
    const watcher = startWatcher({
      ...{ provider, clock, random },
      onSighting: (sighting) => {
        member.seen = checkSighting(sighting);
        if (member.failingSinceMs !== undefined) log.info({ provider: member.name }, "the discovery provider works again");
        Object.assign(member, { successTimeMs: wallMs(), failingSinceMs: undefined, error: "" });
        member.sightings += 1;
        follow(slot);
      },
      onFailure: (reason) => {
        if (reason !== member.error) log.warn({ provider: member.name, reason }, failureText(member));
        member.failingSinceMs ??= clock.nowMs();
        member.error = reason;
        later(`stand in ${slot.id}`, standInAfterMs, () => follow(slot));
        follow(slot);
      },
    });
    const member: Member = {
      ...{ name: provider.name, watcher, seen: remembered(provider.name), sightings: 0 },
      ...{ successTimeMs: undefined, failingSinceMs: undefined, error: "" },
    };
    slot.members.push(member);
  }

  function remembered(provider: string): Checked | undefined {
    const sighting = memory?.recall(provider);
    try {
      return sighting && checkSighting(sighting);
    } catch {
      return undefined; // somebody wrote into it
    }
  }

  function newSlot(): Slot {
    const belief = createBelief({ nowMs: clock.nowMs, confirmMs });
    const slot: Slot = { id: slots.length, members: [], belief, used: undefined, taken: 0, shown: new Map() };
    slots.push(slot);
    return slot;
  }

  /** Takes what is new, from whoever is to be believed now. */
  function follow(slot: Slot): void {
    for (const check of [...waiting]) check();
    const chosen = isHeld > 0 ? undefined : choose(slot);
    if (isStopped || chosen === undefined || (chosen === slot.used && slot.taken === chosen.sightings)) return;
    if (chosen !== slot.used)
      log.info({ provider: chosen.name, ...(slot.used && { insteadOf: slot.used.name }) }, "discovery uses this provider");
    Object.assign(slot, { used: chosen, taken: chosen.sightings });
    slot.shown = slot.belief.take(chosen.seen?.backends ?? new Map());
    const { doubted } = slot.belief;
    const asksAgain = `ask again ${slot.id}`;
    if (doubted > 0 && !timers.has(asksAgain)) {
      log.warn({ provider: chosen.name, missing: doubted }, "much is gone at once; it is looked for again before it leaves");
      // Who only tells of changes has to be asked.
      later(asksAgain, confirmMs, () => slot.used?.watcher.again());
    }
    publishSoon();
  }

  /** The first that works. Who worked a moment ago is waited for, and who worked last is better than nobody. */
  function choose({ members, used }: Slot): Member | undefined {
    const works = ({ sightings, failingSinceMs }: Member) =>
      sightings > 0 && (failingSinceMs === undefined || clock.nowMs() - failingSinceMs < standInAfterMs);
    return members.find(works) ?? used ?? members.find(({ seen }) => seen !== undefined);
  }

  /** Once, unless it waits already. */
  function later(what: string, ms: number, callback: () => void): void {
    if (timers.has(what)) return;
    const cancel = clock.after(ms, () => {
      timers.delete(what);
      callback();
    });
    timers.set(what, cancel);
  }

  function notLater(what: string): void {
    timers.get(what)?.();
    timers.delete(what);
  }

  /** After a moment of quiet, but not later than `delayMaxMs` after the first of several changes. */
  function publishSoon(): void {
    const { text } = merged();
    if (text === newest) return;
    newest = text;
    changedSinceMs ??= clock.nowMs();
    const leftMs = changedSinceMs + delayMaxMs - clock.nowMs();
    notLater("publish");
    later("publish", Math.max(0, Math.min(quietMs, leftMs)), publish);
  }

  function publish(): void {
    changedSinceMs = undefined;
    const next = merged();
    if (next.text === published) return;
    const names = new Set(found.resources.map(({ name }) => name));
    found = merge(next.parts);
    published = next.text;
    newest = published;
    memory?.keep(new Map(next.parts.map(({ provider, backends }) => [provider, backends.values()])));
    const joined = found.resources.filter(({ name }) => !names.has(name)).length;
    const left = names.size + joined - found.resources.length;
    log.info({ joined, left, groups: found.groups.length, backends: found.sources.size }, "discovered something else");
    for (const { message } of found.clashes.slice(0, problemsMax)) log.warn(message);
    feed.wake();
  }

  function merged() {
    const parts = slots.flatMap(({ used, shown }) =>
      used ? [{ provider: used.name, backends: shown, groups: [...groupsOf(used, shown)] }] : [],
    );
    const text = JSON.stringify(parts.map(({ provider, backends, groups }) => [provider, groups, [...backends].sort(byKey)]));
    return { parts, text };
  }

  function statusOf(slot: Slot, member: Member): ProviderStatus {
    const { name, seen, successTimeMs, failingSinceMs, error } = member;
    const isUsed = member === slot.used;
    const doubted = isUsed ? slot.belief.doubted : 0;
    const isStale = failingSinceMs !== undefined || doubted > 0 || member.sightings === 0;
    const doubt = doubted > 0 ? `much is gone at once (${doubted}); it is looked for again before it leaves` : "";
    const clashes = found.clashes.filter(({ provider }) => provider === name).map(({ message }) => message);
    const backends = isUsed ? slot.shown : (seen?.backends ?? new Map<string, Seen>());
    return {
      ...{ name, isUsed, successTimeMs, error: error || doubt },
      state: seen === undefined ? "failing" : isStale ? "stale" : "ok",
      workloads: backends.size,
      groups: seen ? groupsOf(member, backends).size : 0,
      problems: [...(seen?.problems ?? []), ...clashes].slice(0, problemsMax),
    };
  }

  /** Resolves when that is so, or nobody should wait any longer. */
  function until(isSo: () => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = clock.after(firstAnswersMs, resolve);
    const check = () => {
      if (isStopped || isSo()) resolve();
    };
    waiting.add(check);
    check();
    return promise.finally(() => {
      cancel();
      waiting.delete(check);
    });
  }

  const all = () => slots.flatMap(({ members }) => members);

  return {
    current: () => found,
    changes: feed,
    get isOn() {
      return slots.length > 0;
    },
    status: () => slots.flatMap((slot) => slot.members.map((member) => statusOf(slot, member))),
    async use(started) {
      const known = new Set(all().map(({ name }) => name));
      const added = started.filter(({ provider }) => !known.has(provider.name));
      if (added.length === 0 || isStopped) return;
      isHeld += 1;
      for (const one of added) start(one);
      const names = new Set(added.map(({ provider }) => provider.name));
      const isAnswered = () => all().every(({ name, sightings, error }) => !names.has(name) || sightings > 0 || error !== "");
      await until(isAnswered);
      isHeld -= 1;
      for (const slot of slots) follow(slot);
      notLater("publish");
      publish();
    },
    async [Symbol.asyncDispose]() {
      isStopped = true;
      for (const check of [...waiting]) check();
      for (const cancel of timers.values()) cancel();
      timers.clear();
      await Promise.all(all().map(({ watcher }) => watcher[Symbol.asyncDispose]()));
      await memory?.settled();
    },
  };
}

function groupsOf({ seen }: Member, shown: ReadonlyMap<string, Seen>): Set<string> {
  return new Set([...(seen?.groups ?? []), ...[...shown.values()].map(({ group }) => group)]);
}

function failureText({ seen }: Member): string {
  return seen ? "a discovery provider fails; what it saw last stays" : "a discovery provider sees nothing";
}

function byKey([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}
