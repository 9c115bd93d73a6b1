// A circuit breaker per backend, driven by live calls. opossum holds whether it is closed or open, and the failures of the last 10 s by
// which it opens; around it stands what opossum lacks: outcomes that count neither way, failures in a row, slow calls, pauses that
// grow, and a way back that is not a rush.
//
// Calls are not run inside opossum, which knows success and failure only, and would be told of a call's beginning. It is told how each
// call that counts has ended. Measured reasons: it counts what its errorFilter lets pass as a success, so that a 401 closes it; it
// closes on the first success, whenever that call began; and its own semaphore is released before the work ends.
//
// Longer than most files here: all of it reads and writes one state, and what is a rule without state is in `breaker-rules.ts`.
import { EventEmitter } from "node:events";
import CircuitBreaker from "opossum";
import {
  asksForLess,
  createTally,
  failingShare,
  faultOf,
  type Outcome,
  outcomeOf,
  overdueMs,
  pauseMs,
  rampMs,
  slowAfter,
  successesToClose,
  volumeMin,
  widthAt,
  windowMs,
} from "./breaker-rules.ts";
import type { StallMeter } from "./breaker-stalls.ts";
import { BackendError } from "./errors.ts";

export interface BreakerSettings {
  readonly enabled: boolean;
  /** Failures in a row that open it. */
  readonly failureThreshold: number;
  /** The longest that it stays open before one call may try. */
  readonly openMs: number;
}

export interface BreakerOptions {
  readonly settings: BreakerSettings;
  /** Milliseconds, of a clock that never goes back; the one that `stalls` measures with. */
  readonly nowMs: () => number;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly stalls: StallMeter;
  /** Called after each change of state. */
  readonly onChange?: (change: BreakerChange) => void;
}

/** Half-open: some calls are let through, to see. */
export type BreakerState = "closed" | "open" | "half_open";

export interface BreakerChange {
  readonly state: BreakerState;
  /** How often in a row it has opened; 0 when closed. */
  readonly openings: number;
  /** When open: for how long at most, and the failure that opened it, if it was one. */
  readonly pauseMs?: number;
  readonly cause?: unknown;
}

export interface Breaker extends Disposable {
  /**
   * Runs the work, or throws BackendError("shed") at once, without having run it. The work must settle by itself, at its deadline
   * at the latest. It may say that all is well before its end, which counts then, whatever becomes of the rest.
   */
  run<T>(timeoutMs: number, work: (isWell: () => void) => Promise<T>): Promise<T>;
  /** Why a call would be shed that is not to be one of those that are let through to see; undefined while it is closed. */
  refusal(): BackendError | undefined;
  /**
   * The backend was seen to be back: it is tried now, one call at a time, or `leastMs` after the breaker opened. Calls alone close it.
   */
  retryNow(leastMs?: number): void;
  /** Takes other settings; what it knows of the backend it keeps, unless it is switched off or on. */
  configure(settings: BreakerSettings): void;
  readonly state: BreakerState;
  /** It waits, or has let a call through and heard of none that worked. */
  readonly isAway: boolean;
}

/** A call that was let through. */
interface Ticket {
  readonly generation: number;
  readonly startedMs: number;
  readonly timeoutMs: number;
  isSettled: boolean;
}

