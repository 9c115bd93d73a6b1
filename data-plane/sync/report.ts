// What a proxy tells the control plane of itself.
import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { StatusReportSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Runtime } from "../runtime.ts";
import { listingOf } from "./listing.ts";

type Report = Exclude<MessageInitShape<typeof StatusReportSchema>, MessageShape<typeof StatusReportSchema>>;

/** How a proxy is: plain data, that one process can hand to another. */
export interface ProxyState {
  /** Everything that can be told. */
  readonly report: Report;
  /** How often it is to be told, milliseconds. */
  readonly everyMs: number;
}

const linesMax = 20_000;
const everyMs = { default: 30_000, least: 1_000 };

/** `workLeft`: calls and streams that are left while it takes no new work; undefined while it does. */
export function stateOf(runtime: Runtime, sessions: { readonly size: number }, workLeft?: number): ProxyState {
  const report: Report = {
    liveVersion: runtime.version,
    activeSessions: sessions.size,
    draining: workLeft !== undefined,
    workLeft: workLeft ?? 0,
    backends: runtime.backends.map(({ resource, catalog: name, backend: { state, catalog, listed, listedWith, isWatched } }) => ({
      name: resource,
      catalog: name,
      listingDigest: listed && name !== "" ? listingOf(listed).digest : "",
      watched: isWatched,
      state: state.state,
      error: state.error ?? "",
      protocolVersion: catalog?.facts.protocolVersion ?? "",
      era: catalog?.facts.era ?? "",
      listedWith,
      tools: catalog?.tools.length ?? 0,
      resources: (catalog?.resources.length ?? 0) + (catalog?.templates.length ?? 0),
      prompts: catalog?.prompts.length ?? 0,
    })),
    views: [...runtime.virtualServers.values()].map(({ name, view }) => ({
      virtualServer: name,
      entries: view.lines.slice(0, linesMax).map((line) => ({ ...line })),
    })),
  };
  // Who drains a proxy waits for the end of what it has.
  return { report, everyMs: workLeft === undefined ? everyMsOf(runtime) : everyMs.least };
}

/** As often as the virtual server wants that wants it most often. */
function everyMsOf({ virtualServers }: Runtime): number {
  const wanted = [...virtualServers.values()].flatMap(({ spec }) => {
    const interval = spec.operational?.failureHandling?.statusReportingInterval;
    return interval ? [durationMs(interval)] : [];
  });
  return Math.max(everyMs.least, Math.min(everyMs.default, ...wanted));
}

/** Takes out what was told before on the same stream: views go along only when they differ from the last report. */
export function createReporter(): (state: ProxyState) => Report {
  let lastViews = "";
  return ({ report }) => {
    const text = JSON.stringify(report.views);
    const hasNews = text !== lastViews;
    lastViews = text;
    return hasNews ? report : { ...report, views: [] };
  };
}
