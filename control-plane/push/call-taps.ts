// Asks proxies to tell of calls, also those that come later, for as long as somebody listens.
import {
  type CallFilter,
  type CallsQuery,
  type CallsReport,
  StreamSnapshotsResponseSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { encode } from "../../proto/grpc.ts";
import type { Sendable } from "./target.ts";

// Each makes every proxy look at every call.
const tapsMax = 16;

export type CallsWanted = Pick<CallsQuery, "sample" | "perSecond" | "sumOver"> & { readonly filter: CallFilter | undefined };

export type OnCalls = (proxy: string, report: CallsReport) => void;

export interface TappedProxy {
  readonly node: { readonly id: string };
  readonly send: (sendable: Sendable) => void;
}

export interface CallTaps {
  /** Gives what ends it; undefined when too many listen already. */
  open(proxies: readonly TappedProxy[], wanted: CallsWanted, onCalls: OnCalls): (() => void) | undefined;
  /** A proxy has come that can be asked. */
  came(proxy: TappedProxy): void;
  /** What a proxy tells. What it was not asked for, or is not asked for any more, is nothing. */
  told(proxy: TappedProxy, report: CallsReport): void;
}

interface Open {
  readonly query: Sendable;
  readonly wanted: CallsWanted;
  readonly asked: Set<TappedProxy>;
  readonly onCalls: OnCalls;
}

export function createCallTaps(): CallTaps {
  const taps = new Map<bigint, Open>();
  let lastId = 0n;

  function ask({ asked, wanted, query }: Open, proxy: TappedProxy): void {
    const only = wanted.filter?.proxy ?? "";
    if (only !== "" && only !== proxy.node.id) return;
    asked.add(proxy);
    proxy.send(query);
  }

  return {
    open(proxies, wanted, onCalls) {
      if (taps.size >= tapsMax) return undefined;
      const id = ++lastId;
      const open = { query: sendableOf({ id, ...wanted }), wanted, asked: new Set<TappedProxy>(), onCalls };
      taps.set(id, open);
      for (const proxy of proxies) ask(open, proxy);
      return () => {
        if (!taps.delete(id)) return;
        for (const proxy of open.asked) proxy.send(sendableOf({ id, stop: true }));
      };
    },
    came(proxy) {
      for (const open of taps.values()) ask(open, proxy);
    },
    told(proxy, report) {
      const open = taps.get(report.queryId);
      if (open?.asked.has(proxy)) open.onCalls(proxy.node.id, report);
    },
  };
}

function sendableOf(value: { readonly id: bigint; readonly stop?: boolean } & Partial<CallsWanted>): Sendable {
  const { filter, sumOver, ...rest } = value;
  const query = { ...rest, ...(filter && { filter }), ...(sumOver && { sumOver }) };
  return {
    nonce: 0n,
    messages: [encode(StreamSnapshotsResponseSchema, { payload: { case: "callsQuery", value: query } })],
  };
}
