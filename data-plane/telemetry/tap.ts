// Tells operators of calls while somebody asks: one by one, or in sums. While nobody does, a call costs the look at `isOn`.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { CallEventSchema, CallFilter, CallSumSchema, CallsQuery } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";

/** Upper bounds of the buckets of durations, milliseconds: those of CallSum. */
const boundsMs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000] as const;

// Calls are told in batches, and each batch has its part of what may be told in a second.
const batchMs = 200;
const perSecond = { default: 100, most: 1_000 };
const sumOverMs = { least: 500, most: 60_000 };
const targetsMax = 1_000;

// Each control plane asks a few times at once, and a proxy follows one or two.
const queriesMax = 64;

/** One call that has ended; see CallEvent. Nothing in it was written by a caller or a server, but names. */
export interface CallFact {
  readonly group: string;
  readonly virtualServer: string;
  readonly method: string;
  readonly name: string;
  readonly workload: string;
  readonly outcome: string;
  readonly tookMs: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
  readonly identity: string;
  readonly protocolVersion: string;
}

/** See the message of that name. */
export interface CallsReport {
  readonly events?: MessageInitShape<typeof CallEventSchema>[];
  readonly sums?: MessageInitShape<typeof CallSumSchema>[];
  readonly leftOut: bigint;
}

/** Takes a report; false when it can't be sent, and is lost. */
export type Emit = (report: CallsReport) => boolean;

/** Begins to tell; gives what ends it. */
export type OpenTap = (query: CallsQuery, emit: Emit) => () => void;

export interface Tap extends Disposable {
  /** Whether anybody asks. */
  readonly isOn: boolean;
  note(fact: CallFact): void;
  readonly open: OpenTap;
}

interface Sink {
  note(fact: CallFact): void;
  end(): void;
}

export function createTap(): Tap {
  const sinks = new Map<symbol, { readonly filter: CallFilter | undefined; readonly sink: Sink }>();
  let isOn = false;

  function close(key: symbol): void {
    sinks.get(key)?.sink.end();
    sinks.delete(key);
    isOn = sinks.size > 0;
  }

  return {
    get isOn() {
      return isOn;
    },
    note(fact) {
      for (const { filter, sink } of sinks.values()) if (passes(fact, filter)) sink.note(fact);
    },
    open(query, emit) {
      const key = Symbol("query");
      if (sinks.size >= queriesMax) return () => undefined;
      sinks.set(key, { filter: query.filter, sink: query.sumOver ? summing(query, emit) : telling(query, emit) });
      isOn = true;
      return () => close(key);
    },
    [Symbol.dispose]() {
      for (const key of [...sinks.keys()]) close(key);
    },
  };
}

/** The proxy's own id is not looked at: it is only asked when it is meant. */
function passes(fact: CallFact, filter: CallFilter | undefined): boolean {
  if (!filter) return true;
  const { group, virtualServer, workload, tool, status } = filter;
  return (
    (group === "" || fact.group === group) &&
    (virtualServer === "" || fact.virtualServer === virtualServer) &&
    (workload === "" || fact.workload === workload) &&
    (tool === "" || fact.name === tool) &&
    (status === "" || fact.outcome === status || (status === "failed" && fact.outcome !== "ok"))
  );
}

function telling({ sample, perSecond: asked }: CallsQuery, emit: Emit): Sink {
  const batchMax = Math.ceil((Math.min(asked || perSecond.default, perSecond.most) * batchMs) / 1_000);
  let batch: { readonly fact: CallFact; readonly timeMs: number }[] = [];
  let leftOut = 0;
  const timer = setInterval(() => {
    if (batch.length === 0 && leftOut === 0) return;
    const told = batch;
    batch = [];
    const isSent = emit({ events: told.map(({ fact, timeMs }) => eventOf(fact, timeMs)), leftOut: BigInt(leftOut) });
    leftOut = isSent ? 0 : leftOut + told.length;
  }, batchMs);
  return {
    note(fact) {
      if (sample > 1 && Math.random() * sample >= 1) return;
      if (batch.length < batchMax) batch.push({ fact, timeMs: Date.now() });
      else leftOut += 1;
    },
    end: () => clearInterval(timer),
  };
}

function eventOf({ tookMs, ...fact }: CallFact, timeMs: number) {
  const { outcome, requestBytes, responseBytes, identity, protocolVersion } = fact;
  const micros = Math.round(tookMs * 1_000);
  return {
    ...{ outcome, requestBytes, responseBytes, identity, protocolVersion },
    time: timestampFromMs(timeMs),
    target: targetOf(fact),
    duration: { seconds: BigInt(Math.floor(micros / 1e6)), nanos: (micros % 1e6) * 1_000 },
  };
}

interface Sum {
  readonly fact: CallFact;
  calls: number;
  failed: number;
  requestBytes: number;
  responseBytes: number;
  readonly durations: number[];
}

function summing({ sumOver }: CallsQuery, emit: Emit): Sink {
  let sums = new Map<string, Sum>();
  let leftOut = 0;
  const wantedMs = sumOver ? durationMs(sumOver) : 0;
  const timer = setInterval(
    () => {
      if (sums.size === 0) return;
      const told = [...sums.values()];
      sums = new Map();
      const isSent = emit({ sums: told.map(toSum), leftOut: BigInt(leftOut) });
      leftOut = isSent ? 0 : leftOut + told.length;
    },
    Math.min(sumOverMs.most, Math.max(sumOverMs.least, wantedMs)),
  );
  return {
    note(fact) {
      const key = `${fact.virtualServer} ${fact.method} ${fact.workload} ${fact.name}`;
      const sum = sums.get(key) ?? emptySum(fact);
      if (sum.calls === 0 && sums.size >= targetsMax) {
        leftOut += 1;
        return;
      }
      sums.set(key, sum);
      sum.calls += 1;
      if (fact.outcome !== "ok") sum.failed += 1;
      sum.requestBytes += fact.requestBytes;
      sum.responseBytes += fact.responseBytes;
      const bucket = boundsMs.findIndex((bound) => fact.tookMs <= bound);
      const at = bucket < 0 ? boundsMs.length : bucket;
      sum.durations[at] = (sum.durations[at] ?? 0) + 1;
    },
    end: () => clearInterval(timer),
  };
}

function emptySum(fact: CallFact): Sum {
  return { fact, calls: 0, failed: 0, requestBytes: 0, responseBytes: 0, durations: new Array(boundsMs.length + 1).fill(0) };
}

function toSum({ fact, calls, failed, requestBytes, responseBytes, durations }: Sum) {
  return {
    target: targetOf(fact),
    calls: BigInt(calls),
    failed: BigInt(failed),
    requestBytes: BigInt(requestBytes),
    responseBytes: BigInt(responseBytes),
    durations: durations.map(BigInt),
  };
}

function targetOf({ virtualServer, method, name, workload }: Omit<CallFact, "tookMs">) {
  return { virtualServer, method, name, workload };
}
