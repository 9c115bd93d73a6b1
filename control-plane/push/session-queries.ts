// Asks proxies for their client sessions and puts the answers together. Whatever a proxy sends, only a first answer in time of
// one that was asked counts, and a proxy speaks only for itself.
import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  type SessionInfo,
  SessionInfoSchema,
  type SessionsReport,
  StreamSnapshotsResponseSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { encode } from "../../proto/grpc.ts";
import type { Clock } from "../clock.ts";
import type { Sendable } from "./target.ts";

const deadlineMs = 3_000;

// Each makes every proxy look through its sessions.
const queriesMax = 16;

// Of one session, all its texts together. Issuers and subjects are what tokens say, and the largest tokens have a few KB.
const charactersMax = 4_096;

/** The filters hold together; an empty one lets all through. */
export interface SessionFilter {
  readonly virtualServer: string;
  readonly subject: string;
  /** What keys begin with. */
  readonly keyPrefix: string;
  /** At most so many, those used last. */
  readonly limit: number;
}

export interface SessionsFound {
  /** Those used last first. */
  readonly sessions: readonly SessionInfo[];
  /** Ids of proxies that did not answer in time, sorted. */
  readonly missing: readonly string[];
  readonly hasMore: boolean;
}

export interface Respondent {
  readonly send: (sendable: Sendable) => void;
}

/** `P` is a proxy on one stream: another stream of the same proxy is another one. */
export interface SessionQueries<P extends Respondent> {
  /** Undefined when 16 are under way already. Never rejects. */
  ask(proxies: readonly P[], filter: SessionFilter): Promise<SessionsFound> | undefined;
  answer(from: P, report: SessionsReport): void;
  /** The stream has ended; it will not answer any more. */
  gone(proxy: P): void;
}

interface Query<P> {
  readonly filter: SessionFilter;
  readonly waiting: Set<P>;
  readonly missing: string[];
  found: Map<string, SessionInfo>;
  hasMore: boolean;
  finish(): void;
}

export function createSessionQueries<P extends Respondent>(options: {
  readonly clock: Clock;
  readonly idOf: (proxy: P) => string;
}): SessionQueries<P> {
  const { clock, idOf } = options;
  const open = new Map<bigint, Query<P>>();
  let lastId = 0n;

  function settle(query: Query<P>, proxy: P): void {
    query.waiting.delete(proxy);
    if (query.waiting.size === 0) query.finish();
  }

  return {
    ask(proxies, filter) {
      if (open.size >= queriesMax) return undefined;
      lastId += 1n;
      const id = lastId;
      const { promise, resolve } = Promise.withResolvers<SessionsFound>();
      const cancel = clock.after(deadlineMs, () => query.finish());
      const query: Query<P> = {
        filter,
        waiting: new Set(proxies),
        missing: [],
        found: new Map(),
        hasMore: false,
        finish() {
          cancel();
          open.delete(id);
          const missing = [...query.missing, ...[...query.waiting].map(idOf)].sort();
          resolve({ sessions: newestFirst(query.found), missing, hasMore: query.hasMore });
        },
      };
      open.set(id, query);
      const message = encode(StreamSnapshotsResponseSchema, { payload: { case: "sessionsQuery", value: { id, ...filter } } });
      for (const proxy of proxies) proxy.send({ nonce: 0n, messages: [message] });
      if (proxies.length === 0) query.finish();
      return promise;
    },
    answer(from, report) {
      const query = open.get(report.queryId);
      if (!query?.waiting.has(from)) return;
      take(query, idOf(from), report);
      settle(query, from);
    },
    gone(proxy) {
      for (const query of [...open.values()]) {
        if (!query.waiting.has(proxy)) continue;
        query.missing.push(idOf(proxy));
        settle(query, proxy);
      }
    },
  };
}

/** Adds what a proxy reports, and keeps no more than is asked for. */
function take<P>(query: Query<P>, proxy: string, report: SessionsReport): void {
  const { limit } = query.filter;
  const told = new Map<string, SessionInfo>();
  for (const session of report.sessions.slice(0, limit)) {
    if (fits(session, query.filter)) told.set(session.key, asToldBy(proxy, session, report.isShared));
  }
  for (const [key, session] of told) query.found.set(key, merged(query.found.get(key), session));
  query.hasMore ||= report.hasMore || report.sessions.length > limit || query.found.size > limit;
  if (query.found.size > limit) {
    const kept = newestFirst(query.found).slice(0, limit);
    query.found = new Map(kept.map((session) => [session.key, session]));
  }
}

function fits(session: SessionInfo, { virtualServer, subject, keyPrefix }: SessionFilter): boolean {
  const texts = [session.virtualServer, session.issuer, session.subject, session.clientName, session.clientVersion];
  const characters = [...texts, session.protocolVersion].reduce((sum, text) => sum + text.length, 0);
  return (
    /^[A-Za-z0-9_-]{22}$/.test(session.key) &&
    session.key.startsWith(keyPrefix) &&
    (virtualServer === "" || session.virtualServer === virtualServer) &&
    (subject === "" || session.subject === subject) &&
    characters <= charactersMax
  );
}

/** A copy without what the proxy has no say in. */
function asToldBy(proxy: string, session: SessionInfo, isShared: boolean): SessionInfo {
  const isHeld = !isShared || session.proxies.includes(proxy);
  const { createTime, lastUseTime, $unknown: _, ...facts } = session;
  return create(SessionInfoSchema, {
    ...facts,
    ...(isTime(createTime) && { createTime }),
    ...(isTime(lastUseTime) && { lastUseTime }),
    proxies: isHeld ? [proxy] : [],
    streams: isHeld ? facts.streams : 0,
    calls: isHeld ? facts.calls : 0,
  });
}

function merged(one: SessionInfo | undefined, other: SessionInfo): SessionInfo {
  if (one === undefined) return other;
  const facts = usedAt(one) >= usedAt(other) ? one : other;
  return {
    ...facts,
    proxies: [...new Set([...one.proxies, ...other.proxies])].sort(),
    streams: Math.min(uint32Max, one.streams + other.streams),
    calls: Math.min(uint32Max, one.calls + other.calls),
  };
}

const uint32Max = 2 ** 32 - 1;

function newestFirst(found: ReadonlyMap<string, SessionInfo>): SessionInfo[] {
  return [...found.values()].sort((a, b) => usedAt(b) - usedAt(a) || (a.key < b.key ? -1 : 1));
}

function usedAt({ lastUseTime }: SessionInfo): number {
  return lastUseTime === undefined ? 0 : timestampMs(lastUseTime);
}

/** What has a JSON form: the years 1970 to 9999. */
function isTime(time: Timestamp | undefined): time is Timestamp {
  return time !== undefined && time.seconds >= 0n && time.seconds < 253_402_300_800n && time.nanos >= 0 && time.nanos < 1e9;
}
