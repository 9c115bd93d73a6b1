// Why a proxy refused a version, in words: which resource, which field.
import { createRegistry } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { BadRequestSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import type { Proxy as ProxyRow } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { NackReason } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { plain } from "./table.ts";

/** What the details of a refusal may be: toJson needs it wherever a proxy is shown. */
export const refusalTypes = createRegistry(BadRequestSchema);

/** Who refused what; then a line for each violated field, or the message when none is named. */
export function nackText({ node, lastNack }: ProxyRow): string {
  if (lastNack === undefined) return "";
  const { version, reason, error } = lastNack;
  const violations = (error?.details ?? []).flatMap((any) => anyUnpack(any, BadRequestSchema)?.fieldViolations ?? []);
  const fields = violations.map(({ field, description }) => `${field}: ${description}`);
  const lines = fields.length > 0 ? fields : [error?.message || reasonName(reason)];
  return [`${node?.id ?? "?"} refused ${version}:`, ...lines.map((line) => `  ${line}`)].map(plain).join("\n");
}

/** `INVALID_RESOURCE`. */
function reasonName(reason: NackReason): string {
  return Object.entries(NackReason).find(([, value]) => value === reason)?.[0] ?? String(reason);
}
