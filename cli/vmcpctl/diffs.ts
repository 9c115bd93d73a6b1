// Differences as the control plane found them, for people.
import { toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { stringify } from "yaml";
import type { DiffResourcesResponse, FieldDiff, ResourceDiff } from "../../proto/gen/vmcp/admin/v1/diff_pb.ts";
import type { Output } from "./output.ts";
import { plain } from "./table.ts";

/** For each resource its name, what happens to it, and every field before and after. */
export function writeDiffs(diffs: readonly ResourceDiff[], output: Output): void {
  for (const { name, action, fields } of diffs) {
    output.data(`${output.paint("bold", `${plain(name)} (${action})`)}\n`);
    for (const field of fields) {
      for (const line of linesOf(field, field.before)) output.data(`${output.paint("red", `- ${line}`)}\n`);
      for (const line of linesOf(field, field.after)) output.data(`${output.paint("green", `+ ${line}`)}\n`);
    }
  }
}

/** `2 create, 1 update, 0 delete; affects 12 proxies`. */
export function effectOf({ diffs, proxies }: Pick<DiffResourcesResponse, "diffs" | "proxies">): string {
  const count = (wanted: string) => diffs.filter(({ action }) => action === wanted).length;
  const counts = ["create", "update", "delete"].map((action) => `${count(action)} ${action}`);
  if (diffs.every(({ action }) => action === "unchanged")) return "nothing changes";
  const affected = proxies.length === 0 ? "no proxy" : `${proxies.length} ${proxies.length === 1 ? "proxy" : "proxies"}`;
  return `${counts.join(", ")}; affects ${affected}`;
}

/** As it would stand in a file, but for the path in place of the nesting. */
function linesOf({ path, before, after, hasSecret }: FieldDiff, value: Value | undefined): string[] {
  if (value === undefined) return [];
  const json = toJson(ValueSchema, value);
  const text = stringify(json, { lineWidth: 0 }).trimEnd();
  const isBlock = typeof json === "object" && json !== null && Object.keys(json).length > 0;
  // Two masks look alike.
  const note = hasSecret && before !== undefined && after !== undefined && !isBlock ? "  # secret, it changes" : "";
  return isBlock ? [`${path}:`, ...text.split("\n").map((line) => `  ${line}`)].map(plain) : [plain(`${path}: ${text}${note}`)];
}
