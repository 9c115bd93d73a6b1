// How many full snapshots are on the way at a time. A fleet that comes back at once is served in turns, newest content each
// time, instead of all proxies waiting for each other's bytes.
import { availableParallelism } from "node:os";
import type { Clock } from "../clock.ts";

// As Istio paces its pushes: more in parallel only makes each of them slower.
export const placesMax = Math.min(15 + 5 * availableParallelism(), 100);

// A place is about the burst. Who takes longer than this is slow by itself, and others need not wait for that.
const placeMs = 2_000;

// Those that come may wait so many turns for theirs; beyond, they are told to come again.
const turnsMax = 4;

export interface Places {
  /** Calls back with a place, at once when there is one; whoever has it calls `release`. The result gives up waiting. */
  take(onPlace: (release: () => void) => void): () => void;
  /** So many wait that a proxy does better to come again. */
  isCrowded(): boolean;
}

export function createPlaces(clock: Clock, max: number = placesMax): Places {
  // One entry per stream at most, so the fleet's own bound is this one's.
  const waiting = new Set<(release: () => void) => void>();
  let taken = 0;

  function give(onPlace: (release: () => void) => void): void {
    let isHeld = true;
    taken += 1;
    const release = (): void => {
      if (!isHeld) return;
      isHeld = false;
      taken -= 1;
      cancel();
      pass();
    };
    const cancel = clock.after(placeMs, release);
    onPlace(release);
  }

  function pass(): void {
    const [next] = waiting;
    if (next === undefined || taken >= max) return;
    waiting.delete(next);
    give(next);
  }

  return {
    take(onPlace) {
      if (taken < max) give(onPlace);
      else waiting.add(onPlace);
      return () => void waiting.delete(onPlace);
    },
    isCrowded: () => waiting.size >= max * turnsMax,
  };
}
