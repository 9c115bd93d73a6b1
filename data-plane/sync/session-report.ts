// Answers what the control plane asks about client sessions. Ids of sessions stay here; keys, which are hashes of them, travel.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type SessionInfo,
  SessionInfoSchema,
  type SessionsQuery,
  type SessionsReport,
  SessionsReportSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { ListedSession, SessionFilter } from "../session/listing.ts";

export interface SessionListing {
  /** Any order; what is beyond the limit is left out of the report. */
  readonly sessions: readonly ListedSession[];
  /** They are those of a store that proxies share, not those in the memory of this one. */
  readonly isShared: boolean;
}

/** The sessions that pass the filter. */
export type ListSessions = (filter: SessionFilter) => Promise<SessionListing>;

// The control plane takes messages of 4 MiB.
const reportBytesMax = 2 * 1024 * 1024;

const clientCharactersMax = 128;
const clientInfoCharactersMax = 4_096; // more is not parsed just to show a name

/** The report to send. `proxy`: id of this one. */
export function sessionsReport(query: SessionsQuery, { sessions, isShared }: SessionListing, proxy: string): SessionsReport {
  const sorted = [...sessions].sort((a, b) => b.lastUseTimeMs - a.lastUseTimeMs);
  const told: SessionInfo[] = [];
  let bytes = 0;
  for (const session of sorted.slice(0, query.limit)) {
    const { key, virtualServer, issuer, subject } = session;
    // 500: what the rest takes at most, names of client and proxy apart.
    bytes += Buffer.byteLength(key + virtualServer + issuer + subject + proxy) + 6 * clientCharactersMax + 500;
    if (bytes > reportBytesMax) break;
    told.push(toInfo(session, proxy));
  }
  return create(SessionsReportSchema, {
    queryId: query.id,
    sessions: told,
    isShared,
    hasMore: told.length < sessions.length,
  });
}

function toInfo(session: ListedSession, proxy: string): SessionInfo {
  const { key, virtualServer, issuer, subject, protocolVersion, createTimeMs, lastUseTimeMs, isHeld, streams, calls } = session;
  const client = clientOf(session.clientInfo);
  return create(SessionInfoSchema, {
    ...{ key, virtualServer, issuer, subject, protocolVersion, streams, calls },
    clientName: client.name,
    clientVersion: client.version,
    ...(createTimeMs !== undefined && { createTime: timestampFromMs(createTimeMs) }),
    lastUseTime: timestampFromMs(lastUseTimeMs),
    proxies: isHeld ? [proxy] : [],
  });
}

/** As the client says; it may say anything. */
function clientOf(clientInfo: string): { name: string; version: string } {
  const text = (value: unknown) => (typeof value === "string" ? value.slice(0, clientCharactersMax).toWellFormed() : "");
  try {
    const said: unknown = clientInfo.length > clientInfoCharactersMax ? undefined : JSON.parse(clientInfo);
    const { name, version } = (said ?? {}) as { name?: unknown; version?: unknown };
    return { name: text(name), version: text(version) };
  } catch {
    return { name: "", version: "" };
  }
}
