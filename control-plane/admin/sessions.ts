// Client sessions: which there are, and which are over.
import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { ListSessionsRequest, RevokeSessionsRequest } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Fleet, FleetSessions } from "../push/fleet.ts";
import { isRevocationName } from "../resource-names.ts";
import { formatPath } from "../resources/problems.ts";
import { validateResources } from "../resources/validate.ts";
import type { Change, Listing } from "../store/store.ts";
import { notFound } from "./declare.ts";
import type { Edited } from "./edit.ts";
import { AdminError } from "./errors.ts";
import { invalid } from "./requests.ts";
import type { Write } from "./write.ts";

// The longest a session may live, so that none which a revocation meant is left.
const keptMs = 24 * 60 * 60_000;

const revocationsMax = 10_000;
const limitDefault = 100;
const limitMax = 1000;

/** Commits one revocation, and forgets those that have done their work. */
export function revoke(request: RevokeSessionsRequest, nowMs: () => number) {
  check(request);

  function plan(present: Listing): Change[] {
    const { virtualServer } = request;
    if (virtualServer !== "" && !present.resources.some(({ name }) => name === `virtualServers/${virtualServer}`)) {
      throw notFound(`virtualServers/${virtualServer}`);
    }
    const revocations = present.resources.filter(({ name }) => isRevocationName(name));
    const past = revocations.filter(({ createTime }) => createTime && nowMs() - timestampMs(createTime) > keptMs);
    if (revocations.length - past.length >= revocationsMax) throw tooMany();
    // No other commit has this number, so no other revocation has this name.
    const name = `revocations/r${present.revision + 1n}`;
    return [
      ...past.map((resource) => ({ name: resource.name, resource: undefined })),
      { name, resource: toResource(name, request) },
    ];
  }

  return {
    plan,
    reason: `revoke ${whatIsRevoked(request)}${request.reason === "" ? "" : `: ${request.reason}`}`,
    targets: [],
    isOperation: true,
    toAnswer({ revision, version, changes }: Edited) {
      return { revision, version, name: changes.find(({ after }) => after !== undefined)?.name ?? "" };
    },
  } satisfies Write<unknown>;
}

/** Asks the proxies. Throws AdminError when the request is not valid, or when too many ask. */
export async function listSessions(fleet: Fleet, request: ListSessionsRequest): Promise<FleetSessions> {
  const { virtualServer, subject, keyPrefix, limit } = request;
  if (limit < 0) throw invalid([{ field: "limit", description: `${limit} is negative` }]);
  const filter = { virtualServer, subject, keyPrefix, limit: limit === 0 ? limitDefault : Math.min(limit, limitMax) };
  const answer = fleet.sessions(filter);
  if (answer === undefined) throw new AdminError("BUSY", "too many ask for sessions at once; try again");
  return await answer;
}

function toResource(name: string, request: RevokeSessionsRequest): Resource {
  const { session, issuer, subject, all, virtualServer, reason } = request;
  return create(ResourceSchema, {
    name,
    spec: { case: "revocation", value: { session, issuer, subject, all, virtualServer, reason } },
  });
}

/** All violations at once, as those of the request. */
function check(request: RevokeSessionsRequest): void {
  const problems = validateResources([toResource("revocations/new", request)]);
  const violations = problems.map(({ path, message, hint }) => ({
    field: formatPath(path) || "request",
    description: hint === undefined ? message : `${message} (${hint})`,
  }));
  if (violations.length > 0) throw invalid(violations);
}

function whatIsRevoked({ session, issuer, subject, virtualServer }: RevokeSessionsRequest): string {
  if (session !== "") return `session ${session}`;
  if (subject !== "") return `the sessions of ${JSON.stringify(subject)}${issuer === "" ? "" : ` of ${issuer}`}`;
  return virtualServer === "" ? "all sessions" : `all sessions of ${virtualServer}`;
}

function tooMany(): AdminError {
  const message =
    `${revocationsMax} revocations are in force already, and no more are taken: they end after 24 hours; ` +
    `revoke by subject or all at once, or delete some`;
  return new AdminError("TOO_MANY_REVOCATIONS", message, { metadata: { revocations: String(revocationsMax) } });
}
