// `vmcpctl session list`: the client sessions, as the connected proxies tell when they are asked.
import { create, toJson } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { type ListSessionsResponse, ListSessionsResponseSchema } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { SessionInfo } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { exitCodes } from "../exit-codes.ts";
import type { GlobalOptions } from "./connection.ts";
import { askEveryPlane } from "./every-plane.ts";
import type { Format, Output } from "./output.ts";
import { structured } from "./structured.ts";
import { age, plain, table } from "./table.ts";

export interface SessionListOptions extends GlobalOptions {
  readonly output: Format;
  readonly virtualServer?: string | undefined;
  readonly subject?: string | undefined;
  /** 1 to 1000. */
  readonly limit: number;
}

/** Returns the exit code. What could not be learned is said on standard error. */
export async function listSessions(options: SessionListOptions, output: Output): Promise<number> {
  const { virtualServer = "", subject = "", limit } = options;
  const answers = await askEveryPlane(options, output, ({ admin, deadline }) =>
    admin.listSessions({ virtualServer, subject, limit }, deadline()),
  );
  const response = merged(answers, limit);
  const { sessions, missing, unable, hasMore } = response;
  if (options.output === "json" || options.output === "yaml")
    output.data(structured(options.output, toJson(ListSessionsResponseSchema, response)));
  else if (options.output === "name") output.data(sessions.map(({ key }) => `${key}\n`).join(""));
  else output.data(sessionTable(sessions, Date.now()));
  if (hasMore) output.note(`there are more than these ${sessions.length}, which were used last; see --limit\n`);
  if (missing.length > 0) output.note(`${missingText(missing)}\n`);
  if (unable.length > 0) output.note(plain(`of a version that can't be asked: ${unable.join(", ")}`).concat("\n"));
  return exitCodes.ok;
}

/** As one control plane would say it that had the proxies of all. */
function merged(answers: readonly ListSessionsResponse[], limit: number): ListSessionsResponse {
  const [first] = answers;
  if (first && answers.length === 1) return first;
  const byKey = new Map<string, SessionInfo>();
  for (const session of answers.flatMap(({ sessions }) => sessions)) {
    const other = byKey.get(session.key);
    const newer = other && (ms(other.lastUseTime) ?? 0) > (ms(session.lastUseTime) ?? 0) ? other : session;
    byKey.set(session.key, {
      ...newer,
      proxies: [...new Set([...session.proxies, ...(other?.proxies ?? [])])].sort(),
      streams: session.streams + (other?.streams ?? 0),
      calls: session.calls + (other?.calls ?? 0),
    });
  }
  const sessions = [...byKey.values()].sort((a, b) => (ms(b.lastUseTime) ?? 0) - (ms(a.lastUseTime) ?? 0));
  return create(ListSessionsResponseSchema, {
    sessions: sessions.slice(0, limit),
    missing: answers.flatMap(({ missing }) => missing).sort(),
    unable: answers.flatMap(({ unable }) => unable).sort(),
    hasMore: sessions.length > limit || answers.some(({ hasMore }) => hasMore),
  });
}

/** What an operator must know about a list that proxies are missing from. */
export function missingText(missing: readonly string[]): string {
  return plain(`no answer from ${missing.join(", ")}; what only they know is not here`);
}

function sessionTable(sessions: readonly SessionInfo[], nowMs: number): string {
  const rows = sessions.map((session) => [
    session.key,
    session.virtualServer,
    session.subject,
    session.issuer,
    `${session.clientName} ${session.clientVersion}`.trim(),
    session.protocolVersion,
    age(ms(session.createTime), nowMs),
    age(ms(session.lastUseTime), nowMs),
    String(session.streams),
    String(session.calls),
    session.proxies.join(", "),
  ]);
  const headings = ["KEY", "SERVER", "SUBJECT", "ISSUER", "CLIENT", "PROTOCOL", "AGE", "IDLE", "STREAMS", "CALLS", "PROXIES"];
  return table(headings, rows);
}

function ms(time: Timestamp | undefined): number | undefined {
  return time === undefined ? undefined : timestampMs(time);
}
