// How a backend is, as operators see it, from two signals: checks of our own, and calls of clients. One bad moment changes little: it
// takes several in a row to be unhealthy, and two good ones to be trusted again. Pure: whoever knows something says it here.

/**
 * `unknown`: nothing was heard yet. `healthy`. `degraded`: it works, but slowly, or failed a moment ago, or has just come back.
 * `unhealthy`: it failed several times in a row. `unauthenticated`: it answers, and lets nobody in with what we show.
 */
export type HealthState = "unknown" | "healthy" | "degraded" | "unhealthy" | "unauthenticated";

export interface HealthSettings {
  /** Failures in a row that make a backend unhealthy. */
  readonly unhealthyThreshold: number;
}

/** One thing that was seen. */
export type Observation =
  | { readonly kind: "success"; readonly tookMs: number }
  | { readonly kind: "failure"; readonly reason: string }
  | { readonly kind: "unauthenticated"; readonly reason: string };

export interface Health {
  readonly state: HealthState;
  /** When it came to be so, milliseconds since 1970. */
  readonly sinceMs: number;
  /** Why, when it is not healthy. */
  readonly reason: string | undefined;
  readonly failuresInRow: number;
}

/** Slower than this is degraded, as in the original. */
const slowMs = 5_000;
const successesToTrust = 2;

export interface HealthRecord extends Health {
  /** Takes what was seen; true when the state is another now. */
  see(observation: Observation): boolean;
  /** Somebody else who looks at it says how it is; true when the state is another now. */
  adopt(state: HealthState, reason: string | undefined): boolean;
  configure(settings: HealthSettings): void;
}

export function createHealth(initial: HealthSettings, nowMs: () => number = Date.now): HealthRecord {
  let settings = initial;
  let state: HealthState = "unknown";
  let sinceMs = nowMs();
  let reason: string | undefined;
  let failuresInRow = 0;
  let successesInRow = 0;

  function become(next: HealthState, why: string | undefined): boolean {
    reason = why;
    if (next === state) return false;
    state = next;
    sinceMs = nowMs();
    return true;
  }

  function succeeded(tookMs: number): boolean {
    failuresInRow = 0;
    successesInRow++;
    if (tookMs > slowMs) return become("degraded", `answered in ${(tookMs / 1_000).toFixed(1)} s`);
    const isTrusted = state === "unknown" || state === "healthy" || successesInRow >= successesToTrust;
    return isTrusted ? become("healthy", undefined) : become("degraded", "it has just come back");
  }

  function failed(why: string): boolean {
    successesInRow = 0;
    failuresInRow++;
    if (failuresInRow >= settings.unhealthyThreshold) return become("unhealthy", why);
    // What was never reached is not known to work a little; what is unhealthy stays so until something works.
    const isKnown = state === "healthy" || state === "degraded";
    return become(isKnown ? "degraded" : state, why);
  }

  return {
    get state() {
      return state;
    },
    get sinceMs() {
      return sinceMs;
    },
    get reason() {
      return reason;
    },
    get failuresInRow() {
      return failuresInRow;
    },
    see(observation) {
      if (observation.kind === "success") return succeeded(observation.tookMs);
      if (observation.kind === "failure") return failed(observation.reason);
      // It answers, so it is no failure; but what worked before does not any more.
      successesInRow = 0;
      failuresInRow = 0;
      return become("unauthenticated", observation.reason);
    },
    adopt(next, why) {
      successesInRow = 0;
      failuresInRow = 0;
      return become(next, why);
    },
    configure(next) {
      settings = next;
    },
  };
}