/** A closed breaker. */
export function createBreaker({ settings: initial, nowMs, random, stalls, onChange }: BreakerOptions): Breaker {
  let settings = initial;
  let isDisposed = false;
  let state: BreakerState = "closed";
  /** New with each change of state: what began before says nothing of what is now. */
  let generation = 0;
  let failuresInRow = 0;
  let openings = 0;
  let leftAloneSinceMs = 0;
  let openedMs = 0;
  let openUntilMs = 0;
  let successes = 0;
  let firstSuccessMs = 0;
  /** Let through while half-open, oldest first. */
  const probes = new Set<Ticket>();
  const tally = createTally();
  const counts = createCounts();
  counts.onTrip(() => {
    if (state === "closed") open(nowMs());
  });

  function become(next: BreakerState, change: Partial<BreakerChange> = {}): void {
    const isNews = next !== "closed" || state !== "closed";
    state = next;
    generation++;
    probes.clear();
    if (isNews) onChange?.({ ...change, state, openings });
  }

  function open(atMs: number, cause?: unknown): void {
    if (openings++ === 0) leftAloneSinceMs = atMs;
    const pause = pauseMs(openings, settings.openMs, random);
    openedMs = atMs;
    openUntilMs = atMs + pause;
    become("open", { pauseMs: pause, cause });
    counts.trip();
  }

  function halfOpen(): void {
    successes = 0;
    become("half_open");
  }

  function close(): void {
    failuresInRow = 0;
    openings = 0;
    tally.clear();
    counts.reset();
    become("closed");
  }

  /** A call that was let through and never settled has failed when it was overdue, even if nobody looked then. */
  function noteOverdue(now: number): void {
    let overdueSinceMs = Number.POSITIVE_INFINITY;
    for (const { startedMs, timeoutMs } of probes) overdueSinceMs = Math.min(overdueSinceMs, startedMs + timeoutMs + overdueMs);
    if (now >= overdueSinceMs) open(overdueSinceMs);
  }

  function admit(now: number, timeoutMs: number): Ticket | BackendError {
    if (state !== "closed") {
      noteOverdue(now);
      if (state === "open") {
        if (now < openUntilMs) return leftAlone(now, openUntilMs - now);
        halfOpen();
      }
      closeIfProven(now);
    }
    const ticket = { generation, startedMs: now, timeoutMs, isSettled: false };
    if (state === "half_open") {
      if (probes.size >= widthAt(successes, now - firstSuccessMs)) return leftAlone(now, halfOpenRetryMs);
      probes.add(ticket);
    }
    return ticket;
  }

  function closeIfProven(now: number): void {
    if (state === "half_open" && successes >= successesToClose && now - firstSuccessMs >= rampMs) close();
  }

  /** Undefined when everyone has been told, else settles then. */
  function settle(ticket: Ticket, ended: Outcome, cause?: unknown): Promise<void> | undefined {
    if (ticket.isSettled) return undefined;
    ticket.isSettled = true;
    stalls.end();
    const now = nowMs();
    if (state === "half_open") noteOverdue(now);
    if (ticket.generation !== generation || isDisposed) return undefined;
    const isLate = now - ticket.startedMs > ticket.timeoutMs * slowAfter;
    // When it was us who stood still, nobody knows how the backend was.
    const isOurs = (ended === "failure" || isLate) && stalls.stalledSince(ticket.startedMs);
    const outcome = isOurs && ended === "failure" ? "neutral" : ended;
    const isSlow = isLate && !isOurs;
    if (state !== "half_open") return outcome === "neutral" ? undefined : counted(outcome, isSlow, now, cause);
    seen(ticket, outcome, now, cause);
    return undefined;
  }

  /** One of those that were let through to see has ended. */
  function seen(ticket: Ticket, outcome: Outcome, now: number, cause: unknown): void {
    probes.delete(ticket);
    if (outcome === "failure" || asksForLess(cause)) return open(now, cause);
    if (outcome === "neutral") return;
    if (successes++ === 0) firstSuccessMs = now;
    closeIfProven(now);
  }

  function counted(outcome: "success" | "failure", isSlow: boolean, now: number, cause: unknown): Promise<void> | undefined {
    failuresInRow = outcome === "failure" ? failuresInRow + 1 : 0;
    tally.add(now, isSlow);
    if (failuresInRow < settings.failureThreshold && !tally.isMostlySlow) return counts.add(now, outcome);
    open(now, cause);
    return undefined;
  }

  function leftAlone(now: number, retryAfterMs: number): BackendError {
    // There may be thousands a second, and where they come from is no question: the trace would cost more than all the rest.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    const error = new BackendError("shed", "not_executed", "its last calls failed; it is left alone for a moment", undefined, {
      leftAlone: { sinceMs: Math.round(now - leftAloneSinceMs), retryAfterMs: Math.ceil(retryAfterMs) },
    });
    Error.stackTraceLimit = stackTraceLimit;
    return error;
  }

  return {
    async run(timeoutMs, work) {
      if (isDisposed) throw new BackendError("unavailable", "not_executed", "the backend was removed");
      if (!settings.enabled) return work(() => undefined);
      const ticket = admit(nowMs(), timeoutMs);
      if (ticket instanceof BackendError) {
        await undefined; // a promise that is rejected before somebody waits for it costs more
        throw ticket;
      }
      stalls.begin();
      try {
        const value = await work(() => void settle(ticket, "success"));
        const fault = faultOf(value);
        const settling = settle(ticket, fault ? outcomeOf(fault) : "success", fault);
        if (settling !== undefined) await settling;
        return value;
      } catch (error) {
        await settle(ticket, outcomeOf(error), error);
        throw error;
      }
    },
    refusal() {
      if (state === "closed") return undefined;
      const now = nowMs();
      return leftAlone(now, state === "open" ? Math.max(1, openUntilMs - now) : halfOpenRetryMs);
    },
    retryNow(leastMs = 0) {
      if (state === "open") {
        openUntilMs = Math.min(openUntilMs, openedMs + leastMs);
        if (nowMs() >= openUntilMs) halfOpen();
      } else if (state === "half_open" && successes === 0) halfOpen();
    },
    configure(next) {
      const isSwitched = next.enabled !== settings.enabled;
      settings = next;
      if (isSwitched) close();
      if (state === "open") openUntilMs = Math.min(openUntilMs, openedMs + next.openMs);
    },
    get state() {
      return state;
    },
    get isAway() {
      if (isDisposed || state === "closed") return false;
      return state === "open" ? nowMs() < openUntilMs : successes === 0 && probes.size > 0;
    },
    [Symbol.dispose]() {
      isDisposed = true;
      probes.clear();
      counts[Symbol.dispose]();
    },
  };
}

