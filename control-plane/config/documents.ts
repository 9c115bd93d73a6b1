// One YAML document → the resources it declares. Without `kind` it is a whole virtual server, as the original has it.
import { randomUUID } from "node:crypto";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { inspect, type SpecKind } from "../resources/inspect.ts";
import { didYouMean } from "../resources/nearest.ts";
import type { Problem } from "../resources/problems.ts";
import type { Declared } from "../resources/references.ts";
import type { Plain } from "./plain.ts";

export interface DocumentResult {
  /** Paths are those of the document. */
  readonly problems: readonly Problem[];
  /** Empty when the document has errors in its shape. */
  readonly resources: readonly Resource[];
  readonly declared: readonly Declared[];
}

const documentKinds = {
  Group: "groupDocument",
  Backend: "backendDocument",
  VirtualServer: "virtualServer",
  AuthPolicy: "policyDocument",
} as const;

export function readDocument(plain: Plain): DocumentResult {
  const { value } = plain;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const seen = Array.isArray(value) ? "a list" : "plain text";
    return failed({
      severity: "error",
      message: `found ${seen}, wanted a map of keys such as name, groupRef and incomingAuth`,
      hint: 'begin with "name: my-vmcp"',
      path: [],
    });
  }
  const { kind, ...spec } = value as Record<string, unknown>;
  if ("kind" in value && !(typeof kind === "string" && Object.hasOwn(documentKinds, kind))) {
    const hint = elsewhereHint(kind) ?? didYouMean(kind, Object.keys(documentKinds));
    return failed({
      severity: "error",
      message: `found kind ${JSON.stringify(kind)?.slice(0, 80)}, wanted one of ${Object.keys(documentKinds).join(", ")}`,
      ...(hint !== undefined && { hint }),
      path: ["kind"],
    });
  }
  const isPlainFile = kind === undefined;
  const documentKind = isPlainFile ? "virtualServer" : documentKinds[kind as keyof typeof documentKinds];
  const inspected = inspect(documentKind, spec, (path) => plain.spot(path)?.written);
  const name = nameOf(documentKind, inspected.part);
  const problems = inspected.problems.map((problem) => ({ ...problem, ...(name !== undefined && { resource: name }) }));
  const isReported = inspected.isMeant(["groupRef"]) || problems.some(({ path }) => path[0] === "groupRef");
  if (isPlainFile && isMissing(inspected.part, "groupRef") && !isReported) {
    problems.push({
      severity: "error",
      message: 'key "groupRef" is missing',
      hint: "the name of the group; wanted even when backends are listed here",
      path: ["groupRef"],
      ...(name !== undefined && { resource: name }),
    });
  }
  const declared = declaredBy(documentKind, name, inspected.part);
  if (inspected.json === undefined || name === undefined) return { problems, resources: [], declared };
  return { problems, declared, resources: resourcesOf(documentKind, name, inspected.json as Record<string, JsonValue>) };
}

function failed(problem: Problem): DocumentResult {
  return { problems: [problem], resources: [], declared: [] };
}

function elsewhereHint(kind: unknown): string | undefined {
  if (kind === "Revocation") return "sessions are revoked with vmcpctl session revoke, and not declared";
  return typeof kind === "string" && /^(Virtual)?MCP/.test(kind)
    ? "Kubernetes resources are not read from files; take what is below spec.config"
    : undefined;
}

/** What has no name, or a wrong one, still names others; it gets a name that nobody can name. */
export const namelessPrefix = "#";

function isMissing(part: unknown, key: string): boolean {
  return (part as Record<string, unknown> | undefined)?.[key] === undefined;
}

type DocumentKind = (typeof documentKinds)[keyof typeof documentKinds];

function nameOf(kind: DocumentKind, part: unknown): string | undefined {
  const { name, group } = (part ?? {}) as { name?: string; group?: string };
  if (name === undefined) return undefined;
  if (kind === "groupDocument") return `groups/${name}`;
  if (kind === "policyDocument") return `authPolicies/${name}`;
  if (kind === "virtualServer") return `virtualServers/${name}`;
  return group === undefined ? undefined : `groups/${group}/backends/${name}`;
}

function declaredBy(kind: DocumentKind, name: string | undefined, part: unknown): Declared[] {
  const specKind: SpecKind = (
    { groupDocument: "group", backendDocument: "backend", policyDocument: "authPolicy", virtualServer: "virtualServer" } as const
  )[kind];
  const self: Declared = { name: name ?? namelessPrefix + randomUUID(), kind: specKind, part };
  if (kind !== "groupDocument" || name === undefined) return [self];
  const { backends = [] } = (part ?? {}) as { backends?: readonly ({ name?: string } | undefined)[] };
  const members = backends.map((entry) => ({
    name: `${name}/backends/${entry?.name ?? ""}`,
    kind: "backend" as const,
    part: entry,
  }));
  return [self, ...members];
}

function resourcesOf(kind: DocumentKind, name: string, json: Record<string, JsonValue>): Resource[] {
  const resource = (at: string, field: SpecKind, spec: JsonValue) => fromJson(ResourceSchema, { name: at, [field]: spec });
  if (kind === "virtualServer") return [resource(name, "virtualServer", json)];
  const { name: _, group: __, backends = [], ...spec } = json;
  if (kind === "backendDocument") return [resource(name, "backend", { ...spec, name: json.name ?? "" })];
  if (kind === "policyDocument") return [resource(name, "authPolicy", spec)];
  const members = (backends as { name: string }[]).map((entry) => resource(`${name}/backends/${entry.name}`, "backend", entry));
  return [resource(name, "group", spec), ...members];
}
