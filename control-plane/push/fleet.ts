// All proxies that are or were connected: who runs what, how their backends are, and what their clients see.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { type Proxy as ProxyRow, ProxySchema, ProxyState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type {
  BackendStatus,
  Node,
  StatusReport,
  StreamSnapshotsRequest,
  VirtualServerView,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type ChangeFeed, createChangeFeed } from "../change-feed.ts";
import { type Clock, systemClock } from "../clock.ts";
import { createSessionQueries, type SessionFilter, type SessionsFound } from "./session-queries.ts";
import { createSubscriber, type Subscriber, type SubscriberLimits, type SubscriberState } from "./subscriber.ts";
import type { Sendable, Target } from "./target.ts";
import { createViewShelf } from "./view-shelf.ts";

/** Twice what the sizing notes foresee for one control plane, so that a rolling replacement of all proxies fits. */
const proxiesMaxDefault = 2000;

const limitsDefault: SubscriberLimits = { helloMs: 10_000, ackMs: 30_000 };

/** What a proxy says in its Hello when it answers SessionsQuery. */
const sessionsFeature = "sessions-query";

export interface FleetOptions {
  readonly log: Log;
  /** Default: the system's clock and timers. */
  readonly clock?: Clock | undefined;
  /** Default: Hello within 10 s, answers within 30 s. */
  readonly limits?: SubscriberLimits | undefined;
  /** Connected and remembered together. Default 2000. */
  readonly proxiesMax?: number | undefined;
}

export interface Fleet {
  /** A new stream, which has not said whose it is. */
  connect(stream: OutgoingStream): Connection;
  /** What all should run from now on. */
  retarget(target: Target): void;
  target(): Target | undefined;
  /** Sorted by id. */
  proxies(): ProxyRow[];
  /** What clients see, as last reported by a connected proxy, one that runs the target if there is such; sorted by virtual server. */
  views(): { readonly proxy: string; readonly views: readonly VirtualServerView[] };
  /** Asks the connected proxies for their client sessions, and waits for 3 s at most. Undefined: too many ask at once. */
  sessions(filter: SessionFilter): Promise<FleetSessions> | undefined;
  readonly changes: Pick<ChangeFeed, "next">;
  /** Ends every stream with UNAVAILABLE. */
  close(): void;
}

export interface FleetSessions extends SessionsFound {
  /** Ids of connected proxies that can't be asked, sorted. */
  readonly unable: readonly string[];
}

export interface OutgoingStream {
  readonly send: (sendable: Sendable) => void;
  readonly close: (code: status, details: string) => void;
}

export interface Connection {
  receive(request: StreamSnapshotsRequest): void;
  /** The stream has ended. */
  ended(): void;
}

interface Member {
  node: Node;
  subscriber: Subscriber;
  close: OutgoingStream["close"];
  send: OutgoingStream["send"];
  answersSessions: boolean;
  connectTimeMs: number;
  disconnectTimeMs: number | undefined;
  activeSessions: number;
  backends: readonly BackendStatus[];
  views: readonly VirtualServerView[];
}