/** When to try again what was one too many for a half-open breaker. */
const halfOpenRetryMs = 1_000;

/** opossum: the ends of calls in the last 10 s, by which it opens. */
interface Counts extends Disposable {
  /** Hears when too many failed. */
  onTrip(listener: () => void): void;
  /** Of a failure: settles when it has been counted, and `onTrip` called if need be. */
  add(nowMs: number, outcome: "success" | "failure"): Promise<void> | undefined;
  /** Open, for whatever reason: nothing is counted until `reset`. */
  trip(): void;
  /** Closed, with nothing counted. */
  reset(): void;
}

const buckets = 10;
const bucketMs = windowMs / buckets;
// One promise for all failures of all calls, so that none costs a stack trace.
const failed = Promise.reject(new Error("a call failed"));
failed.catch(() => undefined);

function createCounts(): Counts {
  const clock = new EventEmitter();
  const circuit = new CircuitBreaker(() => failed, {
    name: "backend",
    timeout: false, // what it runs has ended already
    errorThresholdPercentage: failingShare * 100 - 1e-6, // it opens beyond this, we at it
    volumeThreshold: volumeMin,
    resetTimeout: 2 ** 31 - 1, // when to try again is decided above
    rollingCountTimeout: windowMs,
    rollingCountBuckets: buckets,
    rotateBucketController: clock, // turned by our clock, when there is something to count: no timer of its own
    rollingPercentilesEnabled: false, // they sort every latency at every failure
    enableSnapshots: false,
  });
  let current = 0; // the second that is counted now
  let [bucket] = circuit.status.window as [CircuitBreaker.Bucket]; // of it

  function turn(times: number): void {
    for (let turns = Math.min(times, buckets); turns > 0; turns--) clock.emit("rotate");
    // It keeps every latency, though nothing reads them.
    for (const one of circuit.status.window) one.latencyTimes = [];
    [bucket] = circuit.status.window as [CircuitBreaker.Bucket];
  }

  return {
    onTrip: (listener) => void circuit.on("open", listener),
    add(nowMs, outcome) {
      const second = Math.floor(nowMs / bucketMs);
      if (second > current) {
        turn(second - current);
        current = second;
      }
      if (outcome === "failure") return circuit.fire().catch(() => undefined);
      // It decides when something fails. Successes are most of what there is, so they are written where it will read them.
      bucket.fires++;
      bucket.successes++;
      return undefined;
    },
    trip: () => circuit.open(),
    reset() {
      turn(buckets);
      circuit.close();
    },
    [Symbol.dispose]: () => circuit.shutdown(),
  };
}
