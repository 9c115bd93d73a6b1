// `vmcpctl session revoke`: ends sessions on every proxy, for good.
import { create, toJson } from "@bufbuild/protobuf";
import { stringify } from "yaml";
import {
  ProxyState,
  type RevokeSessionsRequest,
  RevokeSessionsRequestSchema,
  type RevokeSessionsResponse,
  RevokeSessionsResponseSchema,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { type Format, json, type Output } from "./output.ts";
import { waitForProxies } from "./rollout.ts";
import { isWholeKey, keyProblem } from "./session-keys.ts";
import { missingText } from "./session-list.ts";
import { plain } from "./table.ts";

// Keys that begin alike and are shown to choose from.
const shownMax = 5;

export interface SessionRevokeOptions extends GlobalOptions {
  readonly output: Format;
  readonly issuer?: string | undefined;
  readonly subject?: string | undefined;
  readonly all: boolean;
  readonly virtualServer?: string | undefined;
  readonly reason: string;
  readonly dryRun: boolean;
  /** Milliseconds; undefined: do not wait. */
  readonly wait: number | undefined;
}

/** One revocation for each key, or one for the rest. Returns the exit code. */
export async function revokeSessions(keys: readonly string[], options: SessionRevokeOptions, output: Output): Promise<number> {
  const problems = problemsOf(keys, options);
  if (problems.length > 0) throw new ExitError(exitCodes.usage, problems.join("\n"));
  const { issuer = "", subject = "", all, virtualServer = "", reason, dryRun: validateOnly } = options;
  using connection = connect(options);
  const resolved = await resolveKeys(connection, keys, output);
  const asked = keys.length > 0 ? resolved.map((session) => ({ session })) : [{ issuer, subject, all, virtualServer }];
  const sinceMs = Date.now();
  const made: RevokeSessionsResponse[] = [];
  for (const what of asked) {
    const request = create(RevokeSessionsRequestSchema, { ...what, reason, validateOnly });
    const response = await connection.admin.revokeSessions(request, connection.deadline());
    made.push(response);
    if (options.output === "table") output.data(lineOf(request, response, output));
    else if (options.output === "name") output.data(`${response.name}\n`);
  }
  const revocations = made.map((response) => toJson(RevokeSessionsResponseSchema, response));
  if (options.output === "json") output.data(json({ revocations }));
  if (options.output === "yaml") output.data(stringify({ revocations }));
  const version = made.at(-1)?.version; // holds the others too
  if (validateOnly || version === undefined || options.wait === undefined) return exitCodes.ok;
  await noteDisconnected(connection, output);
  await waitForProxies({ connection, version, timeoutMs: options.wait, sinceMs, reachesHeld: true, output });
  return exitCodes.ok;
}

/** They are not waited for, and one that lost only its control plane serves on. */
async function noteDisconnected(connection: Connection, output: Output): Promise<void> {
  const { proxies } = await connection.admin.listProxies({}, connection.deadline());
  const gone = proxies.filter(({ state }) => state === ProxyState.DISCONNECTED).map(({ node }) => node?.id ?? "");
  if (gone.length === 0) return;
  output.note(`${plain(`not connected: ${gone.join(", ")}; what still runs of these hears of it when it connects again`)}\n`);
}

/** Everything that is wrong with what was named. */
function problemsOf(keys: readonly string[], { issuer, subject, all, virtualServer }: SessionRevokeOptions): string[] {
  const named = [keys.length > 0 && "KEY", subject !== undefined && "--subject", all && "--all"].filter((word) => word !== false);
  const problems: string[] = [];
  if (named.length === 0) problems.push("say which sessions: KEY, --subject or --all");
  if (named.length > 1) problems.push(`${named.join(" and ")} exclude each other`);
  if (issuer !== undefined && subject === undefined) problems.push("--issuer goes with --subject");
  if (virtualServer !== undefined && !all) problems.push("--virtual-server goes with --all");
  for (const [flag, value] of Object.entries({ "--issuer": issuer, "--subject": subject, "--virtual-server": virtualServer }))
    if (value === "") problems.push(`${flag} is empty`);
  return [...problems, ...keys.flatMap((key) => keyProblem(key) ?? [])];
}

/**
 * The keys that are meant, each once. Whole ones are taken as they are, so that they work while proxies are away. Throws ExitError 1
 * with all that mean no session or several.
 */
async function resolveKeys(connection: Connection, texts: readonly string[], output: Output): Promise<string[]> {
  const keys = new Set<string>();
  const problems: string[] = [];
  for (const text of new Set(texts)) {
    if (isWholeKey(text)) {
      keys.add(text);
      continue;
    }
    const request = { keyPrefix: text, limit: shownMax };
    const { sessions, missing, hasMore } = await connection.admin.listSessions(request, connection.deadline());
    const [first, ...others] = sessions.map(({ key }) => key);
    const why = missing.length > 0 ? ` (${missingText(missing)})` : "";
    if (first === undefined) problems.push(`no session has a key that begins with ${text}${why}`);
    else if (others.length > 0)
      problems.push(`${text} begins several keys: ${[first, ...others].join(", ")}${hasMore ? ", …" : ""}`);
    else {
      if (why !== "") output.note(`${text} is taken for ${first}${why}\n`);
      keys.add(first);
    }
  }
  if (problems.length > 0) throw new ExitError(exitCodes.failure, problems.join("\n"));
  return [...keys];
}

function lineOf(request: RevokeSessionsRequest, { name }: RevokeSessionsResponse, output: Output): string {
  const { session, issuer, subject, virtualServer, validateOnly } = request;
  const whose = subject === "" ? (virtualServer === "" ? "" : ` of ${virtualServer}`) : ` of ${subject}`;
  const what = session === "" ? `${subject === "" ? "all " : ""}sessions${whose}` : `session ${session}`;
  const of = issuer === "" ? "" : ` from ${issuer}`;
  return `${plain(what + of)} ${output.paint("red", "revoked")}, ${name}${validateOnly ? " (dry run)" : ""}\n`;
}