export function createFleet(options: FleetOptions): Fleet {
  const { log, clock = systemClock, limits = limitsDefault, proxiesMax = proxiesMaxDefault } = options;
  const members = new Map<string, Member>();
  const streams = new Set<(code: status, details: string) => void>();
  const feed = createChangeFeed();
  const shelf = createViewShelf();
  const queries = createSessionQueries<Member>({ clock, idOf: ({ node }) => node.id });
  let target: Target | undefined;

  function connect(stream: OutgoingStream): Connection {
    let member: Member | undefined;
    const close = (code: status, details: string) => {
      subscriber.stop();
      ended();
      stream.close(code, details);
    };
    const subscriber = createSubscriber({
      send: stream.send,
      close,
      clock,
      limits,
      onHello: ({ node, features }) => {
        if (node === undefined) return undefined;
        if (!makeRoom(node.id)) {
          close(status.RESOURCE_EXHAUSTED, `${proxiesMax} proxies are connected, and no more are taken`);
          return undefined;
        }
        const answersSessions = features.includes(sessionsFeature);
        member = admit({ node, subscriber, close, send: stream.send, answersSessions });
        return target;
      },
      onStatus: (report) => member && noteReport(member, report),
      onSessions: (report) => member && queries.answer(member, report),
      onChange: () => feed.wake(),
    });
    streams.add(close);

    function ended(): void {
      subscriber.stop();
      streams.delete(close);
      if (member) queries.gone(member);
      if (member === undefined || members.get(member.node.id) !== member || member.disconnectTimeMs !== undefined) return;
      member.disconnectTimeMs = clock.nowMs();
      log.info({ proxy: member.node.id }, "proxy disconnected");
      feed.wake();
    }

    return { receive: subscriber.receive, ended };
  }

  function admit(said: Pick<Member, "node" | "subscriber" | "close" | "send" | "answersSessions">): Member {
    const { node } = said;
    const earlier = members.get(node.id);
    const member: Member = {
      ...said,
      connectTimeMs: clock.nowMs(),
      disconnectTimeMs: undefined,
      activeSessions: 0,
      backends: [],
      views: [],
    };
    members.set(node.id, member);
    log.info({ proxy: node.id, version: node.softwareVersion, address: node.address }, "proxy connected");
    if (earlier && earlier.disconnectTimeMs === undefined) {
      if (earlier.node.instanceId !== node.instanceId)
        log.warn({ proxy: node.id }, "two processes connect with the same proxy id");
      // The entry is the new stream's already, so the end of the old one does not mark it disconnected.
      earlier.close(status.ABORTED, "replaced by a newer stream of the same proxy");
    }
    return member;
  }

  /** Forgets the one that left first when the table is full; false when all are connected. */
  function makeRoom(id: string): boolean {
    if (members.has(id) || members.size < proxiesMax) return true;
    const gone = [...members.values()].filter((member) => member.disconnectTimeMs !== undefined);
    const first = gone.sort((a, b) => (a.disconnectTimeMs ?? 0) - (b.disconnectTimeMs ?? 0))[0];
    if (first === undefined) return false;
    return members.delete(first.node.id);
  }

  function noteReport(member: Member, report: StatusReport): void {
    member.activeSessions = report.activeSessions;
    member.backends = report.backends;
    if (report.views.length > 0) {
      member.views = shelf.share(report.views);
      shelf.keep([...members.values()].map(({ views }) => views));
    }
    feed.wake();
  }

  return {
    connect,
    changes: feed,
    target: () => target,
    retarget(newest) {
      target = newest;
      for (const { subscriber } of members.values()) subscriber.retarget(newest);
      feed.wake();
    },
    proxies() {
      const sorted = [...members.values()].sort((a, b) => (a.node.id < b.node.id ? -1 : 1));
      return sorted.map((member) => rowOf(member, target));
    },
    views() {
      const reporting = [...members.values()].filter(
        ({ views, disconnectTimeMs }) => views.length > 0 && disconnectTimeMs === undefined,
      );
      const runsTarget = ({ subscriber }: Member) => subscriber.status().liveVersion === target?.version;
      const chosen = reporting.find(runsTarget) ?? reporting[0];
      const views = [...(chosen?.views ?? [])].sort((a, b) => (a.virtualServer < b.virtualServer ? -1 : 1));
      return { proxy: chosen?.node.id ?? "", views };
    },
    sessions(filter) {
      const connected = [...members.values()].filter(({ disconnectTimeMs }) => disconnectTimeMs === undefined);
      const unable = connected.filter(({ answersSessions }) => !answersSessions).map(({ node }) => node.id);
      const asked = connected.filter(({ answersSessions }) => answersSessions);
      return queries.ask(asked, filter)?.then((found) => ({ ...found, unable: unable.sort() }));
    },
    close() {
      for (const close of [...streams]) close(status.UNAVAILABLE, "the control plane is going away");
    },
  };
}

function rowOf(member: Member, target: Target | undefined): ProxyRow {
  const { node, connectTimeMs, disconnectTimeMs, activeSessions, backends } = member;
  const { state, liveVersion, ackTimeMs, ackMillis, warnings, lastNack } = member.subscriber.status();
  return create(ProxySchema, {
    node,
    state: disconnectTimeMs === undefined ? states[state] : ProxyState.DISCONNECTED,
    liveVersion,
    targetVersion: target?.version ?? "",
    connectTime: timestampFromMs(connectTimeMs),
    ...(ackTimeMs !== undefined && { ackTime: timestampFromMs(ackTimeMs) }),
    ackMillis,
    ...(lastNack && {
      lastNack: {
        version: lastNack.nack.version,
        reason: lastNack.nack.reason,
        ...(lastNack.nack.error && { error: lastNack.nack.error }),
        time: timestampFromMs(lastNack.timeMs),
      },
    }),
    activeSessions,
    backends: [...backends],
    warnings: [...warnings],
    ...(disconnectTimeMs !== undefined && { disconnectTime: timestampFromMs(disconnectTimeMs) }),
  });
}

const states = {
  "not-sent": ProxyState.NOT_SENT,
  pending: ProxyState.PENDING,
  synced: ProxyState.SYNCED,
  stale: ProxyState.STALE,
  nacked: ProxyState.NACKED,
} as const satisfies Record<SubscriberState, ProxyState>;
