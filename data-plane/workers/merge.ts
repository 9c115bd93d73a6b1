// What several workers say of themselves, as one proxy says it.

import type { OwnStatus } from "../ingress/probes.ts";
import type { LimitReport } from "../overload/limit-report.ts";
import type { ListedSession } from "../session/listing.ts";
import type { ProxyState } from "../sync/report.ts";

// The worst that one of them sees: where one worker can't reach a backend, some calls fail.
const byWeight = ["healthy", "unknown", "degraded", "unauthenticated", "unhealthy"];

const weightOf = (state: string | undefined): number => byWeight.indexOf(state ?? "");

/** At least one. `sessions`: how many there are, when it is known; a session may be in hand in several workers. */
export function mergeStates(states: readonly ProxyState[], sessions: number | undefined): ProxyState {
  const [first, ...others] = states as [ProxyState, ...ProxyState[]];
  const inHand = states.reduce((sum, { report }) => sum + (report.activeSessions ?? 0), 0);
  // All run the same snapshot, or are about to, so their backends stand in the same order.
  const backends = (first.report.backends ?? []).map((backend, i) => {
    const same = others.flatMap(({ report }) => report.backends?.[i] ?? []).filter(({ name }) => name === backend.name);
    const worst = same.reduce((so, other) => (weightOf(other.state) > weightOf(so.state) ? other : so), backend);
    const listingDigest = [backend, ...same].map((one) => one.listingDigest ?? "").find((digest) => digest !== "") ?? "";
    return { ...worst, listingDigest, watched: [backend, ...same].some(({ watched }) => watched) };
  });
  return {
    report: {
      ...first.report,
      ...{ backends, activeSessions: sessions ?? inHand },
      draining: states.every(({ report }) => report.draining),
      workLeft: states.reduce((sum, { report }) => sum + (report.workLeft ?? 0), 0),
    },
    everyMs: Math.min(...states.map(({ everyMs }) => everyMs)),
  };
}

type BackendStatus = OwnStatus["backends"][number];

/** At least one. `leaderBytes`: resident memory of the process that leads them. */
export function mergeStatus(all: readonly OwnStatus[], leaderBytes: number): OwnStatus {
  const [first, ...others] = all as [OwnStatus, ...OwnStatus[]];
  const backends = first.backends.map((backend, i) =>
    others.reduce((whole, { backends }) => {
      const other = backends[i];
      return other?.resource === whole.resource ? mergeBackend(whole, other) : whole;
    }, backend),
  );
  return {
    ...first,
    memory: {
      resident_bytes: all.reduce((sum, { memory }) => sum + memory.resident_bytes, leaderBytes),
      heap_used_bytes: all.reduce((sum, { memory }) => sum + memory.heap_used_bytes, 0),
    },
    healthy: all.every(({ healthy }) => healthy),
    backends,
    pressure: Math.max(...all.map(({ pressure }) => pressure)),
    limits: first.limits.map((limit) =>
      mergeLimits(all.flatMap(({ limits }) => limits.filter(({ name }) => name === limit.name))),
    ),
  };
}

function mergeBackend(one: BackendStatus, other: BackendStatus): BackendStatus {
  const worst = weightOf(other.health) > weightOf(one.health) ? other : one;
  return {
    ...worst,
    in_flight: one.in_flight + other.in_flight,
    tokens: one.tokens &&
      other.tokens && { ...addNumbers(one.tokens, other.tokens), failed: addNumbers(one.tokens.failed, other.tokens.failed) },
    endpoints: one.endpoints?.map((endpoint, i) => {
      const same = other.endpoints?.[i];
      if (!same) return endpoint;
      const worse = weightOf(same.health) > weightOf(endpoint.health) ? same : endpoint;
      return { ...worse, in_flight: endpoint.in_flight + same.in_flight, left_alone: endpoint.left_alone || same.left_alone };
    }),
  };
}

/** Each member that is a number in either is their sum. */
function addNumbers<T extends object>(one: T, other: T): T {
  const sums = Object.entries({ ...other, ...one }).map(([name, value]) => {
    const added = (other as Record<string, unknown>)[name];
    return [name, typeof value === "number" && name in one && typeof added === "number" ? value + added : value];
  });
  return Object.fromEntries(sums) as T;
}

function mergeLimits(same: readonly LimitReport[]): LimitReport {
  return same.reduce((sum, { used, limit, refused }) => ({
    name: sum.name,
    used: sum.used + used,
    limit: sum.limit + limit,
    ...(refused !== undefined && { refused: (sum.refused ?? 0) + refused }),
  }));
}

/** A session may be in hand in several of them. */
export function mergeListings(listings: readonly (readonly ListedSession[])[]): ListedSession[] {
  const byKey = new Map<string, ListedSession>();
  for (const session of listings.flat()) {
    const { isHeld, streams, calls, lastUseTimeMs, ...facts } = byKey.get(session.key) ?? nothingHeld(session);
    byKey.set(session.key, {
      ...facts,
      isHeld: isHeld || session.isHeld,
      streams: streams + session.streams,
      calls: calls + session.calls,
      lastUseTimeMs: Math.max(lastUseTimeMs, session.lastUseTimeMs),
    });
  }
  return [...byKey.values()];
}

const nothingHeld = (session: ListedSession): ListedSession => ({ ...session, isHeld: false, streams: 0, calls: 0 });
