// `vmcpctl get tools|prompts|resources`: what the clients of a virtual server see, and what decided each name.

import { stringify } from "yaml";
import type { ViewEntry } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { exitCodes } from "../exit-codes.ts";
import type { Connection } from "./connection.ts";
import type { AnyKind } from "./kinds.ts";
import { type Format, json, type Output } from "./output.ts";
import { table } from "./table.ts";

export interface ViewOptions {
  readonly connection: Connection;
  readonly kind: Extract<AnyKind, "tools" | "prompts" | "resources">;
  /** Only the entry that clients call this, or that its backend calls this. */
  readonly name: string | undefined;
  readonly virtualServer: string | undefined;
  readonly format: Format;
  readonly output: Output;
}

interface Row {
  readonly virtualServer: string;
  readonly kind: string;
  /** Empty when clients don't see it. */
  readonly exposed: string;
  readonly backend: string;
  readonly original: string;
  readonly decidedBy: string;
}

const entryKinds = { tools: ["tool"], prompts: ["prompt"], resources: ["resource", "template"] } as const;

/** Returns the exit code: 1 when a named entry does not exist. */
export async function getView({ connection, kind, name, virtualServer = "", format, output }: ViewOptions): Promise<number> {
  const { views, proxy } = await connection.admin.listView({ virtualServer }, connection.deadline());
  const wanted: readonly string[] = entryKinds[kind];
  const rows = views.flatMap((view) =>
    view.entries
      .filter((entry) => wanted.includes(entry.kind) && (name === undefined || entry.exposed === name || entry.original === name))
      .map((entry) => rowOf(view.virtualServer, entry)),
  );
  if (format === "json") output.data(json({ proxy, [kind]: rows }));
  else if (format === "yaml") output.data(stringify({ proxy, [kind]: rows }, { lineWidth: 0 }));
  else if (format === "name")
    output.data(
      rows
        .filter(({ exposed }) => exposed !== "")
        .map(({ exposed }) => `${exposed}\n`)
        .join(""),
    );
  else writeTable(rows, { kind, output, severalServers: views.length > 1 });
  if (proxy === "") output.note("no connected proxy has reported yet what clients see\n");
  return name !== undefined && rows.length === 0 ? exitCodes.failure : exitCodes.ok;
}

function writeTable(rows: readonly Row[], options: { kind: ViewOptions["kind"]; output: Output; severalServers: boolean }): void {
  const { kind, output, severalServers } = options;
  const exposed = kind === "resources" ? "URI" : "NAME";
  const headings = [exposed, "BACKEND", "ORIGINAL", "DECIDED BY"];
  const cells = rows.map((row) => [row.exposed === "" ? "(hidden)" : row.exposed, row.backend, row.original, row.decidedBy]);
  if (!severalServers) output.data(table(headings, cells));
  else
    output.data(
      table(
        ["SERVER", ...headings],
        cells.map((row, at) => [rows[at]?.virtualServer ?? "", ...row]),
      ),
    );
}

function rowOf(virtualServer: string, { kind, exposed, backend, original, decidedBy }: ViewEntry): Row {
  return { virtualServer, kind, exposed, backend, original, decidedBy };
}
