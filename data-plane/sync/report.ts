// What this proxy tells the control plane of itself.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { StatusReportSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Runtime } from "../runtime.ts";

type Report = MessageInitShape<typeof StatusReportSchema>;

const linesMax = 20_000;

/** Writes reports of one stream; views go along only when they differ from the last report. */
export function createReporter(sessions: { readonly size: number }): (runtime: Runtime) => Report {
  let lastViews = "";
  return (runtime) => {
    const views = [...runtime.virtualServers.values()].map(({ name, view }) => ({
      virtualServer: name,
      entries: view.lines.slice(0, linesMax),
    }));
    const text = JSON.stringify(views);
    const hasNews = text !== lastViews;
    lastViews = text;
    return {
      liveVersion: runtime.version,
      activeSessions: sessions.size,
      backends: runtime.backends.map(({ resource, backend: { state, catalog, listedWith } }) => ({
        name: resource,
        state: state.state,
        error: state.error ?? "",
        protocolVersion: catalog?.facts.protocolVersion ?? "",
        era: catalog?.facts.era ?? "",
        listedWith,
        tools: catalog?.tools.length ?? 0,
        resources: (catalog?.resources.length ?? 0) + (catalog?.templates.length ?? 0),
        prompts: catalog?.prompts.length ?? 0,
      })),
      views: hasNews
        ? views.map(({ virtualServer, entries }) => ({ virtualServer, entries: entries.map((line) => ({ ...line })) }))
        : [],
    };
  };
}
