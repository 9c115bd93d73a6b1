// Refusals in the audit trail, at a rate that leaves room there for what was allowed: the trail is bounded, and whoever can make it
// forget can hide.
import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import type { DeniedAttempt, Store } from "../store/store.ts";

const burst = 50;
const everyMs = 10_000;
const waitMs = 2_000;

export interface Denials {
  /** Resolves when it is written, left out, or could not be written within 2 s. `isProven`: it is known who was refused. */
  note(denied: DeniedAttempt, isProven: boolean): Promise<void>;
}

export interface DenialsOptions {
  readonly store: Pick<Store, "audit">;
  readonly log: Log;
  readonly nowMs: () => number;
}

export function createDenials({ store, log, nowMs }: DenialsOptions): Denials {
  // Apart, so that a crowd of strangers does not cover what somebody known tries.
  const buckets = { proven: createBucket(nowMs), strangers: createBucket(nowMs) };
  return {
    async note(denied, isProven) {
      const skipped = (isProven ? buckets.proven : buckets.strangers).take();
      if (skipped === undefined) return;
      const reason = skipped === 0 ? denied.reason : `${denied.reason} (and ${skipped} refusals before it that are not listed)`;
      const written = store.audit({ ...denied, reason }).catch((error: unknown) => {
        log.error(
          { reason: (error as Error).message, method: denied.method },
          "a refusal could not be written to the audit trail",
        );
      });
      await Promise.race([written, delay(waitMs, undefined, { ref: false })]);
    },
  };
}

/** Gives how many were left out since the last one that was let through; undefined: leave this one out too. */
function createBucket(nowMs: () => number) {
  let [tokens, filledMs, skipped] = [burst, nowMs(), 0];
  return {
    take(): number | undefined {
      const earned = Math.floor((nowMs() - filledMs) / everyMs);
      tokens = Math.min(burst, tokens + earned);
      filledMs += earned * everyMs;
      if (tokens < 1) {
        skipped += 1;
        return undefined;
      }
      tokens -= 1;
      const before = skipped;
      skipped = 0;
      return before;
    },
  };
}
