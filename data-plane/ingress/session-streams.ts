// The event streams of one session: those that carry calls, and the one for what is said outside of calls.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { LimitReport } from "../overload/limit-report.ts";
import { attachStream, type Session } from "../session/session.ts";
import { type ByteBudget, createByteBudget } from "./byte-budget.ts";
import { createEventLog, type EventLog, readEventId } from "./event-log.ts";

const logsMax = 16;
const awayMs = 60_000;
/** How long a stream that has ended can still be resumed. */
const endedMs = 60_000;
const sessionBytesMax = 1024 * 1024;
const processBytesMax = 64 * 1024 * 1024;

interface Streams {
  /** Those that can be resumed, oldest first. */
  readonly logs: Map<string, EventLog>;
  readonly budget: ByteBudget;
  /** Drops a log: nobody can resume it any more. */
  drop(log: EventLog): void;
  /** Drops logs that have ended, each in its time. */
  expire(): void;
  count: number;
  /** The session has ended. */
  isOver: boolean;
}

const streamsOf = new WeakMap<Session, Streams>();

// One process has one memory, whoever keeps something in it.
const processBudget = createByteBudget(processBytesMax);

/** What all streams together keep for clients that were cut off. Beyond it the oldest is forgotten. */
export function keptForStreams(): LimitReport {
  return { name: "stream_kept_bytes", used: processBudget.bytes, limit: processBytesMax };
}

/**
 * A new stream for a call. `replica` begins its name, so that other replicas know where to resume it. `keptMs`: how long it can be
 * resumed after its end, default 60 s.
 */
export function openCallLog(session: Session, replica: string, keptMs = endedMs): EventLog {
  return openLog(session, { replica, keptMs });
}

/** The replica that a GET wants to go on with a stream of, when it is another one; else undefined. */
export function resumedFrom({ headers }: IncomingMessage, replica: string): string | undefined {
  const lastId = headers["last-event-id"];
  const name = typeof lastId === "string" ? readEventId(lastId)?.name.slice(0, replica.length) : undefined;
  return name === replica ? undefined : name;
}

/** Answers a GET: goes on with the stream that `Last-Event-ID` names, else opens the session's stream. */
export function serveStream(session: Session, replica: string, request: IncomingMessage, response: ServerResponse): void {
  const lastId = request.headers["last-event-id"];
  const position = typeof lastId === "string" ? readEventId(lastId) : undefined;
  const log = position && streamsOf.get(session)?.logs.get(position.name);
  // A log that is no longer kept can't be resumed; the client gets a stream all the same, and lists anew.
  if (log && position) log.attach(response, position.number);
  else openSessionStream(session, replica, response);
}

function openSessionStream(session: Session, replica: string, response: ServerResponse): void {
  const closed = new AbortController();
  let away: NodeJS.Timeout | undefined;
  const onDetached = (): void => {
    // A client that comes back within a minute finds its stream as if it had never been away.
    away = setTimeout(() => {
      if (!log.isAttached) stream.end();
    }, awayMs).unref();
    session.usedAtMs = performance.now();
  };
  const log = openLog(session, { replica, keptMs: endedMs, onDetached });
  const stream = {
    send: (message: Buffer) => log.write(message),
    closed: closed.signal,
    end() {
      clearTimeout(away);
      log.end();
      closed.abort();
      if (session.stream === stream) session.stream = undefined;
    },
  };
  log.attach(response);
  attachStream(session, stream);
}

interface LogOptions {
  readonly replica: string;
  readonly keptMs: number;
  readonly onDetached?: () => void;
}

function openLog(session: Session, { replica, keptMs, onDetached }: LogOptions): EventLog {
  const streams = streamsOf.get(session) ?? createStreams(session, keptMs);
  const name = `${replica}${(streams.count++).toString(36)}`;
  const log = createEventLog({
    name,
    hasPriming: session.protocolVersion >= "2025-11-25", // older clients stumble over events without data
    ...(onDetached ? { onDetached } : {}),
    onKept() {
      // A stream that nobody can resume goes on for those who listen to it.
      if (streams.logs.get(name) !== log) log.forget();
      streams.budget.note(log);
      processBudget.note(log);
    },
    onEnded: streams.expire,
  });
  if (streams.isOver) return log;
  if (streams.logs.size >= logsMax) dropOne(streams);
  streams.logs.set(name, log);
  return log;
}

function createStreams(session: Session, keptMs: number): Streams {
  const logs = new Map<string, EventLog>();
  let timer: NodeJS.Timeout | undefined;

  function drop(log: EventLog): void {
    logs.delete(log.name);
    log.forget();
  }

  function expire(): void {
    clearTimeout(timer);
    const now = performance.now();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const log of logs.values()) {
      if (log.endedAtMs === undefined) continue;
      const leftMs = log.endedAtMs + keptMs - now;
      if (leftMs <= 0) drop(log);
      else nextMs = Math.min(nextMs, leftMs);
    }
    if (nextMs < Number.POSITIVE_INFINITY) timer = setTimeout(expire, nextMs).unref();
  }

  const streams = { logs, budget: createByteBudget(sessionBytesMax), drop, expire, count: 0, isOver: false };
  streamsOf.set(session, streams);
  session.onEnd(() => {
    streams.isOver = true;
    for (const log of logs.values()) drop(log);
    clearTimeout(timer);
  });
  return streams;
}

/** Forgets the oldest log that no client is attached to, else the oldest. */
function dropOne({ logs, drop }: Streams): void {
  const log = logs.values().find((one) => !one.isAttached) ?? logs.values().next().value;
  if (log) drop(log);
}
