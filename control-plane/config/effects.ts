// What is declared and has no effect yet, so that nobody is fooled. A line leaves this file when its feature arrives.
import { toJson } from "@bufbuild/protobuf";
import type { Backend } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { OutgoingAuthStrategy } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { AuthPolicy, VirtualServer } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import type { Problem } from "../resources/problems.ts";

type Path = Problem["path"];
type Report = (path: Path, message: string, severity?: "warning" | "refused", hint?: string) => void;

/** Warnings for what has no effect, refusals for what must not be served without it. Never errors. */
export function effectsOf(resource: Resource): Problem[] {
  const problems: Problem[] = [];
  const report: Report = (path, message, severity = "warning", hint) => {
    problems.push({ severity, message, ...(hint !== undefined && { hint }), resource: resource.name, path });
  };
  const { spec } = resource;
  if (spec.case === "backend") backendEffects(spec.value, [], report);
  if (spec.case === "authPolicy") authEffects(spec.value, report);
  if (spec.case === "virtualServer") {
    authEffects(spec.value, report);
    spec.value.backends.forEach((backend, index) => {
      backendEffects(backend, ["backends", index], report);
    });
    sectionEffects(spec.value, presentKeys(resource), report);
  }
  return problems;
}

const later = "has no effect in this version";

const sections: readonly (readonly [key: string, what: string])[] = [
  ["compositeTools", `compositeTools ${later}: the workflows are not listed as tools`],
  ["compositeToolRefs", `compositeToolRefs ${later}`],
  ["telemetry", `telemetry ${later}: nothing is exported`],
  ["audit", `audit ${later}: no audit log is written`],
  ["optimizer", `optimizer ${later}: all tools are listed`],
  ["codeMode", `codeMode ${later}`],
  ["rateLimiting", `rateLimiting ${later}: calls are not limited`],
];

function sectionEffects(server: VirtualServer, present: (...path: string[]) => boolean, report: Report): void {
  for (const [key, message] of sections) {
    if (!present(key)) continue;
    if (key === "codeMode" && server.codeMode?.enabled !== true) continue;
    if (key === "audit" && server.audit?.enabled === false) continue;
    report([key], message);
  }
  if (server.sessionStorage?.provider === "redis") {
    const message = "sessionStorage is followed by `vmcp serve`; proxies of a mesh are told with --redis";
    report(["sessionStorage", "provider"], message);
  }
  if (present("operational", "logLevel"))
    report(["operational", "logLevel"], `logLevel ${later}`, "warning", "set the environment variable VMCP_LOG_LEVEL");
  server.aggregation?.tools.forEach((entry, index) => {
    if (entry.toolConfigRef !== undefined) report(["aggregation", "tools", index, "toolConfigRef"], `toolConfigRef ${later}`);
  });
}

function backendEffects(backend: Backend, path: Path, report: Report): void {
  if (backend.type === "entry") report([...path, "type"], `type entry ${later}`);
  if (backend.caBundlePath !== "")
    report([...path, "caBundlePath"], `caBundlePath ${later}: the server is verified with the authorities that Node.js trusts`);
}

function authEffects(
  { incomingAuth, outgoingAuth }: Pick<VirtualServer | AuthPolicy, "incomingAuth" | "outgoingAuth">,
  report: Report,
): void {
  // Without the policies the endpoint would let everybody do what was meant to be kept from them.
  if (incomingAuth?.authz?.type === "cedar") {
    report(
      ["incomingAuth", "authz", "type"],
      "cedar policies are not enforced in this version, and the endpoint will not be served open instead",
      "refused",
      "remove authz if everybody may call everything",
    );
  }
  if (outgoingAuth?.source === "discovered")
    report(["outgoingAuth", "source"], `source discovered ${later}: strategies are taken from this file`);
  if (outgoingAuth?.default !== undefined)
    strategyEffects(outgoingAuth.default, ["outgoingAuth", "default"], "backends without an entry of their own", report);
  for (const [name, strategy] of Object.entries(outgoingAuth?.backends ?? {})) {
    strategyEffects(strategy, ["outgoingAuth", "backends", name], `backend ${JSON.stringify(name)}`, report);
  }
}

const unavailable: ReadonlySet<string> = new Set(["upstream_inject", "aws_sts", "xaa", "obo"]);

function strategyEffects({ type, tokenExchange }: OutgoingAuthStrategy, path: Path, whom: string, report: Report): void {
  if (unavailable.has(type))
    report([...path, "type"], `outgoing auth ${type} is not available in this version; calls to ${whom} are refused until it is`);
  if (tokenExchange !== undefined && tokenExchange.subjectProviderName !== "") {
    report(
      [...path, "tokenExchange", "subjectProviderName"],
      `subjectProviderName ${later}: the token of the caller is exchanged, since the gateway stores none of upstream providers`,
    );
  }
}

/** Which keys are set, as proto JSON has them. */
function presentKeys(resource: Resource): (...path: string[]) => boolean {
  const json = toJson(ResourceSchema, resource) as { virtualServer?: unknown };
  return (...path) => {
    let value: unknown = json.virtualServer;
    for (const key of path)
      value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
    return value !== undefined;
  };
}
