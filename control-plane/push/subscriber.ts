// One stream of one proxy: what it should run, what is on the way, what it runs, what it refused. The newest target wins, at
// most one response is unanswered, and a refused version is not sent again. Longer than most files: a state machine is read in one
// place. As a drawing:
//
//   accepted ──Hello──▶ settled ──target differs──▶ queued (full snapshots only) ──a place──▶ in flight
//      in flight ──Ack, Nack──▶ settled       in flight ──30 s──▶ stale, sent in full ──30 s──▶ closed
import { status as grpcStatus } from "@grpc/grpc-js";
import type {
  Ack,
  CallsReport,
  CatalogReport,
  Hello,
  Nack,
  SessionsReport,
  StatusReport,
  StreamSnapshotsRequest,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { NackReason } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Clock } from "../clock.ts";
import { faultOf, runs, runsLater, secondHello } from "./hello.ts";
import type { Places } from "./places.ts";
import type { Sendable, Target } from "./target.ts";

// Versions that a proxy refused and could be sent again: the newest, and those that others were held at.
const parkedMax = 16;

export interface SubscriberOptions {
  /** Puts messages on the stream. */
  readonly send: (sendable: Sendable) => void;
  /** Ends the stream with a gRPC status. Called at most once. */
  readonly close: (code: grpcStatus, details: string) => void;
  /** The Hello was good. Undefined when nothing has been built yet, or the stream was closed for another reason. */
  readonly onHello: (hello: Hello) => Assignment | undefined;
  /** It has been answered. */
  readonly onGreeted: () => void;
  readonly onAck: (target: Target) => void;
  readonly onNack: (target: Target, nack: Nack) => void;
  readonly onStatus: (report: StatusReport) => void;
  readonly onSessions: (report: SessionsReport) => void;
  readonly onCalls: (report: CallsReport) => void;
  readonly onCatalog: (report: CatalogReport) => void;
  /** Something that an operator can see has changed. */
  readonly onChange: () => void;
  readonly places: Places;
  readonly clock: Clock;
  readonly limits: SubscriberLimits;
}

/** What a proxy is to run, and what it runs already. */
export interface Assignment {
  readonly newest: Target;
  /** Undefined: it keeps what it has, which is not known here. */
  readonly target: Target | undefined;
  /** What its Hello named, when that is known here. */
  readonly base: Target | undefined;
}

export interface SubscriberLimits {
  /** From the start of the stream to its Hello. */
  readonly helloMs: number;
  /** From a response to its Ack or Nack; then it is sent once more, and then the stream is closed. */
  readonly ackMs: number;
}

/** How a proxy stands to what it should run. */
export type Standing = "not-sent" | "pending" | "synced" | "stale" | "nacked";

export interface SubscriberStatus {
  readonly standing: Standing;
  /** What the proxy runs; empty when nothing. */
  readonly liveVersion: string;
  /** What it should run. */
  readonly target: Target | undefined;
  /** What it runs, or is about to; undefined when that is not known here. */
  readonly running: Target | undefined;
  /** The newest that it was sent here: it refuses what is older, also when it refused that. */
  readonly sentRevision: bigint;
  /** When something that was sent here was acknowledged last. */
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
  /** Something else to run. */
  retarget(target: Target): void;
  status(): SubscriberStatus;
  /** The stream is gone or going: no further message, no timer. */
  stop(): void;
}

interface Flight {
  readonly target: Target;
  readonly sentAtMs: number;
  /** What an answer may name: after a silence either sending, after a wrong answer only the second. */
  readonly nonces: readonly bigint[];
  readonly isSecond: boolean;
}

type State =
  | { readonly name: "accepted" }
  | { readonly name: "settled" }
  | { readonly name: "queued"; readonly giveUp: () => void }
  | { readonly name: "in-flight" | "stale"; readonly flight: Flight; readonly release: () => void }
  | { readonly name: "closed" };

