// All proxies that are or were connected: who runs what, how their backends are, and what their clients see.
// Longer than most files here: whoever connects, reports or leaves changes one list, and those who wait for it are told here.
import { status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import type { GetRolloutResponse, Proxy as ProxyRow } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import {
  type BackendStatus,
  ConfigSource,
  type Hello,
  type StatusReport,
  type StreamSnapshotsRequest,
  StreamSnapshotsResponseSchema,
  type VirtualServerView,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { encode } from "../../proto/grpc.ts";
import { type ChangeFeed, createChangeFeed } from "../change-feed.ts";
import { type Clock, systemClock } from "../clock.ts";
import { type CallsWanted, createCallTaps, type OnCalls } from "./call-taps.ts";
import { createKnownTargets } from "./known-targets.ts";
import { createPlaces, placesMax } from "./places.ts";
import { createRollout, type RolloutMember } from "./rollout.ts";
import { type RolloutFacts, type RowFacts, rolloutOf, rowOf } from "./rows.ts";
import { createSessionQueries, type SessionFilter, type SessionsFound } from "./session-queries.ts";
import { type Assignment, createSubscriber, type Subscriber, type SubscriberLimits } from "./subscriber.ts";
import type { Sendable, Target } from "./target.ts";
import { createViewShelf } from "./view-shelf.ts";
import type { Watchers, WatchMember } from "./watchers.ts";

/** Twice what the sizing notes foresee for one control plane, so that a rolling replacement of all proxies fits. */
const proxiesMaxDefault = 2000;

const limitsDefault: SubscriberLimits = { helloMs: 10_000, ackMs: 30_000 };

// Streams that have not said whose they are. Those of a whole fleet may come in one moment; more is not a fleet.
const strangersMax = 512;

// Who is refused for want of room comes again after this, and a while at random on top.
const comeAgainMs = 1_000;

/** What a proxy says in its Hello when it answers SessionsQuery. */
const sessionsFeature = "sessions-query";

/** What a proxy says in its Hello when it takes a DrainOrder. */
const drainFeature = "drain";

/** What a proxy says in its Hello when it answers CallsQuery. */
const callsFeature = "calls";

/** How long one that is gone is remembered. */
export const rememberedMs = 24 * 60 * 60_000;
/** The same when it answers CatalogQuery and takes WatchOrders. */
const catalogsFeature = "catalogs";

export interface FleetOptions {
  readonly log: Log;
  /** Says who watches backends, and hears what they list. Default: every proxy watches all, and tells nothing. */
  readonly watchers?: Pick<Watchers, "join"> | undefined;
  /** Default: the system's clock and timers. */
  readonly clock?: Clock | undefined;
  /** Default: Hello within 10 s, answers within 30 s. */
  readonly limits?: SubscriberLimits | undefined;
  /** Connected and remembered together. Default 2000. */
  readonly proxiesMax?: number | undefined;
  /** Full snapshots on the way at a time. Default: by the number of processors. */
  readonly placesMax?: number | undefined;
}

export interface Fleet {
  /** A new stream, which has not said whose it is. */
  connect(stream: OutgoingStream): Connection;
  /** What all should run from now on. */
  retarget(target: Target): void;
  target(): Target | undefined;
  /** What this proxy was given last; undefined when it is not connected here. */
  targetOf(id: string): Target | undefined;
  /** A target of late with the content that this version names. */
  named(version: string): Target | undefined;
  /** Sorted by id. */
  proxies(): ProxyRow[];
  /** What clients see, as last reported by a connected proxy, one that runs the target if there is such; sorted by virtual server. */
  views(): { readonly proxy: string; readonly views: readonly VirtualServerView[] };
  /** Asks the connected proxies for their client sessions, and waits for 3 s at most. Undefined: too many ask at once. */
  sessions(filter: SessionFilter): Promise<FleetSessions> | undefined;
  /** Asks the connected proxies, and those that come, to tell of calls. Undefined: too many ask at once. */
  tapCalls(wanted: CallsWanted, onCalls: OnCalls): TappedFleet | undefined;
  /** How far the target has come on these proxies, and, with what others say, on all. */
  rollout(all?: Pick<RolloutFacts, "rows" | "others">): GetRolloutResponse;
  /** Another control plane has halted the target, or none has (any more). */
  heed(haltedElsewhere: string | undefined): void;
  /** Ids of those that are to take no new work, connected or not. */
  drainProxies(ids: ReadonlySet<string>): void;
  readonly changes: Pick<ChangeFeed, "next">;
  /** Tells every proxy to go elsewhere, and takes none any more. Resolves when all are gone, or after `graceMs`. */
  drain(graceMs: number): Promise<void>;
  /** Ends every stream with UNAVAILABLE. */
  close(): void;
}

export interface FleetSessions extends SessionsFound {
  /** Ids of connected proxies that can't be asked, sorted. */
  readonly unable: readonly string[];
}

export interface TappedFleet extends Disposable {
  /** Ids, sorted. */
  readonly asked: readonly string[];
  /** Ids of connected proxies that can't be asked, sorted. */
  readonly unable: readonly string[];
}

export interface OutgoingStream {
  readonly send: (sendable: Sendable) => void;
  readonly close: Close;
}

/** `retryMs`: when to come again. */
type Close = (code: status, details: string, retryMs?: number) => void;

export interface Connection {
  receive(request: StreamSnapshotsRequest): void;
  /** The stream has ended. */
  ended(): void;
}

interface Member extends RowFacts {
  readonly subscriber: Subscriber;
  readonly close: Close;
  readonly send: OutgoingStream["send"];
  readonly answersSessions: boolean;
  readonly takesDrains: boolean;
  readonly tellsCalls: boolean;
  /** What it was told last. */
  isToldToDrain: boolean;
  readonly watching: WatchMember | undefined;
  /** Of its Hello. */
  readonly storeUid: string;
  configSource: ConfigSource;
  disconnectTimeMs: number | undefined;
  activeSessions: number;
  isDraining: boolean;
  workLeft: number;
  backends: readonly BackendStatus[];
  views: readonly VirtualServerView[];
}

export function createFleet(options: FleetOptions): Fleet {
  const { log, watchers, clock = systemClock, limits = limitsDefault, proxiesMax = proxiesMaxDefault } = options;
  const members = new Map<string, Member>();
  const streams = new Set<Close>();
  const feed = createChangeFeed();
  const shelf = createViewShelf();
  const queries = createSessionQueries<Member>({ clock, idOf: ({ node }) => node.id });
  const taps = createCallTaps();
  const places = createPlaces(clock, options.placesMax ?? placesMax);
  const known = createKnownTargets();
  const rollout = createRollout({ clock, members: () => sorted().filter(isConnected).map(memberOf) });
  let target: Target | undefined;
  let strangers = 0;
  let isDraining = false;
  let toDrain: ReadonlySet<string> = new Set();

  function connect(stream: OutgoingStream): Connection {
    let member: Member | undefined;
    let isStranger = true;
    strangers += 1;
    const close: Close = (code, details, retryMs) => {
      ended();
      stream.close(code, details, retryMs);
    };
    const subscriber = createSubscriber({
      ...{ send: stream.send, close, places, clock, limits },
      onHello(hello) {
        greeted();
        const refusal = refusalOf(hello);
        if (refusal) close(...refusal);
        else member = admit(hello, { subscriber, close, send: stream.send });
        return member && assignmentOf(member, hello);
      },
      onGreeted() {
        if (member) order(member);
        if (member?.tellsCalls) taps.came(member);
      },
      onAck(acked) {
        if (member) member.configSource = ConfigSource.CONTROL_PLANE;
        if (member) rollout.acknowledged(member.node.id, acked);
      },
      onNack: (refused, nack) => member && rollout.refused(member.node, refused, nack),
      onStatus: (report) => member && noteReport(member, report),
      onCalls: (report) => member && taps.told(member, report),
      onSessions: (report) => member && queries.answer(member, report),
      onCatalog: (report) => member?.watching?.listed(report),
      onChange: () => feed.wake(),
    });
    streams.add(close);
    if (isDraining) close(status.UNAVAILABLE, goingAway);
    else if (strangers > strangersMax) close(status.RESOURCE_EXHAUSTED, "too many come at once", comeAgainMs);

    function greeted(): void {
      if (isStranger) strangers -= 1;
      isStranger = false;
    }

    function ended(): void {
      subscriber.stop();
      greeted();
      streams.delete(close);
      feed.wake();
      if (member) queries.gone(member);
      member?.watching?.left();
      if (member === undefined || members.get(member.node.id) !== member || !isConnected(member)) return;
      member.disconnectTimeMs = clock.nowMs();
      rollout.left(member.node.id);
      log.info({ proxy: member.node.id }, "proxy disconnected");
    }

    return { receive: subscriber.receive, ended };
  }

  /** Why one that comes is sent away; what it is sent away with. */
  function refusalOf(hello: Hello): Parameters<Close> | undefined {
    const needsMuch = target !== undefined && known.find(hello) === undefined;
    if (needsMuch && places.isCrowded()) return [status.RESOURCE_EXHAUSTED, "too many wait for a snapshot", comeAgainMs];
    if (makeRoom(hello.node?.id ?? "")) return undefined;
    return [status.RESOURCE_EXHAUSTED, `${proxiesMax} proxies are connected, and no more are taken`, 30 * comeAgainMs];
  }

  function admit(hello: Hello, stream: Pick<Member, "subscriber" | "close" | "send">): Member | undefined {
    const { node } = hello;
    if (node === undefined) return undefined;
    const earlier = members.get(node.id);
    const member: Member = {
      ...{ ...stream, node, storeUid: hello.storeUid, configSource: hello.configSource },
      answersSessions: hello.features.includes(sessionsFeature),
      takesDrains: hello.features.includes(drainFeature),
      tellsCalls: hello.features.includes(callsFeature),
      isToldToDrain: false,
      isDraining: false,
      workLeft: 0,
      watching: hello.features.includes(catalogsFeature) ? watchers?.join(node.id, stream.send) : undefined,
      connectTimeMs: clock.nowMs(),
      disconnectTimeMs: undefined,
      activeSessions: 0,
      backends: [],
      views: [],
    };
    members.set(node.id, member);
    log.info({ proxy: node.id, version: node.softwareVersion, address: node.address }, "proxy connected");
    if (earlier && isConnected(earlier)) {
      if (earlier.node.instanceId !== node.instanceId)
        log.warn({ proxy: node.id }, "two processes connect with the same proxy id");
      // The entry is the new stream's already, so the end of the old one does not mark it disconnected.
      earlier.close(status.ABORTED, "replaced by a newer stream of the same proxy");
    }
    return member;
  }

  /** One that comes takes work until it is told otherwise, or was told by somebody else. */
  function order(member: Member): void {
    const drain = toDrain.has(member.node.id);
    if (!member.takesDrains || !isConnected(member) || (drain === member.isToldToDrain && drain === member.isDraining)) return;
    member.isToldToDrain = drain;
    member.send(drain ? drainOrder : resumeOrder);
  }

  function assignmentOf({ node }: Member, hello: Hello): Assignment | undefined {
    const base = known.find(hello);
    const wanted = rollout.welcome(node, hello, base);
    if (wanted) known.remember(wanted);
    return target && { newest: target, target: wanted, base };
  }

  function memberOf({ node, subscriber, storeUid }: Member): RolloutMember {
    const { liveVersion, running, sentRevision, lastNack } = subscriber.status();
    return {
      ...{ id: node.id, instanceId: node.instanceId, liveVersion, running, sentRevision },
      isOurs: running !== undefined || storeUid === "" || storeUid === target?.storeUid,
      hasRefused: lastNack !== undefined,
      assign(wanted) {
        known.remember(wanted);
        subscriber.retarget(wanted);
      },
    };
  }

  function rows(): ProxyRow[] {
    return sorted().map((member) => rowOf(member, target, toDrain.has(member.node.id)));
  }

  function sorted(): Member[] {
    const forgottenMs = clock.nowMs() - rememberedMs;
    for (const { node, disconnectTimeMs } of members.values())
      if (disconnectTimeMs !== undefined && disconnectTimeMs < forgottenMs) members.delete(node.id);
    return [...members.values()].sort((a, b) => (a.node.id < b.node.id ? -1 : 1));
  }

  /** Forgets the one that left first when the table is full; false when all are connected. */
  function makeRoom(id: string): boolean {
    if (members.has(id) || members.size < proxiesMax) return true;
    const gone = [...members.values()].filter((member) => !isConnected(member));
    const first = gone.sort((a, b) => (a.disconnectTimeMs ?? 0) - (b.disconnectTimeMs ?? 0))[0];
    if (first === undefined) return false;
    return members.delete(first.node.id);
  }

  function noteReport(member: Member, report: StatusReport): void {
    member.activeSessions = report.activeSessions;
    member.isDraining = report.draining;
    member.workLeft = report.workLeft;
    if (report.draining !== toDrain.has(member.node.id)) order(member);
    member.backends = report.backends;
    member.watching?.reported(report.backends);
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
    targetOf: (id) => members.get(id)?.subscriber.status().target,
    named: known.named,
    retarget(newest) {
      target?.retire();
      target = newest;
      known.remember(newest);
      rollout.begin(newest);
      feed.wake();
    },
    tapCalls(wanted, onCalls) {
      const only = wanted.filter?.proxy ?? "";
      const meant = sorted().filter((member) => isConnected(member) && (only === "" || only === member.node.id));
      const [able, unable] = [meant.filter(({ tellsCalls }) => tellsCalls), meant.filter(({ tellsCalls }) => !tellsCalls)];
      const close = taps.open(able, wanted, onCalls);
      const ids = (some: readonly Member[]) => some.map(({ node }) => node.id);
      return close && { asked: ids(able), unable: ids(unable), [Symbol.dispose]: close };
    },
    proxies: rows,
    rollout: (all = { rows: rows() }) => rolloutOf({ newest: target, rollout: rollout.status(), ...all }),
    heed: rollout.heed,
    drainProxies(ids) {
      toDrain = ids;
      for (const member of members.values()) if (ids.has(member.node.id) !== member.isToldToDrain) order(member);
      feed.wake();
    },
    views() {
      const reporting = [...members.values()].filter((member) => member.views.length > 0 && isConnected(member));
      const runsTarget = ({ subscriber }: Member) => subscriber.status().liveVersion === target?.version;
      const chosen = reporting.find(runsTarget) ?? reporting[0];
      const views = [...(chosen?.views ?? [])].sort((a, b) => (a.virtualServer < b.virtualServer ? -1 : 1));
      return { proxy: chosen?.node.id ?? "", views };
    },
    sessions(filter) {
      const connected = [...members.values()].filter(isConnected);
      const unable = connected.filter(({ answersSessions }) => !answersSessions).map(({ node }) => node.id);
      const asked = connected.filter(({ answersSessions }) => answersSessions);
      return queries.ask(asked, filter)?.then((found) => ({ ...found, unable: unable.sort() }));
    },
    async drain(graceMs) {
      isDraining = true;
      const late = AbortSignal.timeout(graceMs);
      const notice = drainNotice(graceMs);
      for (const member of [...members.values()].filter(isConnected)) member.send(notice);
      while (streams.size > 0 && !late.aborted) await feed.next(late);
    },
    close() {
      for (const close of [...streams]) close(status.UNAVAILABLE, goingAway);
    },
  };
}

const goingAway = "the control plane is going away";

const [drainOrder, resumeOrder] = [true, false].map(
  (drain): Sendable => ({
    nonce: 0n,
    messages: [encode(StreamSnapshotsResponseSchema, { payload: { case: "drainOrder", value: { drain } } })],
  }),
) as [Sendable, Sendable];

function drainNotice(graceMs: number): Sendable {
  const grace = { seconds: BigInt(Math.floor(graceMs / 1000)), nanos: (graceMs % 1000) * 1e6 };
  return { nonce: 0n, messages: [encode(StreamSnapshotsResponseSchema, { payload: { case: "drain", value: { grace } } })] };
}

function isConnected({ disconnectTimeMs }: Pick<Member, "disconnectTimeMs">): boolean {
  return disconnectTimeMs === undefined;
}
