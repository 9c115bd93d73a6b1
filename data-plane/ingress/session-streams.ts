// The event streams of one session: those that carry calls, and the one for what is said outside of calls.
import type { IncomingMessage, ServerResponse } from "node:http";
import { attachStream, type Session } from "../session/session.ts";
import { createEventLog, type EventLog, readEventId } from "./event-log.ts";

const logsMax = 16;
const awayMs = 60_000;

interface Streams {
  readonly logs: Map<string, EventLog>;
  count: number;
}

const streamsOf = new WeakMap<Session, Streams>();

/** A new stream for a call. */
export function openCallLog(session: Session): EventLog {
  return openLog(session);
}

/** Answers a GET: goes on with the stream that `Last-Event-ID` names, else opens the session's stream. */
export function serveStream(session: Session, request: IncomingMessage, response: ServerResponse): void {
  const lastId = request.headers["last-event-id"];
  const position = typeof lastId === "string" ? readEventId(lastId) : undefined;
  const log = position && streamsOf.get(session)?.logs.get(position.name);
  // A log that is no longer kept can't be resumed; the client gets a stream all the same, and lists anew.
  if (log && position) log.attach(response, position.number);
  else openSessionStream(session, response);
}

function openSessionStream(session: Session, response: ServerResponse): void {
  const closed = new AbortController();
  let away: NodeJS.Timeout | undefined;
  const log = openLog(session, () => {
    // A client that comes back within a minute finds its stream as if it had never been away.
    away = setTimeout(() => {
      if (!log.isAttached) stream.end();
    }, awayMs).unref();
    session.usedAtMs = performance.now();
  });
  const stream = {
    send: log.write,
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

function openLog(session: Session, onDetached?: () => void): EventLog {
  const streams = streamsOf.get(session) ?? { logs: new Map(), count: 0 };
  streamsOf.set(session, streams);
  const name = `s${(streams.count++).toString(36)}`;
  const hasPriming = session.protocolVersion >= "2025-11-25"; // older clients stumble over events without data
  const log = createEventLog({ name, hasPriming, ...(onDetached ? { onDetached } : {}) });
  if (streams.logs.size >= logsMax) dropOne(streams.logs);
  streams.logs.set(name, log);
  return log;
}

/** Forgets the oldest log that no client is attached to, else the oldest. */
function dropOne(logs: Map<string, EventLog>): void {
  const idle = logs.values().find((log) => !log.isAttached) ?? logs.values().next().value;
  if (idle) logs.delete(idle.name);
}
