// Does not believe at once that much is gone: who lost its sight for a moment would empty a group.
import type { Seen } from "./checked.ts";

/** A large loss is believed when a second look, so much later, shows it too. */
export const confirmMsDefault = 5_000;

export interface Belief {
  /** Takes what is seen now; gives what to go on with: all of it, and what is missing and not yet believed to be gone. */
  take(seen: ReadonlyMap<string, Seen>): ReadonlyMap<string, Seen>;
  /** How many are missing and still shown. */
  readonly doubted: number;
}

/**
 * A loss is doubted when it takes more than half of what there was, or more than half of a group. What is missing leaves once it
 * was missing twice, at least `confirmMs` apart; what is new or changed counts at once.
 */
export function createBelief({ nowMs, confirmMs }: { nowMs: () => number; confirmMs: number }): Belief {
  let shown: ReadonlyMap<string, Seen> = new Map();
  let missingSince = new Map<string, number>();

  return {
    get doubted() {
      return missingSince.size;
    },
    take(seen) {
      const lost = [...shown].filter(([key]) => !seen.has(key));
      const isLarge = lost.length * 2 > shown.size;
      const lostOf = Map.groupBy(lost, ([, { group }]) => group);
      const hadOf = isLarge ? undefined : Map.groupBy(shown.values(), ({ group }) => group);
      const isDoubtful = (group: string) => isLarge || (lostOf.get(group)?.length ?? 0) * 2 > (hadOf?.get(group)?.length ?? 0);
      const kept: [string, Seen][] = [];
      const since = new Map<string, number>();
      for (const [key, backend] of lost) {
        const firstMs = missingSince.get(key);
        if (!isDoubtful(backend.group) || (firstMs !== undefined && nowMs() - firstMs >= confirmMs)) continue;
        since.set(key, firstMs ?? nowMs());
        kept.push([key, backend]);
      }
      missingSince = since;
      shown = kept.length === 0 ? seen : new Map([...seen, ...kept]);
      return shown;
    },
  };
}
