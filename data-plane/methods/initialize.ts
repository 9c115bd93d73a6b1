// What this virtual server is, said to a client that opens a session, and to one that asks.
import type { View } from "../aggregation/view.ts";
import { resultResponse } from "../mcp/json-rpc.ts";
import { metaKeys, supportedStatelessVersions, tasksExtension } from "../mcp/stateless.ts";
import type { Session } from "../session/session.ts";
import type { VirtualServer } from "../virtual-server.ts";
import type { Method } from "./call.ts";

/** The result of `initialize`. */
export function initializeResult(server: VirtualServer, session: Session): string {
  const view = server.viewOf(session);
  return JSON.stringify({
    protocolVersion: session.protocolVersion,
    capabilities: capabilitiesOf(view),
    serverInfo: JSON.parse(server.serverInfo) as object,
    instructions: view.instructions,
  });
}

/** `server/discover`: the same for clients that open no sessions. */
export const discover: Method = ({ id, server, view }) =>
  resultResponse(
    id,
    JSON.stringify({
      resultType: "complete",
      supportedVersions: supportedStatelessVersions,
      capabilities: {
        ...capabilitiesOf(view),
        ...(view.offers.has(tasksExtension) ? { extensions: { [tasksExtension]: {} } } : {}),
      },
      instructions: view.instructions,
      // Configuration is pushed, and nothing tells a client that it has changed what is said here.
      ttlMs: 0,
      cacheScope: "private",
      _meta: { [metaKeys.serverInfo]: JSON.parse(server.serverInfo) as object },
    }),
  );

/** Lists can change at any time (backends come, configuration is pushed), so each says listChanged. */
function capabilitiesOf({ offers }: View): object {
  return {
    tools: { listChanged: true },
    ...(offers.has("resources") ? { resources: { subscribe: offers.has("resources.subscribe"), listChanged: true } } : {}),
    ...(offers.has("prompts") ? { prompts: { listChanged: true } } : {}),
    ...(offers.has("completions") ? { completions: {} } : {}),
    ...(offers.has("logging") ? { logging: {} } : {}),
  };
}
