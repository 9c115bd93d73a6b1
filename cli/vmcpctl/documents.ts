// Resources as the YAML that `vmcpctl apply` takes back; revocations, which are not applied, in the same form.
import { toJson } from "@bufbuild/protobuf";
import { stringify } from "yaml";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { GroupSchema } from "../../proto/gen/vmcp/resource/v1/group_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { RevocationSchema } from "../../proto/gen/vmcp/resource/v1/revocation_pb.ts";
import { AuthPolicySchema, VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";

/** One document, `kind` first. */
function toDocument({ name, spec }: Resource): Record<string, unknown> {
  const parts = name.split("/");
  const last = parts.at(-1) ?? "";
  switch (spec.case) {
    case "group":
      return { kind: "Group", name: last, ...asObject(toJson(GroupSchema, spec.value)) };
    case "backend":
      return { kind: "Backend", group: parts[1], ...asObject(toJson(BackendSchema, spec.value)) };
    case "virtualServer":
      return { kind: "VirtualServer", ...asObject(toJson(VirtualServerSchema, spec.value)) };
    case "authPolicy":
      return { kind: "AuthPolicy", name: last, ...asObject(toJson(AuthPolicySchema, spec.value)) };
    case "revocation":
      return { kind: "Revocation", name: last, ...asObject(toJson(RevocationSchema, spec.value)) };
    default:
      return { name };
  }
}

/** Several documents, separated as YAML wants it; ends with a newline. */
export function toYaml(resources: readonly Resource[]): string {
  return resources.map((resource) => stringify(toDocument(resource), yamlOptions)).join("---\n");
}

// Maps come out sorted, so that two servers print the same text for the same resource; `kind` and `name` lead.
const yamlOptions = {
  lineWidth: 0,
  sortMapEntries: (a: { key: unknown }, b: { key: unknown }) =>
    rank(a.key) - rank(b.key) || (keyOf(a.key) < keyOf(b.key) ? -1 : 1),
};

const leading = ["kind", "name", "group", "workload"];

function rank(key: unknown): number {
  const at = leading.indexOf(keyOf(key));
  return at < 0 ? leading.length : at;
}

function keyOf(key: unknown): string {
  return typeof key === "object" && key !== null && "value" in key ? String(key.value) : String(key);
}

function asObject(json: unknown): Record<string, unknown> {
  return typeof json === "object" && json !== null ? { ...json } : {};
}
