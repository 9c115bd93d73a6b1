// HTTP servers as this proxy opens them, and how they stop without losing a call.
import { createServer, type RequestListener, type Server } from "node:http";
import { type AddressInfo, isIP, type Socket } from "node:net";
import type { Log } from "../../common/log.ts";
import { reasonOf } from "../backends/errors.ts";
import { headersSeenMax } from "./front-door.ts";
import { answerUnreadable } from "./unreadable.ts";

/** How the proxy stops. */
export interface DrainOptions {
  /** How long it goes on as ever, only unready, so that load balancers notice, milliseconds. Default 0. */
  readonly delayMs?: number;
  /** How long calls in flight may take then, milliseconds. Default 30,000. */
  readonly callsMs?: number;
}

/** Where to listen; port 0 takes a free one. */
export interface Place {
  readonly host: string;
  readonly port: number;
}

// Node sweeps timeouts every 30 s by default, which would make 10 s mean 40.
const serverLimits = {
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  connectionsCheckingInterval: 1_000,
  keepAliveTimeout: 65_000, // longer than load balancers keep idle connections
  maxHeaderSize: 16 * 1024,
  requireHostHeader: false, // asked for at the front door, which answers in JSON
};
const requestsPerSocketMax = 1_000; // so that connections find their way to new replicas
const callsMsDefault = 30_000;
const lastMs = 1_000;

/** Does not listen yet. */
export function openServer(handle: RequestListener, log: Log): Server {
  const server = createServer(serverLimits, handle);
  server.maxHeadersCount = headersSeenMax;
  server.maxRequestsPerSocket = requestsPerSocketMax;
  server.on("clientError", (error, socket) => {
    // With its stack and the bytes it came from, what a client does to its own connection would fill the log.
    log.debug({ reason: reasonOf(error) }, "a client's connection failed");
    answerUnreadable(error, socket as Socket);
  });
  // The front door decides about expectations; Node would meet some of them, and answer others, before it.
  server.on("checkContinue", handle).on("checkExpectation", handle);
  return server;
}

/**
 * Gives `http://host:port`. Rejects when the port is taken. `exclusive`: a worker of a cluster listens by itself, where else it
 * would share the port with the others.
 */
export function listen(server: Server, { host, port }: Place, exclusive = false): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port, exclusive }, () => {
      server.off("error", reject);
      resolve(urlOf(host, (server.address() as AddressInfo).port));
    });
  });
}

function urlOf(host: string, port: number): string {
  return `http://${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
}

/** Unready for a while, so that nobody sends any more; then no new connections, no streams, and the calls in flight may finish. */
export async function stopServers(
  servers: readonly Server[],
  { delayMs = 0, callsMs = callsMsDefault }: DrainOptions,
  { endStreams, endCalls }: { endStreams(): void; endCalls(): void },
): Promise<void> {
  if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
  const closed = Promise.all(servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  endStreams();
  const each = (work: (server: Server) => void): void => {
    for (const server of servers) work(server);
  };
  // A connection whose call has just ended is idle only then, so idle ones are closed again and again.
  const idle = setInterval(() => each((server) => server.closeIdleConnections()), 50);
  const late = setTimeout(endCalls, callsMs);
  const force = setTimeout(() => each((server) => server.closeAllConnections()), callsMs + lastMs);
  await closed;
  for (const timer of [idle, late, force]) clearTimeout(timer);
}
