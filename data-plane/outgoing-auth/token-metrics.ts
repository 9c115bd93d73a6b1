// What became of tokens, counted. Nothing here knows how it is exported.

/** Why no token was had. */
export type TokenFailure =
  | "unreachable"
  | "bad_answer"
  | "wrong_token"
  | "refused_client"
  | "refused_caller"
  | "left_alone"
  | "too_many"
  | "no_subject"
  | "internal";

export interface TokenLabels {
  readonly strategy: string;
  readonly virtualServer: string;
  readonly backend: string;
}

/** All of them only grow. */
export interface TokenCounters {
  /** Shown from memory. */
  memoryHits: number;
  /** Taken over from another replica. */
  redisHits: number;
  /** Not in memory. */
  misses: number;
  /** Tokens that a token endpoint gave. */
  obtained: number;
  readonly failed: Partial<Record<TokenFailure, number>>;
  /** Begun before the old token ended. */
  refreshes: number;
  /** Refused from memory of a refusal. */
  negativeHits: number;
  /** Tokens that a backend refused. */
  backendRefusals: number;
}

export interface TokenMetrics {
  /** Equal labels share counters. */
  of(labels: TokenLabels): TokenCounters;
  /** A copy. */
  snapshot(): (TokenLabels & Readonly<TokenCounters>)[];
}

// Names come from snapshots, which bound them; this bounds what many snapshots leave behind.
const rowsMax = 4_096;
const rest: TokenLabels = { strategy: "other", virtualServer: "other", backend: "other" };

/** Beyond 4,096 backends, all further ones are counted as one, called `other`. */
export function createTokenMetrics(): TokenMetrics {
  const rows = new Map<string, { readonly labels: TokenLabels; readonly counters: TokenCounters }>();

  function of(labels: TokenLabels): TokenCounters {
    const { strategy, virtualServer, backend } = labels;
    const key = JSON.stringify([strategy, virtualServer, backend]);
    const existing = rows.get(key);
    if (existing) return existing.counters;
    if (rows.size >= rowsMax && labels !== rest) return of(rest);
    const counters = {
      ...{ memoryHits: 0, redisHits: 0, misses: 0, obtained: 0, failed: {} },
      ...{ refreshes: 0, negativeHits: 0, backendRefusals: 0 },
    };
    rows.set(key, { labels: { strategy, virtualServer, backend }, counters });
    return counters;
  }

  return {
    of,
    snapshot: () =>
      [...rows.values()].map(({ labels, counters }) => ({ ...labels, ...counters, failed: { ...counters.failed } })),
  };
}
