// One stream to one control plane: says Hello, passes on what comes, answers, reports, until either side ends it.
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { softwareVersion } from "../../common/version.ts";
import { RetryInfoSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import {
  type CallsQuery,
  type CatalogQuery,
  DiscoveryService,
  type SessionsQuery,
  type StreamSnapshotsResponse,
  type WatchOrders,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { createClient, type Tls } from "../../proto/grpc.ts";
import { reasonOf } from "../backends/errors.ts";
import type { OpenTap } from "../telemetry/tap.ts";
import { createParts } from "./parts.ts";
import type { Known, Receiver, Request } from "./receiver.ts";
import { createReporter, type ProxyState } from "./report.ts";
import { type ListSessions, sessionsReport } from "./session-report.ts";

const schemaVersion = 1;
const reportSoonMs = 100;
const messageBytesMax = 32 * 1024 * 1024;

// A control plane answers a Hello at once; one that is frozen accepts connections and says nothing.
const answerMs = 10_000;

export interface StreamOptions {
  readonly security: grpc.ChannelCredentials | Tls;
  readonly node: { readonly id: string; readonly instanceId: string; readonly address: string };
  readonly receiver: Receiver;
  /** How this proxy is. */
  readonly state: () => ProxyState;
  /** Hears whether this proxy is to take new work. Without it this proxy is not told. */
  readonly setDrained?: ((isWanted: boolean) => void) | undefined;
  /** Begins to tell of calls; gives what ends that. Without it this proxy is not asked. */
  readonly openTap?: OpenTap | undefined;
  /** Tells the control plane which sessions there are. Without it this proxy is not asked. */
  readonly listSessions?: ListSessions | undefined;
  /** What it lists for the fleet, and what it is told to watch. Without it, it watches everything and tells nothing. */
  readonly catalogs?: FleetCatalogs | undefined;
  readonly log: Log;
}

export interface FleetCatalogs {
  /** Encoded vmcp.discovery.v1.Listing of a catalog that was listed here; empty when it is too large. Undefined: there is none. */
  listing(catalog: string): Promise<Uint8Array | undefined>;
  obey(orders: WatchOrders): void;
  /** The stream on which orders came is gone. */
  lost(): void;
}

export interface Stream {
  readonly address: string;
  /** The first response came. */
  readonly answered: Promise<void>;
  /** What comes first: the stream has ended, or the control plane asks to go elsewhere, and the stream goes on. */
  readonly outcome: Promise<Ended | Draining>;
  /** Something changed: report soon. */
  reportSoon(): void;
  /** As one that leaves. */
  close(): void;
}

export interface Ended {
  readonly name: "ended";
  readonly reason: string;
  /** No connection came about. */
  readonly isUnreachable: boolean;
  /** When the control plane wants to be asked again, if it said so. */
  readonly retryMs: number | undefined;
  /** The control plane does not know who this is. */
  readonly isUnauthenticated: boolean;
}

interface Draining {
  readonly name: "draining";
  /** Until it ends the stream itself. */
  readonly graceMs: number;
}

/** Connects at once. */
export function openStream(address: string, options: StreamOptions): Stream {
  const { receiver, state, log } = options;
  const client = createClient(DiscoveryService, address, options.security, channelOptions);
  const call = client.streamSnapshots();
  const answered = Promise.withResolvers<void>();
  const outcome = Promise.withResolvers<Ended | Draining>();
  const parts = createParts();
  /** By id of the query. */
  const taps = new Map<bigint, () => void>();
  const news = createReporter();
  const reports = startReports(state, (now) => call.write({ message: { case: "status", value: news(now) } }));
  const unanswered = setTimeout(() => end("no answer to the Hello in time"), answerMs);
  let isEnded = false;

  function end(reason: string, { isUnreachable = false, isUnauthenticated = false, retryMs }: Partial<Ended> = {}): void {
    if (isEnded) return;
    isEnded = true;
    clearTimeout(unanswered);
    reports.stop();
    for (const close of taps.values()) close();
    call.cancel();
    client.close();
    outcome.resolve({ name: "ended", reason, isUnreachable, isUnauthenticated, retryMs });
  }

  function send(request: Request): void {
    if (!isEnded) call.write(request);
  }

  async function receive(response: StreamSnapshotsResponse): Promise<void> {
    const { payload } = response;
    clearTimeout(unanswered);
    answered.resolve();
    if (payload.case === "drain") {
      outcome.resolve({ name: "draining", graceMs: payload.value.grace ? durationMs(payload.value.grace) : 0 });
    } else if (payload.case === "sessionsQuery") {
      // Not in line with the snapshots: whoever asks does not wait for backends.
      await answerQuery(payload.value);
    } else if (payload.case === "drainOrder") {
      log.info({ drain: payload.value.drain }, payload.value.drain ? "asked to take no new work" : "asked to take work again");
      options.setDrained?.(payload.value.drain);
      reports.soon();
    } else if (payload.case === "callsQuery") {
      tap(payload.value);
    } else if (payload.case === "catalogQuery") await answerCatalogs(payload.value);
    else if (payload.case === "watchOrders") {
      if (!isEnded) options.catalogs?.obey(payload.value);
    } else {
      const whole = parts.add(response);
      if (whole === undefined) return;
      send(await receiver.take(whole));
      reports.soon();
    }
  }

  function tap(query: CallsQuery): void {
    taps.get(query.id)?.();
    taps.delete(query.id);
    if (query.stop || isEnded || !options.openTap) return;
    const close = options.openTap(query, (report) => {
      // A control plane that is slow to read hears of fewer calls.
      const canTake = !isEnded && !call.writableNeedDrain;
      if (canTake) send({ message: { case: "calls", value: { ...report, queryId: query.id } } });
      return canTake;
    });
    taps.set(query.id, close);
  }

  /** Silence is an answer too: the control plane says then that this proxy's sessions are missing. */
  async function answerQuery(query: SessionsQuery): Promise<void> {
    try {
      const listing = await options.listSessions?.(query);
      if (listing) send({ message: { case: "sessions", value: sessionsReport(query, listing, options.node.id) } });
    } catch (error) {
      log.warn({ reason: reasonOf(error) }, "the sessions could not be listed");
    }
  }

  /** What can't be had now is asked for again. */
  async function answerCatalogs({ catalogs }: CatalogQuery): Promise<void> {
    for (const catalog of catalogs) {
      const listing = await options.catalogs?.listing(catalog).catch(() => undefined);
      if (listing) send({ message: { case: "catalog", value: { catalog, listing } } });
    }
  }

  call.on("data", (response: StreamSnapshotsResponse) => void receive(response));
  call.on("error", (error: grpc.ServiceError) => end(error.details || error.message, endOf(error)));
  call.on("end", () => end("the control plane ended the stream"));
  call.write(hello(options, receiver.known()));

  return {
    address,
    answered: answered.promise,
    outcome: outcome.promise,
    reportSoon: reports.soon,
    close() {
      call.end();
      end("left");
    },
  };
}

function hello({ node, listSessions, setDrained, openTap, catalogs }: StreamOptions, known: Known): Request {
  const value = {
    node: { ...node, softwareVersion },
    knownVersion: known.version,
    knownDigest: known.digest,
    storeUid: known.storeUid,
    schemaMin: schemaVersion,
    schemaMax: schemaVersion,
    features: [
      ...(listSessions ? ["sessions-query"] : []),
      ...(setDrained ? ["drain"] : []),
      ...(openTap ? ["calls"] : []),
      ...(catalogs ? ["catalogs"] : []),
      "delta",
      "parts",
    ],
    configSource: known.source,
  };
  return { message: { case: "hello", value } };
}

/** What an error says of the next attempt. */
function endOf({ code, details = "", metadata }: grpc.ServiceError): Partial<Ended> {
  const isUnauthenticated = code === grpc.status.UNAUTHENTICATED;
  // grpc-js has no code of its own for this: both are UNAVAILABLE.
  const isUnreachable = details.startsWith("No connection established");
  const [bytes] = metadata?.get("grpc-status-details-bin") ?? [];
  if (!Buffer.isBuffer(bytes)) return { isUnreachable, isUnauthenticated };
  const [retry] = fromBinary(StatusSchema, bytes).details.flatMap((any) => anyUnpack(any, RetryInfoSchema) ?? []);
  return { isUnreachable, isUnauthenticated, retryMs: retry?.retryDelay && durationMs(retry.retryDelay) };
}

interface Reports {
  soon(): void;
  stop(): void;
}

/** Sends now and then, and soon after it is asked to. */
function startReports(state: () => ProxyState, send: (now: ProxyState) => void): Reports {
  let soon: NodeJS.Timeout | undefined;
  let periodic: NodeJS.Timeout | undefined;
  const sendInTime = (everyMs: number): void => {
    periodic = setTimeout(
      () => {
        const now = state();
        send(now);
        sendInTime(now.everyMs);
      },
      everyMs * (0.8 + Math.random() * 0.4),
    );
  };
  sendInTime(state().everyMs);
  return {
    soon() {
      soon ??= setTimeout(() => {
        soon = undefined;
        clearTimeout(periodic);
        const now = state();
        send(now);
        sendInTime(now.everyMs);
      }, reportSoonMs);
    },
    stop() {
      clearTimeout(periodic);
      clearTimeout(soon);
      soon = periodic; // nothing more is sent
    },
  };
}

// A frozen control plane is noticed within 15 s. Each stream has a connection of its own and no retries: when to try again, and
// where, is decided here.
const channelOptions: grpc.ChannelOptions = {
  "grpc.max_receive_message_length": messageBytesMax,
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.initial_reconnect_backoff_ms": 200,
  "grpc.max_reconnect_backoff_ms": 2_000,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_retries": 0,
  "grpc-node.flow_control_window": 1024 * 1024,
};
