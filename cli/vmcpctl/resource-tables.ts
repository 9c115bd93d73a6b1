// One table per kind of declared resource.
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { BackendRow } from "./backends.ts";
import { age, table } from "./table.ts";

export function groupTable(groups: readonly Resource[], backends: readonly Resource[], nowMs: number): string {
  const rows = groups.map(({ name, spec, revision, createTime }) => {
    const members = backends.filter((backend) => backend.name.startsWith(`${name}/`)).length;
    const description = spec.case === "group" ? spec.value.description : "";
    const declared = revision > 0n ? `r${revision}` : "discovered";
    return [shortName(name), String(members), declared, age(ms(createTime), nowMs), description];
  });
  return table(["NAME", "BACKENDS", "REVISION", "AGE", "DESCRIPTION"], rows);
}

export function virtualServerTable(servers: readonly Resource[], nowMs: number): string {
  const rows = servers.flatMap(({ name, spec, revision, createTime }) => {
    if (spec.case !== "virtualServer") return [];
    const { groupRef, backends, aggregation, incomingAuth, authPolicyRef } = spec.value;
    const from = backends.length > 0 ? `${backends.length} of its own` : `group ${groupRef}`;
    const auth = authPolicyRef === "" ? (incomingAuth?.type ?? "") : `policy ${authPolicyRef}`;
    return [
      [shortName(name), from, aggregation?.conflictResolution || "prefix", auth, `r${revision}`, age(ms(createTime), nowMs)],
    ];
  });
  return table(["NAME", "BACKENDS", "STRATEGY", "AUTH", "REVISION", "AGE"], rows);
}

export function authPolicyTable(policies: readonly Resource[], nowMs: number): string {
  const rows = policies.flatMap(({ name, spec, revision, createTime }) => {
    if (spec.case !== "authPolicy") return [];
    const { incomingAuth, outgoingAuth } = spec.value;
    const outgoing = outgoingAuth?.default?.type || "unauthenticated";
    return [[shortName(name), incomingAuth?.type ?? "", outgoing, `r${revision}`, age(ms(createTime), nowMs)]];
  });
  return table(["NAME", "INCOMING", "OUTGOING", "REVISION", "AGE"], rows);
}

export function revocationTable(revocations: readonly Resource[], nowMs: number): string {
  const rows = revocations.flatMap(({ name, spec, revision, createTime }) => {
    if (spec.case !== "revocation") return [];
    const { session, issuer, subject, virtualServer, reason } = spec.value;
    const what = session === "" ? (subject === "" ? "all sessions" : `subject ${subject}`) : `session ${session}`;
    const within = [issuer, virtualServer].filter((part) => part !== "").map((part) => ` of ${part}`);
    return [[shortName(name), what + within.join(""), `r${revision}`, age(ms(createTime), nowMs), reason]];
  });
  return table(["NAME", "REVOKES", "EPOCH", "AGE", "REASON"], rows);
}

export function backendTable(rows: readonly BackendRow[]): string {
  const cells = rows.map(({ name, transport, state, era, tools, resources, prompts, address }) => {
    const counts = state === "" ? ["", "", ""] : [tools, resources, prompts].map(String);
    return [name, transport, state, era, ...counts, address];
  });
  return table(["NAME", "TRANSPORT", "STATE", "ERA", "TOOLS", "RESOURCES", "PROMPTS", "ADDRESS"], cells);
}

/** Without the collection: what commands take as NAME. */
function shortName(name: string): string {
  return name.slice(name.indexOf("/") + 1);
}

function ms(time: Timestamp | undefined): number | undefined {
  return time === undefined ? undefined : timestampMs(time);
}
