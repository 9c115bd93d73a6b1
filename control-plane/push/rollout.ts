// Who gets the newest version when. It is tried on a few proxies first; what one of them refuses goes no further, and the
// others keep what they have until there is another revision. As a drawing:
//
//   canary ──all tried ones acknowledged──▶ rolling         canary ──one refused──▶ halted
//   any ──another revision──▶ canary                        halted ──the one that refused was restarted──▶ canary
//
// One that another control plane has halted is halted here too, for as long as it is there.
//
// What says that sessions are revoked is never held back: those that keep an earlier version get it with that. Nor is what backends list,
// and that alone is no other version to try.
import type { Hello, Nack } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { NackReason } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Clock } from "../clock.ts";
import { revisionOf, runsLater } from "./hello.ts";
import { differsOnlyIn, isCatalog, isFact, isRevocations, type Target } from "./target.ts";

/** Of ten proxies, one. */
const canaryShare = 0.1;

// A canary that says nothing for so long is replaced by another; it may still answer.
const silenceMs = 2_000;

// A version that freezes or kills proxies does so to no more than this, beside the first ones.
const replacementsMax = 3;

export interface RolloutMember {
  readonly id: string;
  readonly instanceId: string;
  /** What it runs comes from the same store. */
  readonly isOurs: boolean;
  /** It refused what it was sent last. */
  readonly hasRefused: boolean;
  readonly liveVersion: string;
  /** What it runs, or is about to; undefined when that is not known here. */
  readonly running: Target | undefined;
  /** The newest that it was sent: it refuses what is older. */
  readonly sentRevision: bigint;
  assign(target: Target): void;
}

export interface RolloutOptions {
  readonly clock: Clock;
  /** Those connected, sorted by id. */
  readonly members: () => readonly RolloutMember[];
}

export type RolloutPhase = "canary" | "rolling" | "halted";

export interface RolloutStatus {
  readonly phase: RolloutPhase;
  /** Passed its canaries last. */
  readonly approved: Target | undefined;
  /** Why it is halted. */
  readonly reason: string;
  /** Sorted. */
  readonly canaries: readonly string[];
  readonly startTimeMs: number;
}

export interface Rollout {
  /** Something newer for all. */
  begin(target: Target): void;
  /** What one that comes should run: undefined to keep what it has. `base`: what its Hello named, when it is known here. */
  welcome(member: Pick<RolloutMember, "id" | "instanceId">, hello: Hello, base: Target | undefined): Target | undefined;
  acknowledged(id: string, target: Target): void;
  refused(member: Pick<RolloutMember, "id" | "instanceId">, target: Target, nack: Nack): void;
  left(id: string): void;
  /** Another control plane has halted the newest version, or none has any more (undefined). Does nothing to one that goes to all already. */
  heed(haltedElsewhere: string | undefined): void;
  status(): RolloutStatus;
}

