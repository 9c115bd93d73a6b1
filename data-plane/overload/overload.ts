// The door of this room: what one process does so that too much work does not keep it from doing any.
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import type { Log } from "../../common/log.ts";
import { type ComeAgain, createComeAgain } from "./come-again.ts";
import { type CallRefusal, createGate, type Gate, lookMs, type Place } from "./concurrency.ts";
import { type ConnectionBound, createConnectionBound } from "./connections.ts";
import type { LimitReport } from "./limit-report.ts";
import { memoryUse } from "./memory.ts";
import { createPressure, type Pressure, type PressureLevel, pressureLevels, sampleMs } from "./pressure.ts";
import { sharePart } from "./shares.ts";
import { type Carrier, createStreams, type StreamRefusal } from "./streams.ts";
import { lineMost } from "./waiting-line.ts";

/** Stable names of why something is not done; `under_pressure`: see pressureLevels. */
export type Refusal = CallRefusal | StreamRefusal | "under_pressure";

export interface OverloadOptions {
  /** The most calls in hand at a time; the limit adapts below it. 0 is no limit. Default 1024. */
  readonly inFlightMax?: number | undefined;
  /** Event streams at a time. Default 10,000. */
  readonly streamsMax?: number | undefined;
  /** Of one caller with a name. Default 64. */
  readonly streamsPerCallerMax?: number | undefined;
  /** What may wait in all streams together for slow clients, bytes. Default 64 MB. */
  readonly streamQueueBytesMax?: number | undefined;
  /**
   * With it, or with a limit for calls, pressure is measured and acted upon. Default where only calls are limited: that of the
   * container, else that of V8's heap.
   */
  readonly memoryBytesMax?: number | undefined;
}

export interface Overload extends Disposable {
  /** See Gate. */
  enter: Gate["enter"];
  /** Notes whose connection it is. */
  saw: ComeAgain["saw"];
  /** Why a call would be refused before anything of it is read; undefined when it would not. */
  refusalOf(key: string): CallRefusal | undefined;
  leave(place: Place): void;
  /** Counts a stream until it closes, or says why it can't be; one that is resumed is no new one. */
  openStream(carrier: Carrier, caller: string | undefined, isResumed?: boolean): Refusal | undefined;
  readonly isClosedTo: (what: keyof typeof pressureLevels) => boolean;
  /** Counts the refusal of what came on this connection; gives when it may come again. */
  refused(reason: Refusal, connection: object): ReturnType<ComeAgain["refused"]>;
  /** Whether who is refused shall not keep its connection. */
  readonly isCrowded: boolean;
  readonly pressure: { readonly level: PressureLevel; readonly value: number };
  limits(): LimitReport[];
}

interface Deps {
  readonly log: Log;
  /** Default: one without a server. */
  readonly connections?: ConnectionBound;
}

const loopDelayMs = 200;
const resolutionMs = 50;
const mebibyte = 1024 * 1024;

