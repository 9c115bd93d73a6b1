// The fleet as operators see it: a row for each proxy, and how far the newest version has come.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  DrainState,
  type GetRolloutResponse,
  GetRolloutResponseSchema,
  type Proxy as ProxyRow,
  ProxySchema,
  ProxyState,
  RolloutState,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { BackendStatus, ConfigSource, Node } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { RolloutStatus } from "./rollout.ts";
import type { Standing, SubscriberStatus } from "./subscriber.ts";
import type { Target } from "./target.ts";

export interface RowFacts {
  readonly node: Node;
  readonly configSource: ConfigSource;
  readonly connectTimeMs: number;
  readonly disconnectTimeMs: number | undefined;
  readonly activeSessions: number;
  readonly backends: readonly BackendStatus[];
  /** It says that it takes no new work. */
  readonly isDraining: boolean;
  /** Calls and streams, once it is draining. */
  readonly workLeft: number;
  readonly subscriber: { status(): SubscriberStatus };
}

/** `newest`: what all should run. `isToDrain`: it is to take no new work. */
export function rowOf(facts: RowFacts, newest: Target | undefined, isToDrain: boolean): ProxyRow {
  const { node, configSource, connectTimeMs, disconnectTimeMs, activeSessions, backends } = facts;
  const status = facts.subscriber.status();
  const { liveVersion, ackTimeMs, ackMillis, warnings, lastNack } = status;
  return create(ProxySchema, {
    ...{ node, configSource, liveVersion, ackMillis, activeSessions },
    state: disconnectTimeMs === undefined ? stateOf(status, newest) : ProxyState.DISCONNECTED,
    targetVersion: newest?.version ?? "",
    connectTime: timestampFromMs(connectTimeMs),
    ...(ackTimeMs !== undefined && { ackTime: timestampFromMs(ackTimeMs) }),
    ...(lastNack && {
      lastNack: {
        version: lastNack.nack.version,
        reason: lastNack.nack.reason,
        ...(lastNack.nack.error && { error: lastNack.nack.error }),
        time: timestampFromMs(lastNack.timeMs),
      },
    }),
    backends: [...backends],
    drain: drainOf(facts, isToDrain),
    warnings: [...warnings],
    ...(disconnectTimeMs !== undefined && { disconnectTime: timestampFromMs(disconnectTimeMs) }),
  });
}

function stateOf({ standing, target, lastNack }: SubscriberStatus, newest: Target | undefined): ProxyState {
  if (standing === "stale" || standing === "pending" || target?.version === newest?.version) return states[standing];
  // It is back to what it had; what matters is that it refused the newest.
  return lastNack?.nack.version === newest?.version ? ProxyState.NACKED : ProxyState.HELD;
}

function drainOf({ isDraining, workLeft, disconnectTimeMs }: RowFacts, isToDrain: boolean): DrainState {
  if (!isDraining || disconnectTimeMs !== undefined) return isToDrain ? DrainState.WANTED : DrainState.UNSPECIFIED;
  return workLeft > 0 ? DrainState.DRAINING : DrainState.DRAINED;
}

const states = {
  "not-sent": ProxyState.NOT_SENT,
  pending: ProxyState.PENDING,
  synced: ProxyState.SYNCED,
  stale: ProxyState.STALE,
  nacked: ProxyState.NACKED,
} as const satisfies Record<Standing, ProxyState>;

export interface RolloutFacts {
  readonly newest: Target | undefined;
  readonly rollout: RolloutStatus;
  /** Of all proxies. */
  readonly rows: readonly ProxyRow[];
  /** What other control planes that are there say of their own proxies. Default: there are none. */
  readonly others?: readonly GetRolloutResponse[];
}

/** The newest version on its way. */
export function rolloutOf({ newest, rollout, rows, others = [] }: RolloutFacts): GetRolloutResponse {
  const version = newest?.version ?? "";
  const connected = rows.filter(isHeard);
  const acked = connected.filter(({ liveVersion }) => isSameContent(liveVersion, version));
  const refused = rows.filter(({ lastNack }) => lastNack !== undefined && isSameContent(lastNack.version, version));
  const held = connected.filter(({ state }) => state === ProxyState.HELD).length;
  const pending = connected.filter((row) => !acked.includes(row) && !refused.includes(row)).length - held;
  // Who ran it before it was the newest, or since before it connected, says nothing of this rollout.
  const since = acked.flatMap(({ ackTime, ackMillis }) => {
    const afterMs = ackTime === undefined ? -1 : Number(ackTime.seconds) * 1000 + ackTime.nanos / 1e6 - rollout.startTimeMs;
    return afterMs < 0 ? [] : [{ afterMs, ackMillis }];
  });
  const times = since.map(({ afterMs }) => Math.round(afterMs)).sort((a, b) => a - b);
  const millis = since.map(({ ackMillis }) => ackMillis).sort((a, b) => a - b);
  const alike = others.filter(({ targetVersion }) => isSameContent(targetVersion, version));
  const own = stateOfRollout(rollout, pending, refused.length);
  const states = [own, ...alike.map(({ state }) => state)];
  return create(GetRolloutResponseSchema, {
    targetVersion: version,
    approvedVersion: rollout.approved?.version ?? "",
    state: newest === undefined ? RolloutState.UNSPECIFIED : (unsettled.find((one) => states.includes(one)) ?? own),
    reason: rollout.reason || (alike.find(({ reason }) => reason !== "")?.reason ?? ""),
    canaries: [...new Set([...rollout.canaries, ...alike.flatMap(({ canaries }) => canaries)])].sort(),
    startTime: timestampFromMs(rollout.startTimeMs),
    ...{ acknowledged: acked.length, pending, held, refused },
    firstAckMillis: times[0] ?? 0,
    lastAckMillis: times.at(-1) ?? 0,
    ackMillisP50: millis[Math.ceil(millis.length * 0.5) - 1] ?? 0,
    ackMillisP99: millis[Math.ceil(millis.length * 0.99) - 1] ?? 0,
  });
}

// What one control plane says holds for all, the first of these before the others.
const unsettled = [RolloutState.HALTED, RolloutState.CANARY];

/** Control planes may name the same content after different revisions. */
export function isSameContent(version: string, other: string): boolean {
  return version !== "" && digestOf(version) === digestOf(other);
}

function digestOf(version: string): string {
  return version.split("-")[1] ?? version;
}

/** Whether somebody hears from it. */
export function isHeard({ state }: ProxyRow): boolean {
  return state !== ProxyState.DISCONNECTED && state !== ProxyState.SERVING_STALE;
}

function stateOfRollout({ phase }: RolloutStatus, pending: number, refused: number): RolloutState {
  if (phase === "halted") return RolloutState.HALTED;
  if (phase === "canary") return RolloutState.CANARY;
  if (pending > 0) return RolloutState.ROLLING;
  return refused > 0 ? RolloutState.PARTIAL : RolloutState.COMPLETE;
}
