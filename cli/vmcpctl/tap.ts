// `vmcpctl tap`: calls as they end, on all proxies.
import { toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { TapCallsResponse } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { type CallEvent, CallEventSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type CallFilterOptions, callFilter, noteAsked } from "./call-filter.ts";
import type { GlobalOptions } from "./connection.ts";
import { followEveryPlane } from "./every-plane.ts";
import type { Output } from "./output.ts";
import { bytesText, msText, plain } from "./table.ts";

export interface TapOptions extends GlobalOptions, CallFilterOptions {
  readonly output: "table" | "json";
  /** One in so many. */
  readonly sample: number;
  /** At most so many a second. */
  readonly rate: number;
  /** Ends after so many. */
  readonly limit?: number | undefined;
  /** Ends after so long, milliseconds. */
  readonly for?: number | undefined;
}

/** Runs until interrupted (130), or until the limit or the time is reached (0). */
export async function tap(options: TapOptions, output: Output): Promise<number> {
  const { sample, rate: perSecond, limit = Number.POSITIVE_INFINITY } = options;
  const done = new AbortController();
  const timer = options.for === undefined ? undefined : setTimeout(() => done.abort(), options.for);
  let shown = 0;
  let hasHeadings = false;

  function show(proxy: string, event: CallEvent): void {
    if (shown >= limit) return;
    if (options.output === "json") {
      output.data(`${JSON.stringify({ proxy, ...(toJson(CallEventSchema, event) as object) })}\n`);
    } else {
      if (!hasHeadings) output.data(headings);
      hasHeadings = true;
      output.data(lineOf(proxy, event, output));
    }
    shown += 1;
    if (shown >= limit) done.abort();
  }

  try {
    return await followEveryPlane<TapCallsResponse>(options, output, {
      open: (admin) => admin.tapCalls({ filter: callFilter(options), sample, perSecond }),
      onMessage({ proxy, events, leftOut, asked, unable }) {
        noteAsked({ asked, unable }, output);
        for (const event of events) show(proxy, event);
        if (leftOut > 0n) output.note(plain(`${proxy}: ${leftOut} more, too many to show; see --sample and --rate`).concat("\n"));
      },
      done: done.signal,
    });
  } finally {
    clearTimeout(timer);
  }
}

const widths = [12, 10, 10, 11, 24, 12, 20, 9, 8, 8];
const headings = lineFrom(["TIME", "PROXY", "SERVER", "METHOD", "NAME", "WORKLOAD", "OUTCOME", "TOOK", "IN", "OUT", "WHO"]);

function lineOf(proxy: string, event: CallEvent, { paint }: Output): string {
  const { time, target, outcome, duration, requestBytes, responseBytes, identity } = event;
  const line = lineFrom([
    time ? timestampDate(time).toISOString().slice(11, 23) : "",
    ...[proxy, target?.virtualServer ?? "", target?.method ?? "", target?.name ?? "", target?.workload ?? "", outcome],
    msText(duration ? Number(duration.seconds) * 1_000 + duration.nanos / 1e6 : 0),
    ...[bytesText(requestBytes), bytesText(responseBytes), identity],
  ]);
  return outcome === "ok" ? line : paint(outcome === "tool_error" ? "yellow" : "red", line.trimEnd()).concat("\n");
}

/** In columns whose width is known before what is in them. */
function lineFrom(cells: readonly string[]): string {
  return `${cells
    .map((cell, at) => (plain(cell) || "-").padEnd(widths[at] ?? 0))
    .join("  ")
    .trimEnd()}\n`;
}
