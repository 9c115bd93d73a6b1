// The operator's rules for the tools of one backend: other names and texts, and which are listed at all.
import type { Aggregation, ToolAnnotations, ToolOverride } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import type { CatalogItem } from "../backends/catalog.ts";
import { member, withMembers } from "../mcp/scan.ts";

/** Why a tool is not listed; undefined when it is. */
export function hiddenBy(aggregation: Aggregation, backend: string, wanted: string): "excluded" | "filter" | undefined {
  if (aggregation.excludeAllTools) return "excluded";
  const rules = aggregation.tools.find(({ workload }) => workload === backend);
  if (!rules) return aggregation.defaultToolVisibility === "deny" ? "excluded" : undefined;
  if (rules.excludeAll) return "excluded";
  return rules.filter.length > 0 && !rules.filter.includes(wanted) ? "filter" : undefined;
}

/** The override of one tool. */
export function overrideOf(aggregation: Aggregation, backend: string, original: string): ToolOverride | undefined {
  const overrides = aggregation.tools.find(({ workload }) => workload === backend)?.overrides;
  return overrides && Object.hasOwn(overrides, original) ? overrides[original] : undefined;
}

/** The tool as clients see it under its exposed name; whatever is not overridden keeps the backend's bytes. */
export function exposeTool(item: CatalogItem, exposed: string, override: ToolOverride | undefined): Buffer {
  const replacements: Record<string, Buffer | string> = {};
  if (exposed !== item.key) replacements.name = JSON.stringify(exposed);
  if (override?.description) replacements.description = JSON.stringify(override.description);
  if (override?.annotations) replacements.annotations = mergeAnnotations(item.json, override.annotations);
  return Object.keys(replacements).length > 0 ? withMembers(item.json, replacements) : item.json;
}

function mergeAnnotations(
  tool: Buffer,
  { title, readOnlyHint, destructiveHint, idempotentHint, openWorldHint }: ToolAnnotations,
): Buffer {
  const span = member(tool, 0, "annotations");
  const present = span && tool[span.start] === 0x7b ? tool.subarray(span.start, span.end) : Buffer.from("{}");
  const set = Object.entries({ title, readOnlyHint, destructiveHint, idempotentHint, openWorldHint }).filter(
    ([, value]) => value !== undefined,
  );
  return withMembers(present, Object.fromEntries(set.map(([key, value]) => [key, JSON.stringify(value)])));
}
