// The short line in front of a full gateway: for bursts, which pass. When those who wait have waited too long for a while it is no burst:
// then nobody stands in line who is being served already, and a place that gets free is for whoever comes next. Older calls have
// clients that give up. Source: CoDel (RFC 8289), with the last-in-first-out of Facebook's adaptive queues.
import type { Tally } from "./shares.ts";

export interface Waiter {
  readonly tally: Tally;
  readonly weight: number;
  readonly sinceMs: number;
  /** Gives it a place, or tells it that there is none. */
  settle(isIn: boolean): void;
}

export interface WaitingLine {
  /** False when there is no room in it, or it would be in vain. */
  join(waiter: Waiter): boolean;
  /** Whose turn it is, of those that fit: who is served far less; of equals the first, and the last when it is no burst. */
  next(room: number, nowMs: number): Waiter | undefined;
  /** Sends away who waited for too long; to be called all the time. */
  sweep(nowMs: number): void;
  readonly length: number;
  /** The line does not get empty: calls come faster than they are served. */
  readonly isOverloaded: boolean;
}

export interface WaitingLineOptions {
  /** Default `lineMost`. */
  readonly most?: number;
  /** Longest wait, milliseconds, of a burst. Default 100. */
  readonly longestMs?: number;
  /** A wait that is no burst any more, milliseconds, when it was the least for `intervalMs`; nobody waits longer from then on. Default 10. */
  readonly targetMs?: number;
  /** Default 250. */
  readonly intervalMs?: number;
}

export const lineMost = 512;

export function createWaitingLine(options: WaitingLineOptions = {}): WaitingLine {
  const { most = lineMost, longestMs = 100, targetMs = 10, intervalMs = 250 } = options;
  const line: Waiter[] = []; // oldest first
  let isOverloaded = false;
  let goodMs = Number.NEGATIVE_INFINITY; // when a wait was short last
  let triedMs = Number.NEGATIVE_INFINITY; // when somebody last wanted to stand in line

  function see(waitedMs: number, nowMs: number): void {
    if (waitedMs < targetMs) goodMs = nowMs;
    else if (nowMs - goodMs > intervalMs) isOverloaded = true;
  }

  /** Sends the last of those away who have most, when that is far more than who comes has: equals keep their turns. */
  function makeRoom(comer: Tally): boolean {
    let most = -1;
    for (let i = 0; i < line.length; i++) if (weightOf(line[i]?.tally) >= weightOf(line[most]?.tally)) most = i;
    if (weightOf(line[most]?.tally) <= 2 * (weightOf(comer) + 2)) return false;
    const [waiter] = line.splice(most, 1);
    waiter?.settle(false);
    return true;
  }

  return {
    join(waiter) {
      if (line.length === 0 && !isOverloaded && waiter.sinceMs - triedMs > intervalMs) goodMs = waiter.sinceMs; // a new story
      triedMs = waiter.sinceMs;
      if (isOverloaded && (waiter.tally.inFlight > 0 || line.some(({ tally }) => tally === waiter.tally))) return false;
      if (line.length >= most && !makeRoom(waiter.tally)) return false;
      line.push(waiter);
      return true;
    },
    next(room, nowMs) {
      let chosen = -1;
      for (let i = 0; i < line.length; i++) {
        const one = line[i] as Waiter;
        if (one.weight > room) continue;
        const best = line[chosen];
        if (!best || isFarLess(one.tally, best.tally) || (isOverloaded && !isFarLess(best.tally, one.tally))) chosen = i;
      }
      if (chosen < 0) return undefined;
      const [waiter] = line.splice(chosen, 1);
      if (waiter) see(nowMs - waiter.sinceMs, nowMs);
      return waiter;
    },
    sweep(nowMs) {
      const maxMs = isOverloaded ? targetMs : longestMs;
      while (line[0] && nowMs - line[0].sinceMs >= maxMs) {
        const waiter = line.shift() as Waiter;
        see(nowMs - waiter.sinceMs, nowMs);
        waiter.settle(false);
      }
      if (isOverloaded && nowMs - triedMs > intervalMs) isOverloaded = false;
    },
    get length() {
      return line.length;
    },
    get isOverloaded() {
      return isOverloaded;
    },
  };
}

/** Small differences are chance; who had to let others pass for them would wait in vain. */
function isFarLess(one: Tally, other: Tally): boolean {
  return one.inFlight * 2 < other.inFlight;
}

function weightOf(tally: Tally | undefined): number {
  return tally ? tally.inFlight + tally.waiting : -1;
}
