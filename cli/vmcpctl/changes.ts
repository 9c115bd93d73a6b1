// What an apply or delete changes, for people.
import type { ResourceChange } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { toYaml } from "./documents.ts";
import { type DiffLine, lineDiff, withContext } from "./line-diff.ts";
import type { Output } from "./output.ts";
import { plain } from "./table.ts";

export function isChange({ action }: Pick<ResourceChange, "action">): boolean {
  return action !== "unchanged";
}

/** The YAML of every changed resource, before against after. */
export function writeDiff(changes: readonly ResourceChange[], output: Output): void {
  for (const { name, action, before, after } of changes.filter(isChange)) {
    output.data(`${output.paint("bold", `${name} (${action})`)}\n`);
    const diff = lineDiff(before ? toYaml([before]) : "", after ? toYaml([after]) : "");
    for (const line of withContext(diff)) output.data(`${painted(line, output)}\n`);
  }
}

/** One line per resource: `virtualServers/dev updated`. */
export function writeActions(
  changes: readonly Pick<ResourceChange, "name" | "action">[],
  options: { output: Output; dryRun: boolean },
): void {
  const { output, dryRun } = options;
  for (const { name, action } of changes) {
    const done = pastTense[action] ?? action;
    output.data(`${name} ${output.paint(colours[action] ?? "dim", done)}${dryRun ? " (dry run)" : ""}\n`);
  }
}

/** `2 create, 1 update`; `nothing changes` when nothing does. */
export function summaryOf(changes: readonly ResourceChange[]): string {
  const counts = ["create", "update", "delete"].map(
    (action) => [changes.filter((one) => one.action === action).length, action] as const,
  );
  const parts = counts.filter(([count]) => count > 0).map(([count, action]) => `${count} ${action}`);
  return parts.length > 0 ? parts.join(", ") : "nothing changes";
}

const pastTense: Readonly<Record<string, string>> = { create: "created", update: "updated", delete: "deleted" };

const colours: Readonly<Record<string, "green" | "yellow" | "red">> = { create: "green", update: "yellow", delete: "red" };

function painted({ sign, text }: DiffLine, output: Output): string {
  const line = `${sign} ${plain(text)}`;
  return sign === "+" ? output.paint("green", line) : sign === "-" ? output.paint("red", line) : output.paint("dim", line);
}
