// How many connections there may be, in all and from one address.
import type { Server } from "node:http";
import type { Log } from "../../common/log.ts";

export interface ConnectionLimits {
  /** In all. Fewer where the process may not open so many files: the rest is for backends and Redis. */
  readonly max: number;
  /** From one address, of IPv6 from one /64; undefined: as many as there may be. */
  readonly perAddressMax: number | undefined;
  readonly log: Log;
}

const shareOfFiles = 0.8;
const sayMs = 60_000;

/** Hangs up on every connection beyond the limits, as soon as it is accepted. Those that are open are not touched. */
export function limitConnections(server: Server, { max, perAddressMax, log }: ConnectionLimits): void {
  server.maxConnections = Math.max(1, Math.min(max, Math.floor(openFilesMax() * shareOfFiles)));
  let saidAtMs = Number.NEGATIVE_INFINITY;
  // Whoever floods us shall not flood the log.
  const say = (reason: string): void => {
    if (performance.now() - saidAtMs < sayMs) return;
    saidAtMs = performance.now();
    log.warn({ reason, connections: server.maxConnections }, "connections are hung up on");
  };
  server.on("drop", () => say("as many connections as there may be are open"));
  if (perAddressMax === undefined) return;

  const open = new Map<string, number>();
  server.on("connection", (socket) => {
    const { remoteAddress } = socket;
    if (remoteAddress === undefined) return void socket.destroy(); // it is gone already
    const network = networkOf(remoteAddress);
    const count = (open.get(network) ?? 0) + 1;
    if (count > perAddressMax) {
      socket.destroy();
      return say("one address has as many connections open as it may");
    }
    open.set(network, count);
    socket.once("close", () => {
      const left = (open.get(network) ?? 1) - 1;
      if (left > 0) open.set(network, left);
      else open.delete(network);
    });
  });
}

/** What one customer of a network has: an IPv4 address, or of IPv6 the first 64 bits (RFC 6177), of which nobody has just one address. */
export function networkOf(address: string): string {
  if (!address.includes(":")) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped) return mapped[1] as string;
  const [head = "", tail] = address.split("::");
  const groups = head === "" ? [] : head.split(":");
  const missing = tail === undefined ? 0 : 8 - groups.length - (tail === "" ? 0 : tail.split(":").length);
  const all = [...groups, ...Array.from({ length: missing }, () => "0"), ...(tail ? tail.split(":") : [])];
  return `${all.slice(0, 4).join(":")}::/64`;
}

/** Of this process; without a bound where nobody says. */
function openFilesMax(): number {
  const report = process.report as typeof process.report & { excludeNetwork?: boolean };
  const wasExcluding = report.excludeNetwork;
  report.excludeNetwork = true; // names of peers are looked up for it otherwise
  const { userLimits } = report.getReport() as { userLimits?: { open_files?: { soft?: number | "unlimited" } } };
  report.excludeNetwork = wasExcluding ?? false;
  const soft = userLimits?.open_files?.soft;
  return typeof soft === "number" ? soft : Number.POSITIVE_INFINITY;
}
