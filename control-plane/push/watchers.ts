// Which proxy watches which backend: one of all, the same one as long as it can, another when it is gone or does not reach the backend. Its
// listings are those that are kept. Where several control planes share a store, each backend is claimed by one of them at a time.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Log } from "../../common/log.ts";
import {
  type BackendStatus,
  type CatalogReport,
  StreamSnapshotsResponseSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { encode } from "../../proto/grpc.ts";
import type { CatalogKeeper } from "../catalogs/keeper.ts";
import type { Clock } from "../clock.ts";
import type { Leases } from "../store/store.ts";
import type { Sendable } from "./target.ts";

export interface Watchers extends AsyncDisposable {
  /** A proxy that can watch is there; what it says goes to the result. */
  join(id: string, send: (sendable: Sendable) => void): WatchMember;
}

export interface WatchMember {
  /** How backends are there. */
  reported(backends: readonly BackendStatus[]): void;
  /** A listing that was asked for. */
  listed(report: CatalogReport): void;
  left(): void;
}

export interface WatchersOptions {
  readonly keeper: Pick<CatalogKeeper, "digestOf" | "take">;
  readonly leases: Pick<Leases, "claim" | "disclaim">;
  readonly clock: Clock;
  readonly log: Log;
}

/** A claim outlives two rounds that fail. */
const roundMs = 2_000;
const claimMs = 3 * roundMs;

// A backend is given to another proxy when its watcher has not reached it for so long, and not back for a while.
const unableMs = 3_000;
const restMs = 30_000;

// When every proxy here was tried, those of other control planes may have it.
const yieldMs = 10_000;

/** What was asked for is not asked for again for so long: it may be on its way, or was not fit to be kept. */
const answerMs = 10_000;

// A backend that changes its lists all the time is asked for them, and written down, so often and no more.
const paceMs = 1_000;

// A store that hangs is not waited for: claims run out.
const goodbyeMs = 500;

// Hundreds of proxies report at once after a push.
const gatherMs = 50;

interface Member {
  readonly id: string;
  readonly send: (sendable: Sendable) => void;
  readonly sinceMs: number;
  /** By catalog. */
  statuses: ReadonlyMap<string, BackendStatus>;
  /** What it was ordered last; undefined before the first. */
  ordered: string | undefined;
  /** The edition that its orders are of. */
  edition: number;
}

interface Question {
  readonly member: Member;
  /** Of the listing, in hex. */
  readonly digest: string;
  readonly atMs: number;
  isAnswered: boolean;
}

interface Watch {
  watcher: Member;
  sinceMs: number;
  /** Proxies that did not reach it, and until when that counts. */
  readonly unable: Map<string, number>;
}

export function createWatchers({ keeper, leases, clock, log }: WatchersOptions): Watchers {
  const holder = randomUUID();
  const members = new Set<Member>();
  const watches = new Map<string, Watch>();
  /** By catalog, what was asked for last. */
  const asked = new Map<string, Question>();
  const yielded = new Map<string, number>();
  /** Backends that are ours to give out. */
  let claimed: ReadonlySet<string> = new Set();
  let claiming: Promise<void> | undefined;
  let isOver = false;
  /** Counts with everything that some order tells. */
  let edition = 0;
  let cancelGather: (() => void) | undefined;
  let cancelRound = clock.after(roundMs, round);

  function round(): void {
    cancelRound = clock.after(roundMs, round);
    claim();
    for (const member of members) askFor(member);
  }

  function known(): Set<string> {
    return new Set([...members].flatMap(({ statuses }) => [...statuses.keys()]));
  }

  /** Claims what proxies here have and nobody else claimed, then gives it out. One at a time. */
  function claim(): void {
    if (claiming || isOver) return;
    const nowMs = clock.nowMs();
    const names = known();
    letGo([...claimed].filter((name) => !names.has(name)));
    const wanted = [...names].filter((name) => (yielded.get(name) ?? 0) <= nowMs);
    if (wanted.length === 0) return;
    claiming = leases
      .claim(wanted.map(leaseOf), { holder, ttlMs: claimMs })
      .then((held) => {
        const ours = new Set(held);
        claimed = new Set(wanted.filter((name) => ours.has(leaseOf(name))));
      })
      // Without the store nobody can take it from us either.
      .catch((error: unknown) => log.debug({ reason: (error as Error).message }, "watches could not be claimed"))
      .finally(() => {
        claiming = undefined;
        giveOut();
      });
  }

  function giveOut(): void {
    if (isOver) return;
    const names = known();
    for (const name of watches.keys()) if ((!names.has(name) || !claimed.has(name)) && watches.delete(name)) edition++;
    for (const name of claimed) if (names.has(name)) choose(name);
    for (const member of members) if (member.edition !== edition || member.ordered === undefined) order(member);
  }

  function giveOutSoon(): void {
    cancelGather ??= clock.after(gatherMs, () => {
      cancelGather = undefined;
      if ([...known()].some((name) => !claimed.has(name))) claim();
      if (!claiming) giveOut();
    });
  }

  function choose(name: string): void {
    const nowMs = clock.nowMs();
    const able = [...members].filter(({ statuses }) => statuses.has(name));
    const watch = watches.get(name);
    const isThere = watch !== undefined && able.includes(watch.watcher);
    if (isThere && !isUnable(watch, name)) return;
    const unable = watch?.unable ?? new Map<string, number>();
    if (isThere) unable.set(watch.watcher.id, nowMs + restMs);
    const others = able.filter((member) => (unable.get(member.id) ?? 0) <= nowMs);
    const next = least(others) ?? (isThere ? undefined : least(able));
    if (next) {
      if (isThere)
        log.info({ catalog: name, from: watch.watcher.id, to: next.id }, "another proxy watches a backend that was not reached");
      watches.set(name, { watcher: next, sinceMs: nowMs, unable });
      edition++;
    } else if (isThere) yieldTo(name);
  }

  /** Nobody here reaches it, and perhaps somebody elsewhere does. Until one takes it, whoever watches it here goes on. */
  function yieldTo(name: string): void {
    yielded.set(name, clock.nowMs() + yieldMs);
    watches.get(name)?.unable.clear();
    letGo([name]);
  }

  function letGo(names: readonly string[]): void {
    if (names.length > 0) leases.disclaim(names.map(leaseOf), holder).catch(() => undefined); // else they run out
    for (const name of names) asked.delete(name);
  }

  function isUnable({ watcher, sinceMs }: Watch, name: string): boolean {
    const { state = "", error = "" } = watcher.statuses.get(name) ?? {};
    return clock.nowMs() - sinceMs >= unableMs && (state === "unhealthy" || (state === "unknown" && error !== ""));
  }

  /** Who has least to do. */
  function least(candidates: readonly Member[]): Member | undefined {
    const load = new Map<Member, number>();
    for (const { watcher } of watches.values()) load.set(watcher, (load.get(watcher) ?? 0) + 1);
    return candidates.toSorted((a, b) => (load.get(a) ?? 0) - (load.get(b) ?? 0))[0];
  }

  /** Tells a proxy what is its own to watch, when that is something else than it was told last. */
  function order(member: Member): void {
    const { statuses, ordered, sinceMs } = member;
    const names = [...statuses.keys()].sort();
    // What another control plane claims may be claimed by one that is gone: until its claim has run out, better two watch than none.
    const isSettled = names.every((name) => watches.has(name)) || clock.nowMs() - sinceMs >= claimMs + roundMs;
    if (names.length === 0 || (ordered === undefined && !isSettled)) return;
    const catalogs = names.filter((name) => watches.get(name)?.watcher === member);
    const others = names.flatMap((name) => {
      const watcher = watches.get(name)?.watcher;
      const status = watcher === member ? undefined : watcher?.statuses.get(name);
      return status?.watched ? [{ catalog: name, state: status.state, error: status.error }] : [];
    });
    member.edition = edition;
    const text = JSON.stringify([catalogs, others]);
    if (text === ordered) return;
    member.ordered = text;
    member.send(beside({ case: "watchOrders", value: { catalogs, others } }));
  }

  /** Asks for listings that are not what is kept: of whoever watches, and of anybody when nothing is kept. */
  function askFor(member: Member): void {
    const nowMs = clock.nowMs();
    const wanted = [...member.statuses.values()].filter(({ catalog, listingDigest: digest }) => {
      const present = keeper.digestOf(catalog);
      const isToSay = present === undefined || watches.get(catalog)?.watcher === member;
      const pending = asked.get(catalog);
      if (digest === "" || digest === present || !isToSay || (pending && isTooSoon(pending, member, digest))) return false;
      asked.set(catalog, { member, digest, atMs: nowMs, isAnswered: false });
      return true;
    });
    const catalogs = wanted.map(({ catalog }) => catalog);
    if (catalogs.length > 0) member.send(beside({ case: "catalogQuery", value: { catalogs } }));
  }

  function isTooSoon(pending: Question, member: Member, digest: string): boolean {
    const sinceMs = clock.nowMs() - pending.atMs;
    const isOfOther = pending.member !== member && !pending.isAnswered;
    return sinceMs < paceMs || (sinceMs < answerMs && (pending.digest === digest || isOfOther));
  }

  function reported(member: Member, backends: readonly BackendStatus[]): void {
    const before = member.statuses;
    member.statuses = new Map(backends.filter(({ catalog }) => catalog !== "").map((status) => [status.catalog, status]));
    const hasOthers = before.size !== member.statuses.size || [...member.statuses.keys()].some((name) => !before.has(name));
    if (hasOthers) member.edition = -1;
    const hasNews = [...member.statuses].some(
      ([name, status]) => watches.get(name)?.watcher === member && isOther(before.get(name), status),
    );
    if (hasNews) edition++;
    if (hasOthers || hasNews) giveOutSoon();
    askFor(member);
  }

  return {
    join(id, send) {
      const member: Member = { id, send, sinceMs: clock.nowMs(), statuses: new Map(), ordered: undefined, edition: -1 };
      members.add(member);
      return {
        reported: (backends) => reported(member, backends),
        listed({ catalog, listing }) {
          const question = asked.get(catalog);
          if (question?.member !== member || question.isAnswered) return;
          question.isAnswered = true;
          void keeper.take({ catalog, listing, digest: question.digest, proxy: id });
        },
        left() {
          members.delete(member);
          for (const [catalog, question] of asked) if (question.member === member) asked.delete(catalog);
          giveOutSoon();
        },
      };
    },
    async [Symbol.asyncDispose]() {
      isOver = true;
      cancelRound();
      cancelGather?.();
      const lettingGo = leases.disclaim([...claimed].map(leaseOf), holder).catch(() => undefined);
      await Promise.race([lettingGo, delay(goodbyeMs, undefined, { ref: false })]);
    },
  };
}

/** Whether it tells others something else. */
function isOther(before: BackendStatus | undefined, { state, error, watched }: BackendStatus): boolean {
  return before?.state !== state || before.error !== error || before.watched !== watched;
}

function leaseOf(catalog: string): string {
  return `watch/${catalog}`;
}

function beside(payload: MessageInitShape<typeof StreamSnapshotsResponseSchema>["payload"]): Sendable {
  return { nonce: 0n, messages: [encode(StreamSnapshotsResponseSchema, payload ? { payload } : {})] };
}