export function createRollout({ clock, members }: RolloutOptions): Rollout {
  let newest: Target | undefined;
  let approved: Target | undefined;
  let phase: RolloutPhase = "canary";
  let reason = "";
  let haltedElsewhere: string | undefined;
  let startTimeMs = clock.nowMs();
  /** Id → how to stop waiting for it. */
  const awaited = new Map<string, () => void>();
  const tried = new Set<string>();
  const passed = new Set<string>();
  /** Id → the process that refused. */
  const refusers = new Map<string, string>();

  function begin(target: Target): void {
    const before = newest;
    newest = target;
    if (before !== undefined && phase !== "rolling" && differsOnlyIn(isCatalog, before, target)) {
      for (const member of members())
        if (tried.has(member.id) && !refusers.has(member.id)) member.assign(target);
        else hold(member, target, false);
      return;
    }
    startTimeMs = clock.nowMs();
    reason = "";
    haltedElsewhere = undefined;
    stopWaiting();
    for (const set of [tried, passed, refusers]) set.clear();
    if (before !== undefined && before === approved && differsOnlyIn(isFact, before, target)) {
      approve(target);
      return;
    }
    phase = "canary";
    const isRevoking = before !== undefined && revocationsOf(target) !== revocationsOf(before);
    tryMore(target);
    for (const member of members()) if (!tried.has(member.id)) hold(member, target, isRevoking);
  }

  function hold(member: RolloutMember, target: Target, isRevoking: boolean): void {
    const kept = member.isOurs ? keptBy(member.running) : target; // a stranger refuses it, and so is seen
    if (kept !== undefined && kept.revision < member.sentRevision) return;
    if (kept !== undefined) member.assign(kept);
    // It can't be told of revocations alone, and they don't wait.
    else if (isRevoking) member.assign(target);
  }

  /** The later one of what it runs and what is approved, with the sessions that are revoked by now. */
  function keptBy(running: Target | undefined): Target | undefined {
    const isBehind = running !== undefined && approved !== undefined && running.revision < approved.revision;
    const base = isBehind ? approved : (running ?? approved);
    return base && newest?.heldAt(base);
  }

  /** Tries it on as many as there should be, as far as there are any. */
  function tryMore(target: Target): void {
    if (haltedElsewhere !== undefined) return;
    const connected = members().filter(({ isOurs }) => isOurs);
    const wanted = Math.max(1, Math.floor(connected.length * canaryShare));
    const rank = ({ hasRefused, running }: RolloutMember): number =>
      hasRefused ? 2 : running !== undefined && running !== approved ? 0 : 1; // those that an earlier one was tried on go first
    const others = connected.filter(({ id }) => !tried.has(id)).sort((a, b) => rank(a) - rank(b));
    for (const member of others) {
      if (awaited.size + passed.size >= wanted || tried.size >= wanted + replacementsMax) return;
      tryOn(member.id);
      if (member.liveVersion === target.version) acknowledged(member.id, target);
      else member.assign(target);
    }
  }

  function tryOn(id: string): void {
    tried.add(id);
    awaited.get(id)?.();
    awaited.set(
      id,
      clock.after(silenceMs, () => lose(id)),
    );
  }

  /** It says nothing, or is gone: it counts neither way, unless it still answers. */
  function lose(id: string): void {
    if (newest === undefined || !stopWaitingFor(id)) return;
    tryMore(newest);
    decide(newest);
  }

  function decide(target: Target): void {
    if (phase === "canary" && haltedElsewhere === undefined && awaited.size === 0 && passed.size > 0) approve(target);
  }

  function approve(target: Target): void {
    phase = "rolling";
    approved = target;
    stopWaiting();
    for (const member of members()) member.assign(target);
  }

  function acknowledged(id: string, target: Target): void {
    if (target !== newest || phase !== "canary") return;
    stopWaitingFor(id);
    passed.add(id);
    decide(target);
  }

  function stopWaitingFor(id: string): boolean {
    awaited.get(id)?.();
    return awaited.delete(id);
  }

  function stopWaiting(): void {
    for (const cancel of awaited.values()) cancel();
    awaited.clear();
  }

  /** Whether one that comes is to try it. */
  function isToTry({ id, instanceId }: Pick<RolloutMember, "id" | "instanceId">): boolean {
    if (haltedElsewhere !== undefined) return false;
    if (phase === "halted") return refusers.has(id) && refusers.get(id) !== instanceId;
    return tried.has(id) || (awaited.size === 0 && passed.size === 0 && tried.size <= replacementsMax);
  }

  return {
    begin,
    acknowledged,
    welcome(member, hello, base) {
      if (newest === undefined || phase === "rolling") return newest;
      if (base === newest || runsLater(hello, newest)) {
        acknowledged(member.id, newest);
        return newest;
      }
      if (hello.storeUid !== "" && hello.storeUid !== newest.storeUid) return newest; // a stranger refuses it, and so is seen
      if (isToTry(member)) {
        phase = "canary";
        reason = "";
        refusers.delete(member.id);
        tryOn(member.id);
        return newest;
      }
      // Nothing can break on one that runs nothing.
      if (hello.knownVersion === "") return keptBy(undefined) ?? newest;
      const isAhead = base === undefined && approved !== undefined && revisionOf(hello.knownVersion) > approved.revision;
      return isAhead ? undefined : keptBy(base);
    },
    refused({ id, instanceId }, target, { error, reason: why }) {
      if (target !== newest || phase === "rolling" || !tried.has(id)) return;
      stopWaiting();
      refusers.set(id, instanceId);
      phase = "halted";
      reason = `${id} refused ${target.version}: ${error?.message || nameOf(why)}`;
    },
    left: lose,
    heed(halted) {
      const isNews = (halted === undefined) !== (haltedElsewhere === undefined);
      haltedElsewhere = halted;
      if (!isNews || newest === undefined || phase !== "canary") return;
      if (halted !== undefined) stopWaiting();
      else if (passed.size > 0) decide(newest);
      else tryMore(newest);
    },
    status: () => ({ phase, approved, reason, canaries: [...tried].sort(), startTimeMs }),
  };
}

/** Digest of what says which sessions are revoked; empty when nothing does. */
function revocationsOf({ resources }: Target): string {
  return Buffer.from(resources.find(isRevocations)?.digest ?? []).toString("hex");
}

function nameOf(reason: NackReason): string {
  return Object.entries(NackReason).find(([, value]) => value === reason)?.[0] ?? String(reason);
}
