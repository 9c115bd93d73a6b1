// One stream of one proxy: what it should run, what is on the way, what it runs, what it refused. The newest target wins, at
// most one response is unanswered, and a refused version is not sent again.
import { toBinary } from "@bufbuild/protobuf";
import { status as grpcStatus } from "@grpc/grpc-js";
import type {
  Ack,
  Hello,
  Nack,
  SessionsReport,
  StatusReport,
  StreamSnapshotsRequest,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { NackReason, NodeSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Clock } from "../clock.ts";
import type { Sendable, Target } from "./target.ts";

/** Newest snapshot schema that this control plane writes. */
const schemaVersion = 1;

// What a proxy says of itself is kept for every proxy ever seen.
const nodeBytesMax = 16 * 1024;

export interface SubscriberOptions {
  /** Puts a message on the stream. */
  readonly send: (sendable: Sendable) => void;
  /** Ends the stream with a gRPC status. Called at most once. */
  readonly close: (code: grpcStatus, details: string) => void;
  /** The Hello was good. Returns what the proxy should run; undefined when nothing has been built yet. */
  readonly onHello: (hello: Hello) => Target | undefined;
  readonly onStatus: (report: StatusReport) => void;
  readonly onSessions: (report: SessionsReport) => void;
  /** Something that an operator can see has changed. */
  readonly onChange: () => void;
  readonly clock: Clock;
  readonly limits: SubscriberLimits;
}

export interface SubscriberLimits {
  /** From the start of the stream to its Hello. */
  readonly helloMs: number;
  /** From a response to its Ack or Nack; then it is sent once more, and then the stream is closed. */
  readonly ackMs: number;
}

export type SubscriberState = "not-sent" | "pending" | "synced" | "stale" | "nacked";

export interface SubscriberStatus {
  readonly state: SubscriberState;
  /** What the proxy runs; empty when nothing. */
  readonly liveVersion: string;
  readonly ackTimeMs: number | undefined;
  /** From the first sending to the last Ack. */
  readonly ackMillis: number;
  readonly warnings: readonly string[];
  readonly lastNack: NackSeen | undefined;
}

export interface NackSeen {
  readonly nack: Nack;
  readonly timeMs: number;
}

export interface Subscriber {
  receive(request: StreamSnapshotsRequest): void;
  /** Something newer to run. */
  retarget(target: Target): void;
  status(): SubscriberStatus;
  /** The stream is gone or going: no further message, no timer. */
  stop(): void;
}

interface InFlight {
  readonly target: Target;
  readonly sentAtMs: number;
  /** What an answer may name: after a silence either sending, after a wrong answer only the second. */
  readonly nonces: readonly bigint[];
  readonly isSecond: boolean;
}

export function createSubscriber(options: SubscriberOptions): Subscriber {
  const { send, onHello, onStatus, onSessions, onChange, clock, limits } = options;
  let stopped = false;
  let greeted = false;
  let target: Target | undefined;
  let inFlight: InFlight | undefined;
  let live = "";
  let parked: string | undefined;
  let stale = false;
  let ackTimeMs: number | undefined;
  let ackMillis = 0;
  let warnings: readonly string[] = [];
  let lastNack: NackSeen | undefined;
  let cancelTimer = clock.after(limits.helloMs, () => close(grpcStatus.DEADLINE_EXCEEDED, "no Hello in time"));

  function close(code: grpcStatus, details: string): void {
    if (stopped) return;
    stop();
    options.close(code, details);
  }

  function stop(): void {
    stopped = true;
    cancelTimer();
  }

  function receive({ message }: StreamSnapshotsRequest): void {
    // Without a case it is from a newer proxy, and nothing that we know is in it.
    if (stopped || message.case === undefined) return;
    if (message.case === "hello") hello(message.value);
    else if (!greeted) close(grpcStatus.INVALID_ARGUMENT, "the first message must be a Hello");
    else if (message.case === "ack") ack(message.value);
    else if (message.case === "nack") nack(message.value);
    else if (message.case === "sessions") onSessions(message.value);
    else onStatus(message.value);
  }

  function hello(said: Hello): void {
    const fault = greeted ? secondHello : faultOf(said);
    if (fault) {
      close(fault.code, fault.details);
      return;
    }
    greeted = true;
    cancelTimer();
    target = onHello(said);
    if (target === undefined) {
      close(grpcStatus.UNAVAILABLE, "no snapshot has been built yet; try again");
      return;
    }
    const sameContent = said.storeUid === target.storeUid && Buffer.compare(said.knownDigest, target.digest) === 0;
    live = said.knownVersion === target.version && !sameContent ? "" : said.knownVersion;
    if (live === target.version) send(target.upToDate());
    next();
  }

  /** Sends what is due, when nothing is on the way. */
  function next(): void {
    if (stopped || target === undefined || inFlight) return;
    if (target.version !== live && target.version !== parked) transmit(target);
    onChange();
  }

  function transmit(what: Target): void {
    const sendable = what.full();
    dispatch({ target: what, sentAtMs: clock.nowMs(), nonces: [sendable.nonce], isSecond: false }, sendable);
  }

  /** `stillValid`: nonces of the first sending that may yet be answered. */
  function transmitAgain({ target: what, sentAtMs }: InFlight, stillValid: readonly bigint[]): void {
    const sendable = what.fullAgain();
    dispatch({ target: what, sentAtMs, nonces: [...stillValid, sendable.nonce], isSecond: true }, sendable);
  }

  function dispatch(flight: InFlight, sendable: Sendable): void {
    inFlight = flight;
    cancelTimer();
    cancelTimer = clock.after(limits.ackMs, onSilence);
    send(sendable);
  }

  function onSilence(): void {
    if (inFlight === undefined || target === undefined) return;
    if (inFlight.isSecond || stale) {
      close(grpcStatus.DEADLINE_EXCEEDED, `${inFlight.target.version} was not answered, twice`);
      return;
    }
    stale = true;
    // What is sent again is the newest: an answer to the older one would be worth nothing any more.
    if (inFlight.target.version === target.version) transmitAgain(inFlight, inFlight.nonces);
    else transmit(target);
    onChange();
  }

  function ack(said: Ack): void {
    const answered = take(said.nonce);
    if (answered === undefined) return;
    if (Buffer.compare(said.digest, answered.target.digest) !== 0) {
      mismatch(answered);
      return;
    }
    live = answered.target.version;
    parked = undefined;
    lastNack = undefined;
    warnings = said.warnings;
    ackTimeMs = clock.nowMs();
    ackMillis = ackTimeMs - answered.sentAtMs;
    next();
  }

  /** The proxy holds something else than was sent: once more, and then it counts as refused. */
  function mismatch(answered: InFlight): void {
    if (!answered.isSecond && target?.version === answered.target.version) {
      transmitAgain(answered, []);
      return;
    }
    refuse(answered, {
      $typeName: "vmcp.discovery.v1.Nack",
      nonce: answered.nonces.at(-1) ?? 0n,
      version: answered.target.version,
      liveVersion: live,
      reason: NackReason.DIGEST_MISMATCH,
      error: undefined,
    });
  }

  function nack(said: Nack): void {
    const answered = take(said.nonce);
    if (answered === undefined) return;
    if (said.reason === NackReason.DIGEST_MISMATCH && !answered.isSecond) mismatch(answered);
    else refuse(answered, said);
  }

  function refuse({ target: refused }: InFlight, said: Nack): void {
    parked = refused.version;
    lastNack = { nack: said, timeMs: clock.nowMs() };
    next();
  }

  /** What an answer is for; undefined for an answer to something that is not on the way (any more). */
  function take(nonce: bigint): InFlight | undefined {
    if (!inFlight?.nonces.includes(nonce)) return undefined;
    const answered = inFlight;
    inFlight = undefined;
    stale = false;
    cancelTimer();
    return answered;
  }

  function state(): SubscriberState {
    if (target === undefined) return "not-sent";
    if (inFlight) return stale ? "stale" : "pending";
    if (live === target.version) return "synced";
    return parked === target.version ? "nacked" : "not-sent";
  }

  return {
    receive,
    stop,
    retarget(newest) {
      if (!greeted || stopped) return;
      target = newest;
      next();
    },
    status: () => ({ state: state(), liveVersion: live, ackTimeMs, ackMillis, warnings, lastNack }),
  };
}

interface Fault {
  readonly code: grpcStatus;
  readonly details: string;
}

const secondHello: Fault = { code: grpcStatus.INVALID_ARGUMENT, details: "a second Hello on one stream" };

function faultOf(hello: Hello): Fault | undefined {
  const { node, schemaMin, schemaMax } = hello;
  if (!node?.id || node.id.length > 253) {
    return { code: grpcStatus.INVALID_ARGUMENT, details: "Hello.node.id must have 1 to 253 characters" };
  }
  if (toBinary(NodeSchema, node).byteLength > nodeBytesMax) {
    return { code: grpcStatus.INVALID_ARGUMENT, details: `Hello.node is larger than ${nodeBytesMax} bytes` };
  }
  // 0 is "not said", from before there was more than one schema.
  if (schemaMin > schemaVersion || (schemaMax !== 0 && schemaMax < schemaVersion)) {
    const details = `this control plane writes snapshot schema ${schemaVersion}; the proxy reads ${schemaMin} to ${schemaMax}`;
    return { code: grpcStatus.FAILED_PRECONDITION, details };
  }
  return undefined;
}
