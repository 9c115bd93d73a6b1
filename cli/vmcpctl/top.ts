// `vmcpctl top`: what is called most, summed over all proxies. On a terminal it is drawn anew after each interval; elsewhere it is
// printed once, or as often as --count says.
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { SumCallsResponse } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { CallSum } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type CallFilterOptions, callFilter, noteAsked } from "./call-filter.ts";
import type { GlobalOptions } from "./connection.ts";
import { followEveryPlane } from "./every-plane.ts";
import type { Output } from "./output.ts";
import { bytesText, table } from "./table.ts";

export type TopKind = "proxies" | "workloads" | "tools";

export interface TopOptions extends GlobalOptions, CallFilterOptions {
  readonly output: "table" | "json";
  /** Milliseconds. */
  readonly interval: number;
  /** Ends after so many intervals. Default: never on a terminal, else after one. */
  readonly count?: number | undefined;
  readonly limit: number;
}

// Proxies sum over less than what is shown, so that little of an interval comes after its end.
const partMs = 500;

/** Upper bounds of CallSum.durations, milliseconds. */
const boundsMs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000];

interface Row {
  /** What is summed, in as many words as the kind has columns for it. */
  readonly words: readonly string[];
  calls: number;
  failed: number;
  bytesIn: number;
  bytesOut: number;
  readonly durations: number[];
}

const columns: Readonly<Record<TopKind, readonly string[]>> = {
  proxies: ["PROXY"],
  workloads: ["WORKLOAD", "SERVER"],
  tools: ["TOOL", "WORKLOAD", "SERVER"],
};

/** Runs until interrupted (130), or until all intervals are shown (0). */
export async function top(kind: TopKind, options: TopOptions, output: Output): Promise<number> {
  const { interval, output: format } = options;
  const isLive = process.stdout.isTTY && format === "table";
  const count = options.count ?? (isLive ? Number.POSITIVE_INFINITY : 1);
  const done = new AbortController();
  let rows = new Map<string, Row>();
  let shown = 0;

  function show(): void {
    const sorted = [...rows.values()].sort((a, b) => b.calls - a.calls || (a.words.join() < b.words.join() ? -1 : 1));
    const some = sorted.slice(0, options.limit);
    rows = new Map();
    const seconds = interval / 1_000;
    if (format === "json") output.data(`${JSON.stringify({ seconds, [kind]: some.map((row) => rowJson(kind, row)) })}\n`);
    else output.data(`${isLive ? clear : ""}${topTable(kind, some, seconds)}`);
    shown += 1;
    if (shown >= count) done.abort();
  }

  const timer = setInterval(show, interval);
  try {
    return await followEveryPlane<SumCallsResponse>(options, output, {
      open: (admin) => admin.sumCalls({ filter: callFilter(options), over: durationFromMs(partMs) }),
      onMessage({ proxy, sums, asked, unable }) {
        if (!isLive) noteAsked({ asked, unable }, output);
        for (const sum of sums) add(rows, wordsOf(kind, proxy, sum), sum);
      },
      done: done.signal,
    });
  } finally {
    clearInterval(timer);
  }
}

const clear = "\u001b[H\u001b[2J";

/** Undefined: of another kind, as a list is no tool. */
function wordsOf(kind: TopKind, proxy: string, { target }: CallSum): readonly string[] | undefined {
  const { method = "", name = "", workload = "", virtualServer = "" } = target ?? {};
  if (kind === "proxies") return [proxy];
  if (kind === "workloads") return workload === "" ? undefined : [workload, virtualServer];
  return method === "tools/call" && name !== "" ? [name, workload, virtualServer] : undefined;
}

function add(rows: Map<string, Row>, words: readonly string[] | undefined, sum: CallSum): void {
  if (words === undefined) return;
  const key = words.join(" ");
  const row = rows.get(key) ?? { words, calls: 0, failed: 0, bytesIn: 0, bytesOut: 0, durations: [] };
  rows.set(key, row);
  row.calls += Number(sum.calls);
  row.failed += Number(sum.failed);
  row.bytesIn += Number(sum.requestBytes);
  row.bytesOut += Number(sum.responseBytes);
  for (const [at, count] of sum.durations.entries()) row.durations[at] = (row.durations[at] ?? 0) + Number(count);
}

/** Exported for its test. */
export function topTable(kind: TopKind, rows: readonly Row[], seconds: number): string {
  const cells = rows.map((row) => [
    ...row.words,
    (row.calls / seconds).toFixed(1),
    String(row.failed),
    atMost(row, 0.5),
    atMost(row, 0.99),
    bytesText(row.bytesIn / seconds),
    bytesText(row.bytesOut / seconds),
  ]);
  return table([...columns[kind], "CALLS/S", "FAILED", "P50", "P99", "IN/S", "OUT/S"], cells);
}

function rowJson(kind: TopKind, { words, calls, failed, bytesIn, bytesOut, ...row }: Row) {
  const named = Object.fromEntries(columns[kind].map((column, at) => [column.toLowerCase(), words[at]]));
  return { ...named, calls, failed, p50MsAtMost: quantileMs(row, 0.5), p99MsAtMost: quantileMs(row, 0.99), bytesIn, bytesOut };
}

function atMost(row: Pick<Row, "durations">, share: number): string {
  const ms = quantileMs(row, share);
  return ms === undefined ? `> ${(boundsMs.at(-1) ?? 0) / 1_000} s` : ms < 1_000 ? `≤ ${ms} ms` : `≤ ${ms / 1_000} s`;
}

/** The bound that this share of the calls did not exceed; undefined when it is beyond all bounds. */
function quantileMs({ durations }: Pick<Row, "durations">, share: number): number | undefined {
  const all = durations.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (const [at, count] of durations.entries()) {
    seen += count;
    if (seen >= all * share) return boundsMs[at];
  }
  return undefined;
}
