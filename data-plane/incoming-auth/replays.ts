// Which proofs were seen, for as long as they would be good again (RFC 9449 section 11.1).
import type { Clock } from "./clock.ts";

export interface Replays {
  /** "full": nobody can remember this one, so it must not count. */
  take(id: string): "new" | "seen" | "full";
}

export interface ReplaysOptions {
  /** An id is remembered at least so long, and less than twice that. */
  readonly windowMs: number;
  /** In one window. */
  readonly idsMax: number;
  readonly clock: Clock;
}

export function createReplays({ windowMs, idsMax, clock }: ReplaysOptions): Replays {
  let current = new Set<string>();
  let previous = new Set<string>();
  let startedAtMs = clock.elapsedMs();
  return {
    take(id) {
      const nowMs = clock.elapsedMs();
      if (nowMs - startedAtMs >= windowMs) {
        previous = nowMs - startedAtMs >= 2 * windowMs ? new Set() : current;
        current = new Set();
        startedAtMs = nowMs;
      }
      if (current.has(id) || previous.has(id)) return "seen";
      if (current.size >= idsMax) return "full";
      current.add(id);
      return "new";
    },
  };
}
