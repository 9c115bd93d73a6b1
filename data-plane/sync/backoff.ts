// How long to wait before the next attempt to reach a control plane: at random, so that a fleet does not come back in step.

// Who is there and sends us away is given time. Where nobody is, asking costs nobody anything, and whoever comes back shall be
// followed within 3 s.
const mostMs = { refused: 15_000, unreachable: 2_000 };
const firstMs = 100;

// A stream that lasted so long was good.
const healthyMs = 30_000;

export interface Attempt {
  /** How long the stream lasted. */
  readonly lastedMs: number;
  /** No connection came about. */
  readonly isUnreachable: boolean;
  /** The control plane asks for so much patience. */
  readonly retryMs: number | undefined;
}

/** Gives the wait after each attempt that ended: full jitter. `random` is in [0, 1). */
export function createBackoff(random: () => number = Math.random): (attempt: Attempt) => number {
  let failures = 0;
  return ({ lastedMs, isUnreachable, retryMs = 0 }) => {
    failures = lastedMs >= healthyMs ? 0 : failures + 1;
    const most = isUnreachable ? mostMs.unreachable : mostMs.refused;
    const jitterMs = random() * Math.min(most, firstMs * 2 ** failures);
    return Math.min(retryMs, mostMs.refused) + Math.max(jitterMs, random() * retryMs);
  };
}
