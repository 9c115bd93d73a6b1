// `initialize`: what this virtual server is, said to a client that opens a session.
import { softwareVersion } from "../../common/version.ts";
import type { Session } from "../session/session.ts";
import type { VirtualServer } from "../virtual-server.ts";

/** The result text. Lists can change at any time (backends come, configuration is pushed), so each says listChanged. */
export function initializeResult(server: VirtualServer, session: Session): string {
  const { offers, instructions } = server.viewOf(session.capabilities);
  const { protocolVersion } = session;
  return JSON.stringify({
    protocolVersion,
    capabilities: {
      tools: { listChanged: true },
      ...(offers.has("resources") ? { resources: { subscribe: offers.has("resources.subscribe"), listChanged: true } } : {}),
      ...(offers.has("prompts") ? { prompts: { listChanged: true } } : {}),
      ...(offers.has("completions") ? { completions: {} } : {}),
      ...(offers.has("logging") ? { logging: {} } : {}),
    },
    serverInfo: { name: server.name, version: softwareVersion },
    instructions,
  });
}