/** Measures this process until it is disposed. */
export function createOverload(options: OverloadOptions, { log, connections = createConnectionBound(0) }: Deps): Overload {
  const { inFlightMax = 1_024, streamsMax = 10_000, streamsPerCallerMax = 64, streamQueueBytesMax = 64 * mebibyte } = options;
  const isLimited = inFlightMax > 0;
  const isWatched = isLimited || options.memoryBytesMax !== undefined;
  const counts: Record<Refusal, number> = {
    caller_over_share: 0,
    gateway_full: 0,
    too_many_streams: 0,
    too_many_streams_of_caller: 0,
    under_pressure: 0,
  };
  let streamsCut = 0;
  let looking: NodeJS.Timeout | undefined;
  let loopSeen = performance.eventLoopUtilization();
  const gate: Gate = isLimited
    ? createGate({
        nowMs: () => performance.now(),
        utilization() {
          const before = loopSeen;
          loopSeen = performance.eventLoopUtilization();
          return performance.eventLoopUtilization(loopSeen, before).utilization;
        },
        onBusy() {
          looking ??= setInterval(look, lookMs).unref();
        },
        limit: { most: inFlightMax },
      })
    : openGate;
  const streams = createStreams({ most: streamsMax, mostPerCaller: streamsPerCallerMax });
  const memory = memoryUse(options.memoryBytesMax);
  const loopDelay = monitorEventLoopDelay({ resolution: resolutionMs });
  if (isWatched) loopDelay.enable();
  const comeAgain = createComeAgain();
  const pressure: Pressure = createPressure({
    read() {
      const { used, limit } = memory();
      const lateMs = loopDelay.count === 0 ? 0 : loopDelay.percentile(99) / 1e6 - resolutionMs;
      loopDelay.reset();
      return {
        memory: used / limit,
        loopDelay: Math.max(0, lateMs) / loopDelayMs,
        inFlight: gate.inFlight / gate.limit,
        streamQueues: streams.size === 0 ? 0 : streams.queuedBytes() / streamQueueBytesMax,
      };
    },
    log,
    onSample(level) {
      if (level >= pressureLevels.strangers) streamsCut += streams.cutLargest(streamQueueBytesMax / 2);
      connections.sample(level);
    },
  });
  const sampling = isWatched ? setInterval(() => pressure.sample(), sampleMs).unref() : undefined;

  function look(): void {
    gate.look();
    if (gate.isBusy) return;
    clearInterval(looking);
    looking = undefined;
  }

  function isClosedTo(what: keyof typeof pressureLevels): boolean {
    return pressure.level >= pressureLevels[what];
  }

  return {
    enter: gate.enter,
    saw: comeAgain.saw,
    refusalOf: gate.refusalOf,
    leave: gate.leave,
    openStream(carrier, caller, isResumed = false) {
      return isClosedTo("streams") && !isResumed ? "under_pressure" : streams.open(carrier, caller);
    },
    isClosedTo,
    get isCrowded() {
      return connections.isCrowded;
    },
    refused(reason, connection) {
      counts[reason]++;
      return comeAgain.refused(connection, performance.now());
    },
    pressure,
    limits() {
      const { used, limit } = memory();
      const calls = [
        { name: "in_flight", used: gate.inFlight, limit: gate.limit, refused: counts.gateway_full },
        { name: "in_flight_waiting", used: gate.waiting, limit: lineMost, refused: counts.gateway_full },
        {
          name: "in_flight_of_one_caller",
          used: gate.mostOfOne,
          limit: Math.max(1, Math.floor(gate.limit * sharePart)),
          refused: counts.caller_over_share,
        },
      ];
      return [
        ...(isLimited ? calls : []),
        { name: "streams", used: streams.size, limit: streamsMax, refused: counts.too_many_streams },
        {
          name: "streams_of_one_caller",
          used: streams.mostOfOne,
          limit: streamsPerCallerMax,
          refused: counts.too_many_streams_of_caller,
        },
        { name: "stream_queue_bytes", used: streams.queuedBytes(), limit: streamQueueBytesMax, refused: streamsCut },
        { name: "memory_bytes", used, limit, refused: counts.under_pressure },
        connections.report(),
      ];
    },
    [Symbol.dispose]() {
      clearInterval(sampling);
      clearInterval(looking);
      loopDelay.disable();
    },
  };
}

const everyPlace: Place = { tally: { inFlight: 0, waiting: 0, lastMs: 0 }, weight: 0, looks: 0 };

/** Lets everything through, and looks after nothing. */
const openGate: Gate = {
  enter: () => everyPlace,
  refusalOf: () => undefined,
  leave: () => undefined,
  look: () => undefined,
  ...{ isBusy: false, inFlight: 0, limit: Number.POSITIVE_INFINITY, waiting: 0, away: 0, mostOfOne: 0 },
};
