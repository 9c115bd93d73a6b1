// The bound on connections, which closes further while the process is short of resources.
import type { Server } from "node:net";
import type { LimitReport } from "./limit-report.ts";
import { type PressureLevel, pressureLevels } from "./pressure.ts";

export interface ConnectionBound {
  /** Watches this server's connections. */
  bind(server: Server): void;
  /** To be called with every sample of the pressure. */
  sample(level: PressureLevel): void;
  report(): LimitReport;
  /** Few are left: whoever is refused shall not keep one. */
  readonly isCrowded: boolean;
}

// So many get in with every sample all the same: whoever asks whether this process lives is to hear it.
const trickle = 8;

export function createConnectionBound(most: number): ConnectionBound {
  let server: Server | undefined;
  let cap = most;
  let used = 0;
  let refused = 0;
  return {
    bind(bound) {
      server = bound;
      cap = Math.min(most, server.maxConnections ?? most); // whoever knows a lower bound has set it
      server.on("connection", (socket) => {
        used++;
        socket.once("close", () => {
          used--;
        });
      });
      server.on("drop", () => {
        refused++;
      });
    },
    sample(level) {
      if (server) server.maxConnections = level >= pressureLevels.connections ? Math.min(cap, used + trickle) : cap;
    },
    get isCrowded() {
      return used > cap * 0.9;
    },
    report: () => ({ name: "connections", used, limit: cap, refused }),
  };
}
