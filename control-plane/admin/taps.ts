// The streams that tell of calls. They hold nothing back: who reads too slowly, or asks for too much, is told how much is missing.
import { once } from "node:events";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import type { ServerWritableStream } from "@grpc/grpc-js";
import type {
  SumCallsRequest,
  SumCallsResponseSchema,
  TapCallsRequest,
  TapCallsResponseSchema,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { EncodedMessage } from "../../proto/grpc.ts";
import type { CallsWanted, OnCalls } from "../push/call-taps.ts";
import type { Fleet } from "../push/fleet.ts";
import { AdminError } from "./errors.ts";
import { invalid } from "./requests.ts";

const perSecond = { default: 100, most: 1_000 };
const overMs = { default: 1_000, least: 500, most: 60_000 };

type TapStream = ServerWritableStream<TapCallsRequest, MessageInitShape<typeof TapCallsResponseSchema> | EncodedMessage>;
type SumStream = ServerWritableStream<SumCallsRequest, MessageInitShape<typeof SumCallsResponseSchema> | EncodedMessage>;

/** Ends when the signal aborts. */
export async function streamCalls(fleet: Fleet, call: TapStream, signal: AbortSignal): Promise<void> {
  const { filter, sample, perSecond: asked } = call.request;
  if (asked > perSecond.most) throw invalid([{ field: "per_second", description: `at most ${perSecond.most}` }]);
  const most = asked || perSecond.default;
  let [second, told, leftOut] = [0, 0, 0n];
  await tap(fleet, { filter, sample, perSecond: most }, call, signal, (proxy, report) => {
    const now = Math.floor(performance.now() / 1_000);
    if (now !== second) [second, told] = [now, 0];
    const room = call.writableNeedDrain ? 0 : most - told;
    const events = report.events.slice(0, Math.max(0, room));
    told += events.length;
    leftOut += report.leftOut + BigInt(report.events.length - events.length);
    if (call.writableNeedDrain) return;
    call.write({ proxy, events, leftOut });
    leftOut = 0n;
  });
}

/** Ends when the signal aborts. */
export async function streamSums(fleet: Fleet, call: SumStream, signal: AbortSignal): Promise<void> {
  const { filter, over } = call.request;
  const ms = over ? durationMs(over) : overMs.default;
  if (ms < overMs.least || ms > overMs.most)
    throw invalid([{ field: "over", description: `${ms} ms; wanted ${overMs.least} to ${overMs.most} ms` }]);
  await tap(fleet, { filter, sumOver: durationFromMs(ms) }, call, signal, (proxy, { sums }) => {
    if (!call.writableNeedDrain) call.write({ proxy, sums });
  });
}

type Wanted = Pick<CallsWanted, "filter"> & Partial<CallsWanted>;

async function tap(
  fleet: Fleet,
  { filter, sample = 0, perSecond = 0, ...wanted }: Wanted,
  call: { write(message: { asked: string[]; unable: string[] }): boolean },
  signal: AbortSignal,
  onCalls: OnCalls,
): Promise<void> {
  using tapped = fleet.tapCalls({ filter, sample, perSecond, sumOver: wanted.sumOver }, onCalls);
  if (!tapped) throw new AdminError("BUSY", "too many listen to calls already; try again later");
  call.write({ asked: [...tapped.asked], unable: [...tapped.unable] });
  if (!signal.aborted) await once(signal, "abort");
}
