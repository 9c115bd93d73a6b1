// What differs, field by field, for people.
import { type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { stringify } from "yaml";
import { type Difference, resourceDifferences } from "../../control-plane/index.ts";
import type { ResourceChange } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { DiffResourcesResponse, ResourceDiff } from "../../proto/gen/vmcp/admin/v1/diff_pb.ts";
import { isChange } from "./changes.ts";
import type { Output } from "./output.ts";
import { plain } from "./table.ts";

/** As the control plane found them. */
export function writeDiffs(diffs: readonly ResourceDiff[], output: Output): void {
  for (const { name, action, fields } of diffs) {
    const values = fields.map(({ path, hasSecret, before, after }) => ({
      path,
      hasSecret,
      before: jsonOf(before),
      after: jsonOf(after),
    }));
    writeOne({ name, action, fields: values }, output);
  }
}

/** Of what was committed, or would be. */
export function writeChanges(changes: readonly ResourceChange[], output: Output): void {
  for (const { name, action, before, after } of changes.filter(isChange))
    writeOne({ name, action, fields: resourceDifferences(before, after) }, output);
}

/** `2 create, 1 update, 0 delete; affects 12 proxies`. */
export function effectOf({ diffs, proxies }: Pick<DiffResourcesResponse, "diffs" | "proxies">): string {
  const count = (wanted: string) => diffs.filter(({ action }) => action === wanted).length;
  const counts = ["create", "update", "delete"].map((action) => `${count(action)} ${action}`);
  if (!diffs.some(isChange)) return "nothing changes";
  const affected = proxies.length === 0 ? "no proxy" : `${proxies.length} ${proxies.length === 1 ? "proxy" : "proxies"}`;
  return `${counts.join(", ")}; affects ${affected}`;
}

interface Shown {
  readonly name: string;
  readonly action: string;
  readonly fields: readonly Difference[];
}

/** Its name, what happens to it, and every field before and after. */
function writeOne({ name, action, fields }: Shown, output: Output): void {
  output.data(`${output.paint("bold", `${plain(name)} (${action})`)}\n`);
  for (const field of fields) {
    for (const line of linesOf(field, field.before)) output.data(`${output.paint("red", `- ${line}`)}\n`);
    for (const line of linesOf(field, field.after)) output.data(`${output.paint("green", `+ ${line}`)}\n`);
  }
}

/** As it would stand in a file, but for the path in place of the nesting. */
function linesOf({ path, before, after, hasSecret }: Difference, value: JsonValue | undefined): string[] {
  if (value === undefined) return [];
  const text = stringify(value, { lineWidth: 0 }).trimEnd();
  const isBlock = typeof value === "object" && value !== null && Object.keys(value).length > 0;
  // Two masks look alike.
  const note = hasSecret && before !== undefined && after !== undefined && !isBlock ? "  # secret, it changes" : "";
  return isBlock ? [`${path}:`, ...text.split("\n").map((line) => `  ${line}`)].map(plain) : [plain(`${path}: ${text}${note}`)];
}

function jsonOf(value: Value | undefined): JsonValue | undefined {
  return value && toJson(ValueSchema, value);
}