export function createSubscriber(options: SubscriberOptions): Subscriber {
  const { send, onHello, onGreeted, onAck, onNack, onStatus, onSessions, onCalls, onCatalog, onChange, places, clock, limits } =
    options;
  let state: State = { name: "accepted" };
  let takes = { delta: false, parts: false };
  let target: Target | undefined;
  let live = "";
  /** What live is, when it is known here: deltas are made from it. */
  let base: Target | undefined;
  const parked = new Set<string>();
  let sentRevision = 0n;
  let ackTimeMs: number | undefined;
  let ackMillis = 0;
  let warnings: readonly string[] = [];
  let lastNack: NackSeen | undefined;
  let cancelTimer = clock.after(limits.helloMs, () => close(grpcStatus.DEADLINE_EXCEEDED, "no Hello in time"));

  function close(code: grpcStatus, details: string): void {
    if (state.name === "closed") return;
    stop();
    options.close(code, details);
  }

  function stop(): void {
    leave();
    state = { name: "closed" };
  }

  /** Nothing is on the way any more, nor waits to be. */
  function leave(): void {
    cancelTimer();
    if (state.name === "queued") state.giveUp();
    if (state.name === "in-flight" || state.name === "stale") state.release();
  }

  function receive({ message }: StreamSnapshotsRequest): void {
    // Without a case it is from a newer proxy, and nothing that we know is in it.
    if (state.name === "closed" || message.case === undefined) return;
    if (message.case === "hello") hello(message.value);
    else if (state.name === "accepted") close(grpcStatus.INVALID_ARGUMENT, "the first message must be a Hello");
    else if (message.case === "ack") ack(message.value);
    else if (message.case === "nack") nack(message.value);
    else if (message.case === "sessions") onSessions(message.value);
    else if (message.case === "calls") onCalls(message.value);
    else if (message.case === "catalog") onCatalog(message.value);
    else onStatus(message.value);
  }

  function hello(said: Hello): void {
    const fault = state.name === "accepted" ? faultOf(said) : secondHello;
    if (fault) {
      close(fault.code, fault.details);
      return;
    }
    const assigned = onHello(said);
    settle();
    takes = { delta: said.features.includes("delta"), parts: said.features.includes("parts") };
    if (state.name === "closed") return;
    if (assigned === undefined) {
      close(grpcStatus.UNAVAILABLE, "no snapshot has been built yet; try again");
      return;
    }
    ({ target, base } = assigned);
    live = said.knownVersion;
    // Every Hello is answered, so that a proxy knows whom it has reached.
    if (target === undefined) send(assigned.newest.keep(said.knownVersion, said.knownDigest));
    else if (runs(said, target) || runsLater(said, target)) {
      base = runs(said, target) ? target : undefined;
      live = target.version;
      send(target.upToDate());
    } else if (live === target.version) live = ""; // the name alone is the same
    next();
    onGreeted();
  }

  function settle(): void {
    leave();
    if (state.name !== "closed") state = { name: "settled" };
  }

  /** Sends what is due, when nothing is on the way. */
  function next(): void {
    const wanted = due();
    if (wanted !== undefined && state.name === "settled") {
      if (base !== undefined && takes.delta) dispatch(wanted, () => undefined, wanted.since(base, takes.parts));
      else queue();
    }
    onChange();
  }

  function due(): Target | undefined {
    return target === undefined || target.version === live || parked.has(target.version) ? undefined : target;
  }

  function queue(): void {
    let giveUp: () => void = () => undefined;
    state = { name: "queued", giveUp: () => giveUp() };
    giveUp = places.take((release) => {
      state = { name: "settled" };
      const wanted = due(); // another one than when it was queued, perhaps, or none any more
      if (wanted === undefined) release();
      else dispatch(wanted, release, wanted.full(takes.parts));
    });
  }

  function dispatch(what: Target, release: () => void, sendable: Sendable): void {
    const flight = { target: what, sentAtMs: clock.nowMs(), nonces: [sendable.nonce], isSecond: false };
    transmit({ name: "in-flight", flight, release }, sendable);
  }

  /** In full, whatever it was the first time. `stillValid`: nonces of the first sending that may yet be answered. */
  function dispatchAgain(name: "in-flight" | "stale", { target: what, sentAtMs }: Flight, stillValid: readonly bigint[]): void {
    const sendable = what.fullAgain(takes.parts);
    const flight = { target: what, sentAtMs, nonces: [...stillValid, sendable.nonce], isSecond: true };
    transmit({ name, flight, release: () => undefined }, sendable);
  }

  function transmit(to: Extract<State, { flight: Flight }>, sendable: Sendable): void {
    cancelTimer();
    state = to;
    if (to.flight.target.revision > sentRevision) sentRevision = to.flight.target.revision;
    cancelTimer = clock.after(limits.ackMs, onSilence);
    send(sendable);
  }

  function onSilence(): void {
    if ((state.name !== "in-flight" && state.name !== "stale") || target === undefined) return;
    const { flight } = state;
    if (state.name === "stale" || flight.isSecond) {
      close(grpcStatus.DEADLINE_EXCEEDED, `${flight.target.version} was not answered, twice`);
      return;
    }
    state.release();
    // What is sent again is the newest: an answer to the older one would be worth nothing any more.
    if (flight.target.version === target.version) dispatchAgain("stale", flight, flight.nonces);
    else dispatchAgain("stale", { ...flight, target, sentAtMs: clock.nowMs() }, []);
    onChange();
  }

  function ack(said: Ack): void {
    const answered = take(said.nonce);
    if (answered === undefined) return;
    if (Buffer.compare(said.digest, answered.target.digest) !== 0) {
      mismatch(answered, NackReason.DIGEST_MISMATCH);
      return;
    }
    live = answered.target.version;
    base = answered.target;
    lastNack = undefined;
    warnings = said.warnings;
    ackTimeMs = clock.nowMs();
    ackMillis = ackTimeMs - answered.sentAtMs;
    onAck(answered.target);
    next();
  }

  function nack(said: Nack): void {
    const answered = take(said.nonce);
    if (answered === undefined) return;
    const isMismatch = said.reason === NackReason.DIGEST_MISMATCH || said.reason === NackReason.BASE_MISMATCH;
    if (isMismatch) mismatch(answered, said.reason, said);
    else refuse(answered, said);
  }

  /** The proxy has something else than it was thought to have: everything once more, and then it counts as refused. */
  function mismatch(answered: Flight, reason: NackReason, said?: Nack): void {
    base = undefined;
    if (answered.isSecond) refuse(answered, said ?? unsaid(answered, reason));
    else if (target?.version === answered.target.version) dispatchAgain("in-flight", answered, []);
    else next();
  }

  function unsaid({ nonces, target: refused }: Flight, reason: NackReason): Nack {
    const header = { nonce: nonces.at(-1) ?? 0n, version: refused.version, liveVersion: live };
    return { $typeName: "vmcp.discovery.v1.Nack", ...header, reason, error: undefined };
  }

  function refuse({ target: refused }: Flight, said: Nack): void {
    park(refused.version);
    lastNack = { nack: said, timeMs: clock.nowMs() };
    onNack(refused, said);
    next();
  }

  function park(version: string): void {
    parked.add(version);
    const [oldest] = parked;
    if (parked.size > parkedMax && oldest !== undefined) parked.delete(oldest);
  }

  /** What an answer is for; undefined for an answer to something that is not on the way (any more). */
  function take(nonce: bigint): Flight | undefined {
    if (state.name !== "in-flight" && state.name !== "stale") return undefined;
    const { flight } = state;
    if (!flight.nonces.includes(nonce)) return undefined;
    settle();
    return flight;
  }

  function standing(): Standing {
    if (state.name === "stale") return "stale";
    if (state.name === "in-flight" || state.name === "queued") return "pending";
    if (target === undefined) return "not-sent";
    if (live === target.version) return "synced";
    return parked.has(target.version) ? "nacked" : "not-sent";
  }

  return {
    receive,
    stop,
    retarget(newest) {
      if (state.name === "accepted" || state.name === "closed") return;
      target = newest;
      next();
    },
    status: () => ({
      ...{ standing: standing(), liveVersion: live, target, sentRevision },
      ...{ ackTimeMs, ackMillis, warnings, lastNack },
      running: state.name === "in-flight" || state.name === "stale" ? state.flight.target : base,
    }),
  };
}
