// What an apply or delete changes, for people.
import type { ResourceChange } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { Output } from "./output.ts";

export function isChange({ action }: Pick<ResourceChange, "action">): boolean {
  return action !== "unchanged";
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
